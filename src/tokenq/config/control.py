"""Every setting of `tokenq train` for a Gymnasium environment: a configuration with an `environment` in it.

Periods are counted in updates (optimiser steps), as for language models; what counts environment steps says so, and
counts those of all environments together: their number changes no period.
"""

from dataclasses import dataclass, field
from typing import Literal

from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.config.checks import at_least, checked_seed, not_negative, positive
from tokenq.config.fields import alternatives
from tokenq.envs.atari import Atari
from tokenq.envs.control import Gymnasium
from tokenq.errors import ConfigError
from tokenq.learning.distributional import C51, QRDQN
from tokenq.learning.objectives import DQN, DoubleDQN, Munchausen, Vocabulary
from tokenq.learning.q_lambda import QLambda
from tokenq.learning.sync import Periodic
from tokenq.learning.target import Adapter, TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import Mlp
from tokenq.nets.table import Table
from tokenq.nets.vision import NatureCnn
from tokenq.ops.schedules import Decay
from tokenq.replay.samplers import Prioritised, Uniform


def _double_dqn() -> DoubleDQN:
    return DoubleDQN(Raw(), Vocabulary(), 0.99)


def _periodic() -> TargetConfig:
    return TargetConfig(Periodic(250))


@dataclass(frozen=True)
class TransitionsConfig:
    """Which steps are kept, and over how many of them a transition goes."""

    capacity: int = 100_000
    """Steps kept at most, those of all environments together, >= 1; the oldest leave first."""
    n_step: int = 1
    """Rewards that a target adds up before it bootstraps, >= 1."""
    length: int = 1
    """Steps in a row of one environment that are drawn together, >= 1; more than 1 for objectives that need them."""
    sampler: Uniform | Prioritised = field(default_factory=Uniform)
    """How transitions are drawn."""

    def __post_init__(self) -> None:
        at_least(self, 1, "capacity", "n_step", "length")
        if self.length > 1 and self.n_step > 1:
            raise ConfigError(f"n_step: got {self.n_step} with length {self.length}, expected 1; set one of them to 1")


@dataclass(frozen=True)
class ControlConfig:
    """Train an agent on a Gymnasium environment."""

    environment: Gymnasium | Atari = field(default_factory=Gymnasium)
    """What is to be controlled."""
    num_envs: int = 1
    """Environments that step together, >= 1."""
    output_dir: str | None = None
    """Folder of the run."""
    seed: int = 0
    """Seed of every random stream, >= 0."""
    environment_steps: int = 50_000
    """Environment steps in all, those before the first update included, >= 1."""
    learning_starts: int = 1_000
    """Environment steps with random actions before the first update, >= 1."""
    steps_per_rollout: int = 4
    """Environment steps between two rounds of updates, a multiple of `num_envs`."""
    updates_per_rollout: int = 1
    """Updates of a round, >= 1."""
    network: Mlp | NatureCnn | Table = field(default_factory=Mlp)
    """What answers Q."""
    objective: DQN | DoubleDQN | Munchausen | C51 | QRDQN | QLambda = field(
        default_factory=_double_dqn, metadata=alternatives(DQN(Raw(), Vocabulary(), 0.99))
    )
    """What is learned."""
    target: TargetConfig = field(default_factory=_periodic)
    """The lagging copy that targets are computed from."""
    replay: TransitionsConfig = field(default_factory=TransitionsConfig)
    """The store of steps."""
    exploration: EpsilonGreedy | Boltzmann | Greedy = field(default_factory=lambda: EpsilonGreedy(over=1_000))
    """How actions are chosen, for each environment by itself."""
    per_device_train_batch_size: int = 64
    """Transitions per forward pass and device, >= 1."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update, >= 1."""
    optim: Literal["adamw", "sgd"] = "adamw"
    """How parameters follow gradients: sgd is a step of `learning_rate` times the mean gradient of the batch."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, > 0."""
    lr_scheduler_type: Decay = "constant"
    """How the step size falls from the first update on, to 0 after the last one; the warm-up multiplies it."""
    warmup_steps: int = 0
    """Updates over which the step size rises from 0, >= 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay, >= 0."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this norm, > 0."""
    logging_steps: int = 500
    """Updates between two lines of metrics, >= 1."""
    eval_steps: int | None = None
    """Updates between two evaluations, >= 1; null: only before and after training."""
    eval_samples: int = 20
    """Greedy episodes per evaluation on the way, >= 1."""
    save_steps: int = 5_000
    """Updates between two checkpoints, >= 1."""
    save_total_limit: int = 2
    """Checkpoints kept, >= 2: should the newest be damaged, the one before it is there."""
    report_to: list[str] = field(default_factory=list)
    """Trackers to report to as well, such as tensorboard."""
    resume: bool = False
    """Go on from the newest whole checkpoint in `output_dir`."""

    @property
    def max_steps(self) -> int:
        """Updates in all: rounds that begin within `environment_steps`."""
        return (self.environment_steps - self.learning_starts) // self.steps_per_rollout * self.updates_per_rollout

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        at_least(self, 0, "warmup_steps")
        at_least(self, 1, "num_envs", "environment_steps", "learning_starts", "steps_per_rollout")
        at_least(self, 1, "updates_per_rollout", "per_device_train_batch_size", "gradient_accumulation_steps")
        at_least(self, 1, "logging_steps", "eval_steps", "eval_samples", "save_steps")
        at_least(self, 2, "save_total_limit")
        positive(self, "learning_rate", "max_grad_norm")
        not_negative(self, "weight_decay")
        for name in ("learning_starts", "steps_per_rollout"):
            if getattr(self, name) % self.num_envs:
                steps = f"expected a multiple of num_envs ({self.num_envs}), which all step together"
                raise ConfigError(f"{name}: got {getattr(self, name)}, {steps}")
        least = self.num_envs * self.replay.length
        for name, number in (("replay.capacity", self.replay.capacity), ("learning_starts", self.learning_starts)):
            if number < least:
                raise ConfigError(f"{name}: got {number}, expected at least {least}: replay.length steps of num_envs")
        if self.max_steps < 1:
            least = self.learning_starts + self.steps_per_rollout
            raise ConfigError(
                f"environment_steps: got {self.environment_steps}, expected at least {least}: learning_starts and one "
                "round of steps_per_rollout"
            )
        if isinstance(self.target.scope, Adapter):
            raise ConfigError("target.scope: got adapter, which only language models have; choose another")
        _check_objective(self.objective)


def _check_objective(objective: DQN | DoubleDQN | Munchausen | C51 | QRDQN | QLambda) -> None:
    if isinstance(objective, DQN | DoubleDQN) and not (
        isinstance(objective.values, Raw) and isinstance(objective.over, Vocabulary)
    ):
        raise ConfigError(
            "objective: got calibrated values or plausible tokens, which a language model has; "
            "set objective.values to raw and objective.over to vocabulary"
        )
