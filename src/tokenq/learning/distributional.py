"""Objectives that learn how returns are distributed, and which policy their targets follow.

Every target is one mixture: of y = r + bonus + γ·c·(z + shift) over the values z that the target network gives to m
actions at the next state. What is followed says which actions, how much each counts, and what is added.
Letters: B sequences of N decisions, m actions, K numbers that describe a distribution, J = m·K values of a target.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.learning.objectives import Loss, Target
from tokenq.learning.values import ActionValues, Raw
from tokenq.ops.distributions import cross_entropy, project, quantile_huber
from tokenq.types import Batch


@runtime_checkable
class Distributions(ActionValues, Protocol):
    """Action values that are means of distributions, each described by K numbers."""

    def distribution(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N K"]:
        """Those of each taken action, differentiable."""

    def distributions(self, actions: Int[Tensor, "B N m"]) -> Float[Tensor, "B N m K"]:
        """Those of m actions at the state after each step."""

    def every(self) -> Int[Tensor, "B N A"]:
        """All actions at the state after each step."""


@dataclass(frozen=True, eq=False)
class Followed:
    """What a target is made of: m actions at the next state and their weights, which sum to 1.

    `shift` is added to the value of each of them, `bonus` to the reward.
    """

    actions: Int[Tensor, "B N m"]
    weights: Float[Tensor, "B N m"]
    shift: Float[Tensor, "B N m"]
    bonus: Float[Tensor, "B N"]


@dataclass(frozen=True)
class Greedy:
    """The action that the target network finds best."""

    def after(self, online: Distributions, lagging: Distributions, batch: Batch) -> Followed:
        """One action at each next state."""
        return _only(lagging.following.maximum[1])

    def bootstrap(self, values: ActionValues) -> Float[Tensor, "B S"]:
        """The largest value of each state."""
        return values.maximum[0]


@dataclass(frozen=True)
class Double:
    """The action that the online network finds best (van Hasselt et al. 2016, arXiv 1509.06461)."""

    def after(self, online: Distributions, lagging: Distributions, batch: Batch) -> Followed:
        """One action at each next state."""
        return _only(online.following.maximum[1])

    def bootstrap(self, values: ActionValues) -> Float[Tensor, "B S"]:
        """The largest value of each state."""
        return values.maximum[0]


@dataclass(frozen=True)
class PaidPolicy:
    """The target network's softmax policy π̄ = softmax(Q̄/τ), paid for its entropy and for what it found likely.

    A value of the next state has the weight π̄(a'|s') and the shift −τ·log π̄(a'|s'); the reward has the bonus
    α·clip(τ·log π̄(a|s), l, 0) (Vieillard et al. 2020, arXiv 2007.14430, section 3, there for expected values).
    """

    temperature: float = 0.03
    """τ, in units of Q, > 0: how soft the policy is."""
    alpha: float = 0.9
    """Share of the log-probability that is paid as reward, in [0, 1]."""
    least: float = -1.0
    """l, below which the log-probability is not followed, <= 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha: got {self.alpha}, expected a number in [0, 1]")
        if not 0 < self.temperature < float("inf") or not self.least <= 0:
            got = f"got {self.temperature}, {self.least}"
            raise ConfigError(f"temperature, least: {got}, expected a finite number > 0 and a number <= 0")

    def after(self, online: Distributions, lagging: Distributions, batch: Batch) -> Followed:
        """Every action at each next state."""
        actions, following = lagging.every(), lagging.following
        soft = following.soft_maximum(self.temperature).unsqueeze(-1)
        next_log = following.among(actions) - soft  # times τ, as all of these
        log = lagging.at(batch.actions) - lagging.soft_maximum(self.temperature)[:, :-1]
        bonus = self.alpha * log.clamp(min=self.least, max=0.0)
        return Followed(actions, (next_log / self.temperature).exp(), -next_log, bonus)

    def bootstrap(self, values: ActionValues) -> Float[Tensor, "B S"]:
        """The soft maximum of each state."""
        return values.soft_maximum(self.temperature)


Follows = Greedy | Double | PaidPolicy


