"""How logits become Q-values: raw, calibrated against the reference, or a value head plus an advantage.

Objectives ask one of these; these ask an `ActionValues`. Letters: B episodes, N decisions, S = N + 1 states,
k candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.types import Batch


@runtime_checkable
class ActionValues(Protocol):
    """Values of all actions at the decision states of a batch, behind four questions.

    Only `at` and `log_probability` have a gradient. `state_value` is there if the network has a value head.
    `following` asks the same at the states after the decisions alone, N instead of S; for targets of one step.
    """

    @property
    def following(self) -> "ActionValues":
        """The answers at s_1 to s_N."""

    @property
    def state_value(self) -> Float[Tensor, "B S"] | None:
        """The value head's answer, differentiable with respect to the head alone."""

    @property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """Log-sum-exp over all actions."""

    @property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest value and its action."""

    @property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the softmax policy, in nats."""

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken action."""

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken actions' log-probability; its gradient may be estimated from `samples` actions."""

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log Σ exp(Q/τ) over all actions: the largest value as τ goes to 0."""

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The values of k candidates per state."""


@runtime_checkable
class TokenValues(ActionValues, Protocol):
    """Those of a model that writes by its own logits: it also knows what is left of them without some tokens."""

    @property
    def choices(self) -> int:
        """How many tokens, or labels, there are."""

    def rest(self, known: Int[Tensor, "B N k"], samples: int) -> Float[Tensor, "B N"]:
        """Log-sum-exp over all tokens but k known ones, at s_0 to s_{N-1}.

        Differentiable; the gradient may be estimated from `samples` tokens.
        """


