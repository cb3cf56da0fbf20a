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
from tokenq.learning.held import Held
from tokenq.learning.losses import Huber, SquaredError
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
    held: Held | None = None
    """How tokens that the reference finds implausible are held down; null: they are not."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_probability("lam", self.lam)

    @property
    def plausible(self) -> int:
        """Number of candidate tokens that an episode's record must hold."""
        return 0 if self.held is None else self.held.k

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        q = self.values.q(online, batch)
        with torch.no_grad():
            goal = self._returns(online, target, batch)
        error = squared_error(q, goal)
        if self.held is not None:
            error = error + 0.5 * (self.values.beta * self.held.excess(online, batch)) ** 2
        return Loss(error, q.detach(), goal)

    def _returns(self, online: ActionValues, target: Target, batch: Batch) -> Float[Tensor, "B N"]:
        following = torch.cat([batch.rated[:, 1:], torch.zeros_like(batch.rated[:, :1])], dim=1)
        discounts = batch.discounts(self.gamma)
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
class Vocabulary:
    """The hard maximum runs over every action: the textbook, and all that classic control needs."""

    stored: ClassVar[int] = 0
    """No candidate tokens are stored with an episode."""

    def best(self, values: Raw | Logits, chooser: ActionValues, judge: ActionValues, batch: Batch) -> Tensor:
        """`judge`'s value of the action that `chooser` likes best, for each of their states."""
        if chooser is judge:
            return judge.maximum[0]
        return judge.among(chooser.maximum[1].unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Plausible:
    """The hard maximum runs over the tokens that the reference finds plausible.

    Nobody would say the others, and a maximum over tokens that were never tried finds whichever value drifted highest.
    """

    k: int = 8
    """Most probable tokens of the reference that are stored per state, >= 1."""
    probability: float = 0.02
    """Of these, only tokens that the reference finds at least so probable count, in [0, 1); the first always does."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: got {self.k}, expected an integer >= 1")
        if not 0 <= self.probability < 1:
            raise ConfigError(f"probability: got {self.probability}, expected a number in [0, 1)")

    @property
    def stored(self) -> int:
        """Number of candidate tokens that an episode's record must hold."""
        return self.k

    def best(self, values: Raw | Logits, chooser: ActionValues, judge: ActionValues, batch: Batch) -> Tensor:
        """`judge`'s value of the candidate that `chooser` likes best, for each of their states."""
        excluded = batch.reference.plausible_probability < self.probability
        excluded[..., 0] = False
        liked = values.among_plausible(chooser, batch).masked_fill(excluded, -torch.inf).argmax(-1, keepdim=True)
        return values.among_plausible(judge, batch).gather(-1, liked).squeeze(-1)


@dataclass(frozen=True)
class DQN:
    """Deep Q-learning: y = r + γ·c·max_a Q̄(s', a) (Mnih et al. 2015, Algorithm 1)."""

    values: Raw | Logits = field(default_factory=Logits)
    """How logits become Q-values: raw is the literal textbook."""
    over: Plausible | Vocabulary = field(default_factory=Plausible)
    """Which actions the maximum runs over; calibrated logits need plausible."""
    gamma: float = 1.0
    """Discount per decision, in [0, 1]."""
    error: SquaredError | Huber = field(default_factory=SquaredError)
    """How far a value is from its target."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_maximum(self.values, self.over)

    @property
    def plausible(self) -> int:
        """Number of candidate tokens that an episode's record must hold."""
        return self.over.stored

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        lagging = target().following
        return _one_step(self, online, batch, self.over.best(self.values, lagging, lagging, batch.following))

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state."""
        return self.over.best(self.values, values, values, batch)


@dataclass(frozen=True)
class DoubleDQN:
    """Double DQN: y = r + γ·c·Q̄(s', argmax_a Q(s', a)) (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4)."""

    values: Raw | Logits = field(default_factory=Logits)
    """How logits become Q-values: raw is the literal textbook."""
    over: Plausible | Vocabulary = field(default_factory=Plausible)
    """Which actions the maximum runs over; calibrated logits need plausible."""
    gamma: float = 1.0
    """Discount per decision, in [0, 1]."""
    error: SquaredError | Huber = field(default_factory=SquaredError)
    """How far a value is from its target."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_maximum(self.values, self.over)

    @property
    def plausible(self) -> int:
        """Number of candidate tokens that an episode's record must hold."""
        return self.over.stored

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        best = self.over.best(self.values, online.following, target().following, batch.following)
        return _one_step(self, online, batch, best)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state."""
        return self.over.best(self.values, values, values, batch)


@dataclass(frozen=True)
class Munchausen:
    """Munchausen DQN: the log-probability of the action taken is part of its reward.

    With π̄ = softmax(Q̄/τ), y = r + α·clip(τ·log π̄(a|s), l, 0) + γ·c·τ·log Σ_a' exp(Q̄(s', a')/τ) (Vieillard et al. 2020,
    arXiv 2007.14430, section 3: its Σ π̄·(Q̄ − τ·log π̄) is the log-sum-exp written here).
    """

    temperature: float = 0.03
    """τ, in units of Q, > 0: how soft the policy and the maximum are."""
    alpha: float = 0.9
    """Share of the log-probability that is paid as reward, in [0, 1]."""
    least: float = -1.0
    """l, below which the log-probability is not followed, <= 0."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    error: SquaredError | Huber = field(default_factory=SquaredError)
    """How far a value is from its target."""

    values: ClassVar[Raw] = Raw()
    """Q is what the network answers."""
    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: log-sum-exp runs over all actions."""

    def __post_init__(self) -> None:
        _check_probability("gamma", self.gamma)
        _check_probability("alpha", self.alpha)
        if not 0 < self.temperature < float("inf") or self.least > 0:
            got = f"got {self.temperature}, {self.least}"
            raise ConfigError(f"temperature, least: {got}, expected a finite number > 0 and a number <= 0")

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        lagging = target()
        before, after = lagging.soft_maximum(self.temperature), lagging.following.soft_maximum(self.temperature)
        with torch.no_grad():
            log_policy = lagging.at(batch.actions) - before[:, :-1]  # times τ
        bonus = self.alpha * log_policy.clamp(min=self.least, max=0.0)
        q = self.values.q(online, batch)
        goal = batch.rewards + bonus + batch.discounts(self.gamma) * after
        return Loss(self.error.between(q, goal), q.detach(), goal)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The soft maximum of each state."""
        return values.soft_maximum(self.temperature)


def _one_step(objective: DQN | DoubleDQN, online: ActionValues, batch: Batch, value: Float[Tensor, "B N"]) -> Loss:
    q = objective.values.q(online, batch)
    goal = batch.rewards + batch.discounts(objective.gamma) * value
    return Loss(objective.error.between(q, goal), q.detach(), goal)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: got {value}, expected a number in [0, 1]")


def _check_maximum(values: Raw | Logits, over: Plausible | Vocabulary) -> None:
    if isinstance(over, Vocabulary) and isinstance(values, Logits):
        raise ConfigError(
            "over: got vocabulary with calibrated logits, whose reference values are stored for plausible tokens only; "
            "set over to plausible, or values to raw"
        )
