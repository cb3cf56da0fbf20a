"""The learner of a run: its optimiser's settings, and what a checkpoint holds of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tokenq.config.control import ControlConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.scaling import ReturnStatistics


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
        optim=config.optim if isinstance(config, ControlConfig) else "adamw",
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


def learner_state(learner: Learner) -> dict[str, Any]:
    """Everything of a learner that the future depends on."""
    return {
        "parameters": {n: p.detach() for n, p in learner.network.named_parameters() if p.requires_grad},
        "optimiser": learner.optimiser.state_dict(),
        "target": learner.target.tensors(),
        "target_counters": learner.target.counters(),
        "statistics": asdict(learner.statistics),
        "update": learner.update_count,
        "resting": list(learner.resting),
    }


def restore_learner(learner: Learner, state: dict[str, Any]) -> None:
    """The inverse of `learner_state`."""
    for name, parameter in learner.network.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(state["parameters"][name])
    learner.optimiser.load_state_dict(state["optimiser"])
    learner.target.restore(state["target"], state["target_counters"])
    learner.statistics = ReturnStatistics(**state["statistics"])
    learner.update_count = state["update"]
    begin, end = state["resting"]
    learner.resting = begin, end
