"""Drive a run: make its updates, and log, evaluate and save on their periods; whatever it learns and from what."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from tokenq import checkpoint
from tokenq.config.control import ControlConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import CheckpointError, Diverged, TokenqError
from tokenq.learning.learner import Learner, Report
from tokenq.run.folder import alone
from tokenq.tracking import MetricsFile, Progress
from tokenq.types import Batch


@runtime_checkable
class Run(Protocol):
    """A run that can be driven: its parts, and what it does.

    `before` are the metrics at the start. `pending` is a row of metrics that waits for its evaluation: should that
    fail, it is part of what is saved. `seconds` is the time spent, over all attempts.
    """

    folder: Path
    learner: Learner
    before: dict[str, float]
    pending: dict[str, Any] | None
    seconds: float

    @property
    def config(self) -> TrainConfig | ControlConfig:
        """The settings."""

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""

    def opening(self) -> list[str]:
        """What is said before the first update."""

    def begin(self) -> None:
        """What comes before the first update of a run that starts."""

    def learn(self) -> Iterator[tuple[Report, Batch]]:
        """Make the updates that are left."""

    def row(self, report: Report, batch: Batch) -> dict[str, Any]:
        """One line of metrics."""

    def signs(self, row: dict[str, Any]) -> list[str]:
        """Sentences that name what looks like divergence in a row; empty if nothing does."""

    def measure(self) -> dict[str, float] | None:
        """The metrics of an evaluation; None where there is nothing to measure."""

    def save(self, metrics_offset: int) -> Path:
        """One atomic checkpoint; its folder."""

    def restore(self, folder: Path) -> int:
        """Go back to a checkpoint; the number of bytes of metrics that belong to it."""


def updates(run: Run, console: Console | None = None) -> Iterator[dict[str, Any]]:
    """Make the updates that a run lacks; yields each row of metrics once it is written to the file.

    Whoever has seen enough stops: what was saved until then is whole, and the run can be resumed from it. Progress goes
    to `console`, standard error by default. Meanwhile the folder is held against other processes: two of them in one
    run would write over each other's checkpoints.
    """
    try:
        with (
            refusals_named(run.folder),
            alone(run.folder, wait=False),
            Progress(run.config.max_steps, run.learner.update_count, console) as bar,
        ):
            for line in run.opening():
                bar.say(line)
            with _resume_or_start(run, bar) as metrics:
                yield from _drive(run, metrics, bar)
    except GeneratorExit:
        run.learner.accelerator.end_training()
        raise


@contextmanager
def refusals_named(folder: Path) -> Iterator[None]:
    """An error of the disk says which folder it hit and what to do."""
    try:
        yield
    except OSError as error:
        advice = "what was saved before is whole; free or repair the disk, then set resume to true"
        raise CheckpointError(f"{folder}: cannot be written ({error}); {advice}") from error


@contextmanager
def ending(run: Run) -> Iterator[None]:
    """What comes after the last update: an error says that nothing but this has to be done again."""
    with refusals_named(run.folder):
        try:
            yield
        except TokenqError as error:
            ended = "all updates are done and saved; --resume true repeats only the end"
            raise type(error)(f"{error} ({ended})") from error
    run.learner.accelerator.end_training()


def _resume_or_start(run: Run, progress: Progress) -> MetricsFile:
    path = run.folder / "metrics.jsonl"
    found, skipped = checkpoint.newest_whole(run.checkpoints)
    for reason in skipped:
        progress.say(f"skipped a damaged checkpoint, {reason}")
    if found is not None:
        metrics = MetricsFile(path, run.restore(found.folder))
        progress.say(f"resumed from {found.folder.name}")
        return metrics
    if skipped:
        raise CheckpointError(
            f"{run.checkpoints}: none of {len(skipped)} checkpoints is whole; start in another folder"
        )
    try:
        _start(run, progress)
    except TokenqError as error:
        raise type(error)(f"{error} (before the first update; --resume true tries again)") from error
    return MetricsFile(path)


def _start(run: Run, progress: Progress) -> None:
    run.begin()
    figures = run.measure()
    if figures is not None:
        run.before = figures
        progress.say(f"before: {_spoken(figures)}")


def _drive(run: Run, metrics: MetricsFile, progress: Progress) -> Iterator[dict[str, Any]]:
    """Make updates until the last one; log, evaluate and save on their periods, and save before any error leaves.

    Yields the rows that it writes, each before the state is saved: a row that was not seen is written again.
    """
    config, began = run.config, time.monotonic() - run.seconds
    warned: set[str] = set()
    try:
        if (row := _log(run, metrics, progress, warned)) is not None:
            yield row
        for report, batch in run.learn():
            update = report.update
            run.seconds = time.monotonic() - began
            evaluated = config.eval_steps is not None and update % config.eval_steps == 0
            if update in (1, config.max_steps) or update % config.logging_steps == 0 or evaluated:
                run.pending = run.row(report, batch)
                if (row := _log(run, metrics, progress, warned)) is not None:
                    yield row
            progress.advance(update)
            if update % config.save_steps == 0 or update == config.max_steps:
                run.save(metrics.offset)
    except CheckpointError:
        raise
    except TokenqError as error:
        raise type(error)(f"{error} ({_saved(run, metrics.offset, error)})") from error


def _saved(run: Run, metrics_offset: int, error: TokenqError) -> str:
    """Save the state before this error leaves; what became of it."""
    try:
        folder = run.save(metrics_offset)
    except CheckpointError as failed:
        return f"the state could not be saved: {failed}"
    # The same settings would diverge again.
    way_on = "start again in another folder" if isinstance(error, Diverged) else "--resume true goes on from there"
    return f"state saved in {folder}; {way_on}"


def _log(run: Run, metrics: MetricsFile, progress: Progress, warned: set[str]) -> dict[str, Any] | None:
    """Evaluate, if it is time, and write the pending row of metrics; there is none but for a new update."""
    config, row = run.config, run.pending
    if row is None:
        return None
    if config.eval_steps and row["update"] % config.eval_steps == 0:
        row = row | {f"eval_{name}": value for name, value in (run.measure() or {}).items()}
    metrics.write(row)
    run.pending = None
    run.learner.accelerator.log(row, step=row["update"])
    progress.report(row)
    for sign in run.signs(row):
        if sign.split()[0] not in warned:
            warned.add(sign.split()[0])
            progress.say(f"warning, update {row['update']}: {sign}")
    return row


def _spoken(metrics: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if not k.endswith(("_low", "_high")))