def log_ratio(values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
    """ρ = log π(a|s) − log π_ref(a|s) of the taken actions, in nats, without gradient."""
    policy = values.at(batch.actions).detach() - values.logsumexp[:, :-1]
    return policy - (batch.reference.logit - batch.reference.logsumexp[:, :-1])


@dataclass(frozen=True)
class Raw:
    """Q(s, a) = ℓ(a|s): the logits themselves, as the textbook has it for a freshly initialised network."""

    def q(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Q of the taken actions, differentiable."""
        return values.at(batch.actions)

    def among_plausible(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S k"]:
        """Q of the reference's k most probable tokens at each state."""
        return values.among(batch.reference.plausible)


@dataclass(frozen=True)
class Logits:
    """Q(s, a) = β·(ℓ_θ(a|s) − ℓ_ref(a|s)): zero at the start, and softmax ℓ_θ is its KL-regularised policy.

    The change of variable of ShiQ (2025) with the state value of the reference subtracted, as in ReVal (2026).
    """

    beta: float = 0.1
    """Reward worth one nat of distance from the reference, in units of the scaled reward, > 0."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"beta: got {self.beta}, expected a number > 0")

    def q(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Q of the taken actions, differentiable."""
        return self.beta * (values.at(batch.actions) - batch.reference.logit)

    def state_value(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The soft value V(s) = β·(lse ℓ_θ − lse ℓ_ref), without gradient."""
        return self.beta * (values.logsumexp - batch.reference.logsumexp)

    def among_plausible(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S k"]:
        """Q of the reference's k most probable tokens at each state."""
        return self.beta * (values.among(batch.reference.plausible) - batch.reference.plausible_logit)


@dataclass(frozen=True)
class Head:
    """Q(s, a) = V_φ(s) + β·(log π_θ(a|s) − log π_ref(a|s)), with V_φ a small head that starts at zero.

    The gradient of log π is estimated without bias from a few sampled tokens.
    """

    beta: float = 0.05
    """Reward worth one nat of distance from the reference, in units of the scaled reward, > 0."""
    samples: int = 4
    """Tokens drawn per decision to estimate the gradient's expectation; 0 differentiates the whole softmax."""
    learning_rate: float = 1e-3
    """Learning rate of the value head."""
    max_grad_norm: float = 1.0
    """Largest norm of the value head's gradient; the language model has its own clip."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"beta: got {self.beta}, expected a number > 0")
        _check_training(self)

    def q(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Q of the taken actions, differentiable with respect to the policy and the head."""
        reference = batch.reference.logit - batch.reference.logsumexp[:, :-1]
        advantage = self.beta * (values.log_probability(batch.actions, self.samples) - reference)
        return self._head(values)[:, :-1] + advantage

    def state_value(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The head's state values, without gradient."""
        return self._head(values).detach()

    def _head(self, values: ActionValues) -> Float[Tensor, "B S"]:
        if values.state_value is None:
            raise ConfigError("values: got head for a network without a value head; load the model with one")
        return values.state_value


@runtime_checkable
class HeadedValues(Protocol):
    """Answers of a model with Q heads: those of the model itself, and those of each head about Q."""

    @property
    def policy(self) -> TokenValues:
        """The model's own answers: the policy that is cloned from the data."""

    @property
    def heads(self) -> Sequence[ActionValues]:
        """One for each Q head."""

    @property
    def state_value(self) -> Float[Tensor, "B S"] | None:
        """V, differentiable; None without a head for it."""

    @property
    def ahead(self) -> Sequence[ActionValues]:
        """One for each head that foresees: the k-th says what is decided k decisions later."""


def headed(values: ActionValues) -> HeadedValues:
    """The answers themselves; raises `ConfigError` if they come from a network without such heads."""
    if not isinstance(values, HeadedValues):
        raise ConfigError("values: got heads or afterstates for a network without such heads; load the model with them")
    return values


@dataclass(frozen=True)
class Heads:
    """Q(s, a) = the least answer of one or two heads on the last hidden state; the model itself stays the policy.

    The gradient of a log-probability, be it of the model or of a softmax over Q, is estimated without bias from a few
    sampled tokens.
    """

    count: int = 2
    """Q heads, 1 or 2; of two the lesser answer counts, which keeps chance from being taken for value."""
    samples: int = 4
    """Tokens drawn per decision to estimate the gradient's expectation; 0 differentiates the whole softmax."""
    learning_rate: float = 1e-3
    """Learning rate of the heads."""
    max_grad_norm: float = 1.0
    """Largest norm of the heads' gradient; the language model has its own clip."""

    def __post_init__(self) -> None:
        if self.count not in (1, 2):
            raise ConfigError(f"count: got {self.count}, expected 1 or 2")
        _check_training(self)

    def q(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Q of the taken actions, differentiable."""
        return torch.stack([head.at(batch.actions) for head in headed(values).heads]).amin(0)

    def state_value(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """V of every state, differentiable."""
        value = headed(values).state_value
        if value is None:
            raise ConfigError("values: got a network without a head for V, expected one; load the model with it")
        return value


@dataclass(frozen=True)
class Afterstates:
    """Q(s, a) = V(s·a): the answer of one head on the hidden state at the token, which has read it.

    What a token leads to is then found by looking forwards from it, where `Heads` must foresee it for all tokens at
    once (afterstates: Sutton & Barto 2018, section 6.8). Guidance tries the `top_k` tokens, each with a pass of its
    own. Further heads may learn to foresee what is written later; no policy uses them, but the model is better for it
    (Gloeckle et al. 2024, arXiv 2404.19737).
    """

    ahead: int = 0
    """Tokens that are foreseen, >= 0: as many heads, the k-th of which predicts the token k decisions later."""
    foresight: float = 0.1
    """w >= 0, the weight of each head's −log p; without heads that foresee it says nothing."""
    samples: int = 4
    """Tokens drawn per decision to estimate the gradient's expectation; 0 differentiates the whole softmax."""
    learning_rate: float = 1e-3
    """Learning rate of the heads."""
    max_grad_norm: float = 1.0
    """Largest norm of the heads' gradient; the language model has its own clip."""

    def __post_init__(self) -> None:
        if self.ahead < 0:
            raise ConfigError(f"ahead: got {self.ahead}, expected an integer >= 0")
        if not 0 <= self.foresight < float("inf"):
            raise ConfigError(f"foresight: got {self.foresight}, expected a finite number >= 0")
        _check_training(self)

    def q(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Q of the taken actions, differentiable."""
        return headed(values).heads[0].at(batch.actions)

    def foreseen(self, values: ActionValues, batch: Batch) -> list[Float[Tensor, "B N"]]:
        """w·(−log p) of the action k decisions later, for each k; 0 where the episode ends before."""
        losses = []
        for k, head in enumerate(headed(values).ahead, start=1):
            later, there = (_later(part, k) for part in (batch.actions, batch.decided))
            log = head.log_probability(later, self.samples)
            losses.append(-self.foresight * log.masked_fill(~there, 0))
        return losses


def _check_training(head: Head | Heads | Afterstates) -> None:
    if head.samples < 0:
        raise ConfigError(f"samples: got {head.samples}, expected an integer >= 0")
    if head.learning_rate <= 0 or head.max_grad_norm <= 0:
        raise ConfigError(
            f"learning_rate, max_grad_norm: got {head.learning_rate}, {head.max_grad_norm}, expected numbers > 0"
        )


def _later(row: Shaped[Tensor, "B N"], k: int) -> Shaped[Tensor, "B N"]:
    """What stands k columns to the right; 0 beyond the end."""
    return torch.nn.functional.pad(row[:, k:], (0, min(k, row.shape[1])))


@dataclass(frozen=True)
class Guidance:
    """Text is written by π(a|s) ∝ π_β(a|s)·exp(β·(min Q(s, a) − V(s))), where π_β is the model."""

    beta: float = 16.0
    """β in nats per unit of scaled reward, >= 0: how much Q has to say; 0 leaves the model alone."""
    top_k: int = 0
    """Only the k tokens that the model itself finds most probable may be written; 0: all."""
    min_p: float = 0.0
    """Only tokens that the model itself finds at least so many times as probable as its best, in [0, 1]; 0: all."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise ConfigError(f"beta: got {self.beta}, expected a finite number >= 0")
        if self.top_k < 0:
            raise ConfigError(f"top_k: got {self.top_k}, expected an integer >= 0")
        if not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p: got {self.min_p}, expected a number in [0, 1]")
