"""Objectives: from action values and a batch to one loss per decision.

An objective is a frozen dataclass whose fields are its configuration. It never sees a network: `online` are the action
values of the network that is trained, `target()` those of the lagging one, computed only if they are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.learning.values import ActionValues, Head, Logits, Raw, log_ratio
from tokenq.ops.losses import squared_error
from tokenq.ops.returns import lambda_returns
from tokenq.types import Batch

Target = Callable[[], ActionValues]


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective returns: unreduced losses, and the detached numbers behind them."""

    per_decision: Float[Tensor, "B N"]
    q: Float[Tensor, "B N"]
    target: Float[Tensor, "B N"]


@dataclass(frozen=True)
class Soft:
    """Calibrated soft Q-learning with λ-targets (path consistency: Nachum et al. 2017, arXiv 1702.08892).

    G_n = r_n + γ·c_n·[(1 − λ)·V̄(s_{n+1}) + λ·(G_{n+1} − β·ρ_{n+1})]; the loss is ½·(Q(s_n, a_n) − G_n)².
    V̄ comes from the target network, ρ from the online network: a lagging ρ with λ near 1 overshoots.
    """

    values: Logits | Head = field(default_factory=Logits)
    """How logits become Q-values."""
    gamma: float = 1.0
    """Discount per decision, in [0, 1]."""
    lam: float = 0.0
    """λ in [0, 1]: 0 bootstraps at every decision, 1 follows the data to the end of the episode."""

    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: log-sum-exp runs over the whole vocabulary."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_probability("lam", self.lam)

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        q = self.values.q(online, batch)
        with torch.no_grad():
            goal = self._returns(online, target, batch)
        return Loss(squared_error(q, goal), q.detach(), goal)

    def _returns(self, online: ActionValues, target: Target, batch: Batch) -> Float[Tensor, "B N"]:
        following = torch.cat([batch.rated[:, 1:], torch.zeros_like(batch.rated[:, :1])], dim=1)
        discounts = self.gamma * batch.continues
        lam = self.lam * following
        bootstraps = bool((((1 - lam) * discounts)[batch.decided] != 0).any())
        value = self.values.state_value(target(), batch)[:, 1:] if bootstraps else torch.zeros_like(batch.rewards)
        correction = torch.zeros_like(batch.rewards)
        if self.lam > 0:
            correction[:, :-1] = self.values.beta * log_ratio(online, batch)[:, 1:]
        return lambda_returns(batch.rewards, discounts, value, correction, lam)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The state values that this objective bootstraps from."""
        return self.values.state_value(values, batch)


@dataclass(frozen=True)
class DQN:
    """Deep Q-learning: y = r + γ·c·max_a Q̄(s', a) (Mnih et al. 2015, Algorithm 1)."""

    values: Raw | Logits = field(default_factory=Logits)
    """How logits become Q-values: raw is the literal textbook."""
    gamma: float = 1.0
    """Discount per decision, in [0, 1]."""
    plausible: int = 8
    """Maximise over the reference's k most probable tokens of each state; 0: over the whole vocabulary (raw only)."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_maximum(self.values, self.plausible)

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        return _one_step(self, online, batch, self.bootstrap(target(), batch))

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state."""
        return _largest(self.values, self.plausible, values, batch)


@dataclass(frozen=True)
class DoubleDQN:
    """Double DQN: y = r + γ·c·Q̄(s', argmax_a Q(s', a)) (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4)."""

    values: Raw | Logits = field(default_factory=Logits)
    """How logits become Q-values: raw is the literal textbook."""
    gamma: float = 1.0
    """Discount per decision, in [0, 1]."""
    plausible: int = 8
    """Maximise over the reference's k most probable tokens of each state; 0: over the whole vocabulary (raw only)."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_maximum(self.values, self.plausible)

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        lagging = target()
        if self.plausible:
            chosen = self.values.among_plausible(online, batch).argmax(-1, keepdim=True)
            value = self.values.among_plausible(lagging, batch).gather(-1, chosen).squeeze(-1)
        else:
            value = lagging.among(online.maximum[1].unsqueeze(-1)).squeeze(-1)
        return _one_step(self, online, batch, value)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state."""
        return _largest(self.values, self.plausible, values, batch)


def _one_step(objective: DQN | DoubleDQN, online: ActionValues, batch: Batch, value: Float[Tensor, "B S"]) -> Loss:
    q = objective.values.q(online, batch)
    goal = batch.rewards + objective.gamma * batch.continues * value[:, 1:]
    return Loss(squared_error(q, goal), q.detach(), goal)


def _largest(values: Raw | Logits, plausible: int, answers: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
    return values.among_plausible(answers, batch).amax(-1) if plausible else answers.maximum[0]


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: got {value}, expected a number in [0, 1]")


def _check_maximum(values: Raw | Logits, plausible: int) -> None:
    if plausible < 0:
        raise ConfigError(f"plausible: got {plausible}, expected an integer >= 0")
    if plausible == 0 and isinstance(values, Logits):
        raise ConfigError(
            "plausible: got 0 with calibrated logits, whose reference values are stored for plausible tokens only; "
            "set plausible to 1 or more, or values to raw"
        )
