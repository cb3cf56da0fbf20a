"""The study of a search: Optuna chooses settings and judges trials, and its SQLite file survives whatever happens.

Only one process writes the file, whatever the number of workers, and each of its changes is one transaction. A trial
that was interrupted keeps its number, its settings and its folder, and waits for its turn again.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from tokenq.config.search import Space, configured, value_at
from tokenq.config.train import TrainConfig
from tokenq.config.tune import Hyperband, Median, Tpe, TuneConfig
from tokenq.errors import ConfigError, TokenqError
from tokenq.run.trial import Evaluated, Event, Job, Refused, Run, Scored, run_trial, serve

NAME = "tokenq"
TRIALS = "trials"
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a study does: the default configuration, the space of each key, and where models to start from are shared.

    `starts` is None if trials start from different models.
    """

    config: TuneConfig
    default: TrainConfig
    spaces: Mapping[str, Space]
    folder: Path
    starts: Path | None

    def defaults(self) -> dict[str, Any]:
        """What a trial calls the settings of the default configuration, as far as they lie within their spaces."""
        names = {key: space.name(value_at(self.default, key)) for key, space in self.spaces.items()}
        return {key: name for key, name in names.items() if name is not None}

    def place(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / TRIALS / f"{number:04d}"


@dataclass(eq=False)
class Running:
    """A trial that runs: the updates it has reported, and its process if it has one of its own."""

    trial: Trial
    reported: set[int]
    process: ForkServerProcess | None = field(default=None)


@contextmanager
def opened(plan: Plan) -> Iterator[Study]:
    """The study in the plan's folder, new or as it was left; no trial of it is called running before or after."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = RDBStorage(f"sqlite:///{plan.folder / 'study.db'}")
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=NAME,
            direction=plan.config.direction,
            pruner=_pruner(plan.config, plan.default.max_steps),
            load_if_exists=True,
        )
        _put_back(study, storage)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(plan.defaults())
        try:
            yield study
        finally:
            _put_back(study, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _put_back(study: Study, storage: RDBStorage) -> None:
    """Let trials whose process is gone wait for their turn again: there is no other process than this one."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        identity = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(NAME), trial.number)
        storage.set_trial_state_values(identity, TrialState.WAITING)


def best(study: Study) -> FrozenTrial | None:
    """The best trial that has a score, if there is any."""
    return study.best_trial if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else None


def search(study: Study, plan: Plan) -> Iterator[FrozenTrial]:
    """Run what the study lacks, several trials at a time if asked for; yields each trial when it is over."""
    began, limit = monotonic(), plan.config.timeout

    def more() -> bool:
        counted = study.get_trials(deepcopy=False, states=(*DONE, TrialState.RUNNING))
        return len(counted) < plan.config.trials and (limit is None or monotonic() - began < limit)

    if plan.config.workers > 1:
        yield from _in_processes(study, plan, more)
        return
    while more():
        running, job = _begin(study, plan)
        if job is not None:
            with closing(run_trial(job)) as events:
                for event in events:
                    if not _heard(study, running, event):
                        break
        yield study.get_trials(deepcopy=False)[running.trial.number]


def _in_processes(study: Study, plan: Plan, more: Callable[[], bool]) -> Iterator[FrozenTrial]:
    # A clean process that has imported everything is forked for each trial: this one may hold a GPU or threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tokenq.run.trial"])
    threads = max(1, torch.get_num_threads() // plan.config.workers)
    lines: dict[Connection, Running] = {}
    try:
        while True:
            while len(lines) < plan.config.workers and more():
                running, job = _begin(study, plan)
                if job is None:
                    yield study.get_trials(deepcopy=False)[running.trial.number]
                    continue
                ours, theirs = context.Pipe()
                running.process = context.Process(target=serve, args=(job, theirs, threads), daemon=True)
                running.process.start()
                theirs.close()
                lines[ours] = running
            if not lines:
                return
            for line in [line for line in wait(list(lines)) if isinstance(line, Connection)]:
                if not _answered(study, lines[line], line):
                    running = lines.pop(line)
                    _ended(running)
                    line.close()
                    yield study.get_trials(deepcopy=False)[running.trial.number]
    finally:
        for line, running in lines.items():
            if running.process is not None:
                running.process.terminate()
            _ended(running)
            line.close()


def _answered(study: Study, running: Running, line: Connection) -> bool:
    """Take in one event of a process and answer it; whether the trial goes on."""
    try:
        event = line.recv()
    except EOFError as error:
        _ended(running)
        code = None if running.process is None else running.process.exitcode
        raise TokenqError(
            f"trial {running.trial.number}: its process ended with exit code {code}; --resume true tries again"
        ) from error
    if isinstance(event, Exception):
        raise event
    goes_on = _heard(study, running, event)
    line.send(goes_on)
    return goes_on


def _ended(running: Running) -> None:
    if running.process is not None:
        running.process.join()


def _begin(study: Study, plan: Plan) -> tuple[Running, Job | None]:
    """The next trial and what it has to do; no job if its settings do not go together, and so it is over."""
    trials = study.get_trials(deepcopy=False)
    waiting = [trial.number for trial in trials if trial.state is TrialState.WAITING]
    # Drawn from the trial's own number, so that a resumed study tries what an unbroken one would have tried.
    study.sampler = _sampler(plan.config, min(waiting, default=len(trials)))
    trial = study.ask()
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    is_default = trial.number == 0
    within = plan.defaults() if is_default else plan.spaces
    values = {key: space.suggest(trial, key) for key, space in plan.spaces.items() if key in within}
    running = Running(trial, reported)
    try:
        config = plan.default if is_default else configured(plan.default, values)
    except ConfigError as error:
        _heard(study, running, Refused(str(error)))
        return running, None
    place = plan.place(trial.number)
    configs = [
        replace(config, seed=seed, output_dir=str(place / f"seed-{seed}"), resume=True) for seed in plan.config.seeds
    ]
    runs = tuple(Run(own, plan.starts and plan.starts / f"seed-{own.seed}") for own in configs)
    return running, Job(place, runs, plan.config.metric, is_default)


def _heard(study: Study, running: Running, event: Event) -> bool:
    """Write down what a trial says; whether it goes on."""
    trial = running.trial
    match event:
        case Evaluated(update, value):
            if update not in running.reported:
                trial.report(value, update)
                running.reported.add(update)
            if not trial.should_prune():
                return True
            trial.set_user_attr("note", f"stopped early, after update {update}")
            study.tell(trial, state=TrialState.PRUNED)
        case Scored(values):
            trial.set_user_attr("scores", list(values))
            study.tell(trial, sum(values) / len(values))
        case Refused(reason):
            trial.set_user_attr("note", reason)
            study.tell(trial, state=TrialState.PRUNED)
    return False


def _sampler(config: TuneConfig, number: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    if isinstance(config.sampler, Tpe):
        return TPESampler(n_startup_trials=config.sampler.startup_trials, seed=seed)
    return RandomSampler(seed=seed)


def _pruner(config: TuneConfig, updates: int) -> BasePruner:
    match config.pruner:
        case Median(startup_trials, warmup_steps):
            return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_steps)
        case Hyperband(min_steps, reduction):
            return HyperbandPruner(min_resource=min_steps, max_resource=updates, reduction_factor=reduction)
    return NopPruner()
