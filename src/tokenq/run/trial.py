"""One trial of a search: train a configuration with each seed, and say how it goes, in this process or another one."""

import gc
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console

from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError, Diverged, TokenqError
from tokenq.nets.loading import quiet
from tokenq.run.drive import updates
from tokenq.run.folder import CONFIG, alone, claim, whole_folder
from tokenq.run.given import Given
from tokenq.run.models import START
from tokenq.run.session import Session
from tokenq.run.train import finished, prepare

KEPT = frozenset({CONFIG, "summary.json", "metrics.jsonl", "curves.png", "pretrain", "finetune", "losses.png"})
"""What stays of the runs of a trial that is not the best one."""
PREFIX = "eval_"


@dataclass(frozen=True)
class Run:
    """A run of a trial: its configuration, and where it finds, or puts, the model that trials with its seed start from.

    `shared_start` is None if it has a start of its own.
    """

    config: TrainConfig
    shared_start: Path | None

    @property
    def folder(self) -> Path:
        """Where it leaves what it leaves."""
        return Path(self.config.output_dir or "")


@dataclass(frozen=True)
class Job:
    """What a trial has to do in its folder: one run for each seed. `is_default` if nothing was varied."""

    folder: Path
    runs: tuple[Run, ...]
    metric: str
    is_default: bool


@dataclass(frozen=True)
class Evaluated:
    """The metric after so many updates of the first run."""

    update: int
    value: float


@dataclass(frozen=True)
class Scored:
    """The metric at the end of each run."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Refused:
    """The trial has no score, and never will."""

    reason: str


Event = Evaluated | Scored | Refused


def run_trial(job: Job) -> Generator[Event, None, None]:
    """Train a trial, from wherever it was interrupted: its evaluations, and as the last event its score or refusal.

    Whoever stops early leaves runs that can be resumed. What the runs have to say goes to `log.txt` of the folder.

    Raises:
        ConfigError: nothing is evaluated, or there is no such metric; or the default configuration is wrong.
        TokenqError: the data, a reward function or the disk failed; the state is saved.
    """
    scores: list[float] = []
    with alone(job.folder, wait=True), (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        for number, run in enumerate(job.runs):
            score = _score(run, job.metric)
            if score is None:
                try:
                    session = _prepared(run, log)
                except ConfigError as error:
                    if job.is_default:
                        raise
                    yield Refused(str(error))
                    return
                except (Diverged, torch.OutOfMemoryError) as error:
                    yield Refused(" ".join(str(error).split()))
                    return
                try:
                    for event in _evaluations(session, job.metric, log):
                        if number == 0:
                            yield event
                except (Diverged, torch.OutOfMemoryError) as error:
                    yield Refused(" ".join(str(error).split()))
                    return
                del session
                gc.collect()  # the parts of a run refer to each other, and the next one wants their memory
                score = _score(run, job.metric)
            if score is None or math.isnan(score):
                yield Refused(f"{job.metric} has no value at the end of seed {run.config.seed}")
                return
            scores.append(score)
    yield Scored(tuple(scores))


def serve(job: Job, parent: Any, threads: int) -> None:
    """Run a trial in a process of its own: send every event to `parent`, and go on as long as it answers true."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    quiet()
    try:
        with closing(run_trial(job)) as events:
            for event in events:
                parent.send(event)
                if not parent.recv():
                    break
    except (TokenqError, OSError) as error:
        parent.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _prepared(run: Run, log: TextIO) -> Session:
    """The parts of a run that is new or goes on; the first one to need it makes the start, the others wait for it."""
    if not (run.folder / CONFIG).is_file():
        claim(run.folder, run.config)
    with redirect_stderr(log):
        if run.shared_start is None:
            return prepare(run.config, Given())
        own = run.folder / START
        with alone(run.shared_start.parent, wait=True):
            if not run.shared_start.is_dir():
                session = prepare(run.config, Given())
                if own.is_dir():
                    _copy(own, run.shared_start)
                return session
        if not own.is_dir():
            _copy(run.shared_start, own)
        return prepare(run.config, Given())


def _copy(source: Path, target: Path) -> None:
    with whole_folder(target) as place:
        shutil.copytree(source, place, dirs_exist_ok=True)


def _evaluations(session: Session, metric: str, log: TextIO) -> Iterator[Evaluated]:
    """Drive a run to its end; every evaluation on the way."""
    if session.evaluator is None:
        raise ConfigError(f"metric: got {metric}, but nothing is evaluated without rewards; set reward_funcs in config")
    for row in updates(session, Console(file=log)):
        known = [f"{PREFIX}{name}" for name in session.before]
        if metric not in known:
            raise ConfigError(f"metric: got {metric!r}, which no evaluation has; expected one of {', '.join(known)}")
        if row.get(metric) is not None and not math.isnan(row[metric]):
            yield Evaluated(row["update"], row[metric])
    with redirect_stdout(log):
        finished(session)


def _score(run: Run, metric: str) -> float | None:
    """The metric at the end of a run; None if it has not ended, NaN if there is none."""
    path = run.folder / "summary.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))["after"].get(metric.removeprefix(PREFIX))
    return math.nan if value is None else float(value)
