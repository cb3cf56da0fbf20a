"""The learner of a run: its optimiser's settings, and what a checkpoint of any run holds."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from accelerate import Accelerator

from tokenq import checkpoint
from tokenq.config.control import ControlConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.scaling import ReturnStatistics

STATE = "state.safetensors"
CLOCK = "clock.json"


def optimisation(config: TrainConfig | ControlConfig) -> Optimisation:
    """The optimiser's settings of a configuration."""
    return Optimisation(
        learning_rate=config.learning_rate,
        schedule=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        microbatches=config.gradient_accumulation_steps,
        optim=config.optim,
    )


def accelerator(config: TrainConfig | ControlConfig, folder: Path) -> Accelerator:
    """Devices, precision and trackers; raises `ConfigError` for a tracker that is not there."""
    try:
        made = Accelerator(log_with=config.report_to or None, project_dir=str(folder))
        made.init_trackers("tokenq")
    except (ValueError, ImportError) as error:
        raise ConfigError(f"report_to: got {config.report_to}; {error}") from error
    if made.num_processes > 1:
        raise ConfigError(f"got {made.num_processes} processes, expected one: start tokenq without a launcher")
    return made


@runtime_checkable
class Resumable(Protocol):
    """What runs of every kind save and restore; `drive.Run` says what it means."""

    learner: Learner
    rng: np.random.Generator
    before: dict[str, float]
    pending: dict[str, Any] | None
    seconds: float


def save_state(run: Resumable, folder: Path, metrics_offset: int, parts: dict[str, Any]) -> None:
    """Write a run's learner, random streams and figures into a checkpoint, and parts of its own."""
    shared = {
        "random": checkpoint.capture({"replay": run.rng}),
        "metrics_offset": metrics_offset,
        "before": run.before,
        "pending": run.pending,
    }
    checkpoint.save_tensors(folder / STATE, _learner_state(run.learner) | shared | parts)
    # Apart from everything else, which is the same bytes in every run of the same configuration.
    (folder / CLOCK).write_text(json.dumps({"seconds": run.seconds}), encoding="utf-8")


@contextmanager
def restored(run: Resumable, folder: Path) -> Iterator[dict[str, Any]]:
    """The inverse of `save_state`; yields everything that was written, so that a run takes parts of its own.

    Random streams come last: taking parts may draw from them.
    """
    state = checkpoint.load_tensors(folder / STATE)
    _restore_learner(run.learner, state)
    run.before, run.pending = state["before"], state["pending"]
    run.seconds = json.loads((folder / CLOCK).read_text("utf-8"))["seconds"]
    yield state
    checkpoint.restore(state["random"], {"replay": run.rng})


def _learner_state(learner: Learner) -> dict[str, Any]:
    return {
        "parameters": {n: p.detach() for n, p in learner.network.named_parameters() if p.requires_grad},
        "optimisers": [optimiser.state_dict() for optimiser in learner.optimisers],
        "target": learner.target.tensors(),
        "target_counters": learner.target.counters(),
        "statistics": asdict(learner.statistics),
        "update": learner.update_count,
        "resting": list(learner.resting),
    }


def _restore_learner(learner: Learner, state: dict[str, Any]) -> None:
    for name, parameter in learner.network.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(state["parameters"][name])
    for optimiser, own in zip(learner.optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(own)
    learner.target.restore(state["target"], state["target_counters"])
    learner.statistics = ReturnStatistics(**state["statistics"])
    learner.update_count = state["update"]
    begin, end = state["resting"]
    learner.resting = begin, end