@dataclass(frozen=True)
class C51:
    """Probabilities of fixed returns: the target is projected onto them (Bellemare et al. 2017, arXiv 1707.06887)."""

    low: float
    """Lowest return that the probabilities reach, in units of reward; what is below counts as this."""
    high: float
    """Highest return that they reach, > low; with rewards up to r and no end, r/(1 − gamma)."""
    atoms: int = 51
    """Returns with a probability of their own, evenly spaced from low to high, >= 2."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    follows: Follows = field(default_factory=Greedy)
    """Which policy a target follows at the next state."""

    values: ClassVar[Raw] = Raw()
    """Q is the mean of what the network answers."""
    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: a policy is one over all actions."""

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if self.atoms < 2:
            raise ConfigError(f"atoms: got {self.atoms}, expected an integer >= 2")
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ConfigError(f"low, high: got {self.low}, {self.high}, expected finite numbers with low < high")

    @property
    def outputs(self) -> int:
        """Logits per action."""
        return self.atoms

    def support(self, like: Tensor) -> Float[Tensor, "K"]:
        """The returns that have a probability."""
        return torch.linspace(self.low, self.high, self.atoms, dtype=like.dtype, device=like.device)

    def mean(self, answers: Float[Tensor, "*any K"]) -> Float[Tensor, "*any"]:
        """The mean return behind logits."""
        return answers.softmax(-1) @ self.support(answers)

    def weighted(self, answers: Float[Tensor, "*any K"]) -> tuple[Float[Tensor, "*any K"], Float[Tensor, "*any K"]]:
        """The returns behind logits, and their probabilities."""
        return self.support(answers).expand_as(answers), answers.softmax(-1)

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The cross-entropy of every decision, in nats."""
        answers = _spread(online).distribution(batch.actions)
        with torch.no_grad():
            values, weights = _mixture(self, online, target, batch)
            goal = project(values, weights, self.low, self.high, self.atoms)
        return Loss(cross_entropy(answers, goal), self.mean(answers.detach()), goal @ self.support(goal))

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The mean value of each state."""
        return self.follows.bootstrap(values)


@dataclass(frozen=True)
class QRDQN:
    """Quantiles of the return by quantile regression (Dabney et al. 2018, arXiv 1710.10044)."""

    quantiles: int = 32
    """Quantiles at the probabilities (i + ½)/K, >= 1; the source has 200."""
    delta: float = 1.0
    """Error from which on the gradient no longer grows, in units of reward, > 0: the source's κ."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    follows: Follows = field(default_factory=Greedy)
    """Which policy a target follows at the next state."""

    tag: ClassVar[str] = "qr_dqn"
    values: ClassVar[Raw] = Raw()
    """Q is the mean of what the network answers."""
    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: a policy is one over all actions."""

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if self.quantiles < 1:
            raise ConfigError(f"quantiles: got {self.quantiles}, expected an integer >= 1")
        if not 0 < self.delta < float("inf"):
            raise ConfigError(f"delta: got {self.delta}, expected a finite number > 0")

    @property
    def outputs(self) -> int:
        """Quantiles per action."""
        return self.quantiles

    def mean(self, answers: Float[Tensor, "*any K"]) -> Float[Tensor, "*any"]:
        """The mean of equally probable values."""
        return answers.mean(-1)

    def weighted(self, answers: Float[Tensor, "*any K"]) -> tuple[Float[Tensor, "*any K"], Float[Tensor, "*any K"]]:
        """The values, and their equal probabilities."""
        return answers, torch.full_like(answers, 1 / self.quantiles)

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The quantile loss of every decision."""
        answers = _spread(online).distribution(batch.actions)
        with torch.no_grad():
            values, weights = _mixture(self, online, target, batch)
        per_decision = quantile_huber(answers, values, weights, self.delta)
        return Loss(per_decision, self.mean(answers.detach()), (values * weights).sum(-1))

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The mean value of each state."""
        return self.follows.bootstrap(values)


def _mixture(
    objective: C51 | QRDQN, online: ActionValues, target: Target, batch: Batch
) -> tuple[Float[Tensor, "B N J"], Float[Tensor, "B N J"]]:
    """The values that a target distribution consists of, and their weights."""
    lagging = _spread(target())
    followed = objective.follows.after(_spread(online), lagging, batch)
    values, probabilities = objective.weighted(lagging.distributions(followed.actions))
    discount = batch.discounts(objective.gamma)[..., None, None]
    reward = (batch.rewards + followed.bonus)[..., None, None]
    goals = reward + discount * (values + followed.shift.unsqueeze(-1))
    return goals.flatten(-2), (followed.weights.unsqueeze(-1) * probabilities).flatten(-2)


def _only(actions: Int[Tensor, "B N"]) -> Followed:
    """One action, with nothing added."""
    none = torch.zeros(actions.shape, device=actions.device)
    return Followed(actions.unsqueeze(-1), torch.ones_like(none).unsqueeze(-1), none.unsqueeze(-1), none)


def _spread(values: ActionValues) -> Distributions:
    # Not isinstance, which would ask every question to see whether there is an answer.
    if not hasattr(values, "distributions"):
        raise ConfigError(
            "objective: got a network that answers one number per action, expected distributions; use dqn"
        )
    return cast(Distributions, values)


def _check_gamma(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise ConfigError(f"gamma: got {gamma}, expected a number in [0, 1]")
