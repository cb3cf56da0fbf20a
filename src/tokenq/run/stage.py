"""One supervised stage of a run: its updates, validations and metrics, and how it goes on where it was interrupted."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenq import checkpoint
from tokenq.config.supervised import FinetuneConfig, PretrainConfig
from tokenq.errors import CheckpointError, ConfigError, Diverged
from tokenq.run.drive import refusals_named
from tokenq.supervised import EarlyStopping, Fit, Loss, Step, SupervisedLearner, mean_loss
from tokenq.tracking import MetricsFile, Progress

STATE = "state.safetensors"


@dataclass(frozen=True)
class Examples:
    """A loss over numbered examples, and how many there are."""

    loss: Loss
    count: int


@dataclass(frozen=True)
class Stage:
    """What a stage is called, which part of the configuration sets it, and what it writes where, on which periods."""

    name: str
    key: str
    folder: Path
    logging_steps: int
    save_steps: int

    @property
    def metrics(self) -> Path:
        """A row for every period: mean loss and gradient norm of its updates, and the loss on what was held out."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where its state is, until the model that it leaves is kept elsewhere."""
        return self.folder / "checkpoints"

    def forget(self) -> None:
        """Drop its state: nothing will go on from there."""
        if self.checkpoints.is_dir():
            shutil.rmtree(self.checkpoints)


@dataclass(frozen=True)
class Validation:
    """What was held out, and the updates between two looks at it."""

    examples: Examples
    every: int

    def measure(self, batch_size: int) -> float:
        """Its mean loss."""
        return mean_loss(self.examples.loss, self.examples.count, batch_size)


@dataclass(eq=False)
class _Underway:
    """The parts of a stage that a checkpoint holds; `since` are the updates since the last row of metrics."""

    learner: SupervisedLearner
    stopping: EarlyStopping
    since: list[Step]
    done: bool = False

    def save(self, stage: Stage, offset: int) -> None:
        state = {
            "learner": self.learner.state(),
            "stopping": self.stopping.state(),
            "since": [asdict(step) for step in self.since],
            "done": self.done,
            "metrics_offset": offset,
            "random": checkpoint.capture({}),
        }

        def write(folder: Path, previous: Path | None) -> None:
            checkpoint.save_tensors(folder / STATE, state)

        checkpoint.save(stage.checkpoints, self.learner.update, write, keep=1)

    def restore(self, folder: Path) -> int:
        """Go back to a checkpoint; the number of bytes of metrics that belong to it."""
        state: Any = checkpoint.load_tensors(folder / STATE)
        self.learner.restore(state["learner"])
        self.stopping.restore(state["stopping"])
        self.since = [Step(**step) for step in state["since"]]
        self.done = state["done"]
        checkpoint.restore(state["random"], {})
        offset: int = state["metrics_offset"]
        return offset


def drive_stage(
    stage: Stage,
    model: Any,
    train: Examples,
    valid: Examples | None,
    config: PretrainConfig | FinetuneConfig,
    seed: int,
) -> None:
    """Make all updates, or stop early, and keep the weights that validated best; on from a checkpoint, if there is one.

    Raises:
        ConfigError: the optimiser has nothing to do in this model.
        Diverged: the loss is not finite. What was saved before is whole.
        CheckpointError: the disk refused, or no checkpoint of the stage is whole.
    """
    try:
        learner = SupervisedLearner(model, train.loss, train.count, _fit(config), seed)
    except ConfigError as error:
        raise ConfigError(f"{stage.key}.{error}") from error
    underway = _Underway(learner, EarlyStopping(model, config.patience), [])
    validation = None if valid is None else Validation(valid, config.eval_steps)
    with refusals_named(stage.folder):
        offset = _begin(stage, underway)
        with Progress(config.max_steps, learner.update) as progress, MetricsFile(stage.metrics, offset) as metrics:
            if underway.done:
                return progress.say(f"{stage.name} was done")
            where = "" if learner.update == 0 else f", on from update {learner.update}"
            progress.say(f"{stage.name} on {train.count:,} texts{where}")
            _make_updates(stage, underway, validation, metrics, progress)
            progress.say(_ending(stage, underway))
            underway.stopping.keep_best()
            underway.done = True
            underway.save(stage, metrics.offset)


def _fit(config: PretrainConfig | FinetuneConfig) -> Fit:
    return Fit(
        updates=config.max_steps,
        batch_size=config.per_device_train_batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        decay=config.lr_scheduler_type,
        optim=config.optim,
    )


def _begin(stage: Stage, underway: _Underway) -> int | None:
    """Go back to the newest whole checkpoint; the bytes of metrics that belong to it, None where there is none."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    found, skipped = checkpoint.newest_whole(stage.checkpoints)
    if found is not None:
        return underway.restore(found.folder)
    if skipped:
        raise CheckpointError(f"{stage.checkpoints}: {skipped[0]}; remove that folder to repeat {stage.name}")
    return None


def _make_updates(
    stage: Stage,
    underway: _Underway,
    validation: Validation | None,
    metrics: MetricsFile,
    progress: Progress,
) -> None:
    learner, last = underway.learner, underway.learner.settings.updates
    while learner.update < last:
        try:
            underway.since.append(learner.step())
        except Diverged as error:
            advice = f"lower {stage.key}.learning_rate and start in another folder"
            raise Diverged(f"{stage.name}, {error}; {advice}") from error
        update = learner.update
        progress.advance(update)
        validates = validation is not None and (update % validation.every == 0 or update == last)
        stops = False
        if validates or update % stage.logging_steps == 0 or update == last:
            row = _row(stage, underway)
            if validation is not None and validates:
                row["validation_loss"] = validation.measure(learner.settings.batch_size)
                stops = underway.stopping.observe(update, row["validation_loss"])
            metrics.write(row)
            progress.report(row)
            underway.since = []
        if stops:
            return
        if update % stage.save_steps == 0 and update < last:
            underway.save(stage, metrics.offset)


def _row(stage: Stage, underway: _Underway) -> dict[str, Any]:
    """One line of metrics: means over the updates since the last one."""
    since = underway.since
    return {
        "update": underway.learner.update,
        "phase": stage.name,
        "loss": float(np.mean([step.loss for step in since])),
        "grad_norm": float(np.mean([step.grad_norm for step in since])),
        "learning_rate": since[-1].learning_rate,
    }


def _ending(stage: Stage, underway: _Underway) -> str:
    update, stopping = underway.learner.update, underway.stopping
    if stopping.best_update == 0:
        return f"{stage.name} done"
    how = "done" if update == underway.learner.settings.updates else f"stops after {update} updates"
    return f"{stage.name} {how}; the weights of update {stopping.best_update} are kept: {stopping.best:.3f} nats"
