"""Objectives for logged text: Q from heads of their own, held down where the data say nothing.

The model itself is cloned from the data and stays the policy that Q guides when text is written (`values.Guidance`).
All three add to the error of Q, summed over the Q heads, α·(−log softmax Q(s, ·)[a]) for each head, the conservative
term of Kumar et al. 2020 (CQL, arXiv 2006.04779, eq. 4, whose log-sum-exp minus the taken Q is this cross-entropy),
and w·(−log π_β(a|s)), which is cloning. Cloning leaves out the share `noise` that was drawn blindly
(`ops.losses.blurred`).
"""

from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.learning.objectives import Loss, Plausible, Target, Vocabulary
from tokenq.learning.values import ActionValues, Afterstates, Guidance, HeadedValues, Heads, Raw, headed
from tokenq.ops.losses import blurred, expectile, squared_error
from tokenq.ops.returns import lambda_returns
from tokenq.types import Batch


def one_head() -> Heads:
    """Where nothing is maximised, or what is maximised is held down, one head will do."""
    return Heads(count=1)


@dataclass(frozen=True)
class ILQL:
    """Implicit language Q-learning (Snell et al. 2023, arXiv 2206.11871).

    y = r + γ·c·V(s'); V is the τ-expectile of min_i Q̄_i(s, a) over the actions in the data, so that a maximum over
    them is approached and no other action is ever asked for.
    """

    values: Heads = field(default_factory=Heads)
    """The heads that Q and V come from."""
    guidance: Guidance = field(default_factory=Guidance)
    """How Q guides the model when text is written."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    tau: float = 0.7
    """τ in (0, 1): V is the mean over the actions in the data at 0.5 and nears their maximum at 1."""
    conservative: float = 0.02
    """α >= 0, the weight of the conservative term."""
    cloning: float = 1.0
    """w >= 0, the weight of cloning the data."""
    noise: float = 0.0
    """Share of the logged actions that were drawn blindly from all tokens or labels, in [0, 1): the rest is cloned."""

    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: nothing is maximised."""
    has_value: ClassVar[bool] = True
    """There is a head for V."""

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.tau < 1:
            raise ConfigError(f"tau: got {self.tau}, expected a number in (0, 1)")

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        value = self.values.state_value(online, batch)
        goal = batch.rewards + batch.discounts(self.gamma) * value[:, 1:].detach()
        towards = expectile(value[:, :-1], self.values.q(target(), batch).detach(), self.tau)
        return _fit(self, online, batch, goal, towards)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """V of each state."""
        return self.values.state_value(values, batch).detach()


@dataclass(frozen=True)
class CQL:
    """Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779, eq. 4) on the target of Double DQN.

    y = r + γ·c·min_i Q̄_i(s', argmax_a Q_i(s', a)) (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4).
    """

    values: Heads = field(default_factory=one_head)
    """The heads that Q comes from."""
    guidance: Guidance = field(default_factory=Guidance)
    """How Q guides the model when text is written."""
    over: Vocabulary | Plausible = field(default_factory=Vocabulary)
    """Which actions the maximum runs over."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    conservative: float = 0.02
    """α >= 0, the weight of the conservative term."""
    cloning: float = 1.0
    """w >= 0, the weight of cloning the data."""
    noise: float = 0.0
    """Share of the logged actions that were drawn blindly from all tokens or labels, in [0, 1): the rest is cloned."""

    has_value: ClassVar[bool] = False
    """The value of a state is the maximum over Q."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def plausible(self) -> int:
        """Number of candidate tokens that an episode's record must hold."""
        return self.over.stored

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        chooser, judge = headed(online), headed(target())
        pairs = zip(chooser.heads, judge.heads, strict=True)
        best = [self._best(mine.following, lagging.following, batch.following) for mine, lagging in pairs]
        goal = batch.rewards + batch.discounts(self.gamma) * reduce(torch.minimum, best)
        return _fit(self, online, batch, goal)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state, by the head that finds the least."""
        best = (self._best(head, head, batch) for head in headed(values).heads)
        return reduce(torch.minimum, best)

    def _best(self, chooser: ActionValues, judge: ActionValues, batch: Batch) -> Tensor:
        return self.over.best(Raw(), chooser, judge, batch)


@dataclass(frozen=True)
class MC:
    """Monte-Carlo regression: Q(s_n, a_n) is fitted to the discounted return that followed.

    The baseline of Abdulhai et al. 2023 (LMRL-Gym, arXiv 2311.18232): the value of the policy that wrote
    the data, improved once, by guidance. A decision before one that nobody rated, whose return is not known, bootstraps
    there: y_n = r_n + γ·c_n·min_i Q̄_i(s_{n+1}, a_{n+1}).
    """

    values: Heads | Afterstates = field(default_factory=one_head)
    """What Q comes from: heads that answer for all tokens at once, or one that reads a token first."""
    guidance: Guidance = field(default_factory=Guidance)
    """How Q guides the model when text is written."""
    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    conservative: float = 0.02
    """α >= 0, the weight of the conservative term; with afterstates 0."""
    cloning: float = 1.0
    """w >= 0, the weight of cloning the data."""
    noise: float = 0.0
    """Share of the logged actions that were drawn blindly from all tokens or labels, in [0, 1): the rest is cloned."""

    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: nothing is maximised."""
    has_value: ClassVar[bool] = False
    """No target needs V."""

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.values, Afterstates):
            if self.conservative > 0:
                got = f"conservative: got {self.conservative} with afterstates"
                raise ConfigError(f"{got}, which say nothing of tokens that were not taken, expected 0")
            if self.guidance.top_k == 0:
                raise ConfigError(
                    "guidance.top_k: got 0, all tokens, with afterstates, each of which costs a pass of the model; "
                    "expected how many are tried, >= 1"
                )

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision."""
        following = torch.cat([batch.rated[:, 1:], torch.zeros_like(batch.rated[:, :1])], dim=1)
        gaps = bool((batch.decided[:, 1:] & ~batch.rated[:, 1:]).any())
        value = self.bootstrap(target(), batch)[:, 1:] if gaps else torch.zeros_like(batch.rewards)
        discounts = batch.discounts(self.gamma)
        goal = lambda_returns(batch.rewards, discounts, value, torch.zeros_like(value), following.float())
        further = self.values.foreseen(online, batch) if isinstance(self.values, Afterstates) else []
        return _fit(self, online, batch, goal, *further)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """Q of each taken action; after the last one, 0."""
        q = self.values.q(values, batch).detach().masked_fill(~batch.decided, 0)
        return torch.nn.functional.pad(q, (0, 1))


Guided = ILQL | CQL | MC
"""An objective whose Q guides the model when text is written."""


def _fit(
    objective: Guided,
    online: ActionValues,
    batch: Batch,
    goal: Float[Tensor, "B N"],
    *further: Float[Tensor, "B N"],
) -> Loss:
    """Each head towards the goal, held down and with the policy cloned, and further losses of the objective's own."""
    values: HeadedValues = headed(online)
    samples = objective.values.samples
    taken = [head.at(batch.actions) for head in values.heads]
    losses = [*further, *(squared_error(q, goal) for q in taken)]
    if objective.conservative > 0:
        losses += [-objective.conservative * head.log_probability(batch.actions, samples) for head in values.heads]
    if objective.cloning > 0:
        log = values.policy.log_probability(batch.actions, samples)
        losses.append(-objective.cloning * blurred(log, objective.noise, values.policy.choices))
    return Loss(torch.stack(losses).sum(0), reduce(torch.minimum, taken).detach(), goal)


def _check(objective: Guided) -> None:
    if not 0 <= objective.gamma <= 1:
        raise ConfigError(f"gamma: got {objective.gamma}, expected a number in [0, 1]")
    for name in ("conservative", "cloning"):
        weight = getattr(objective, name)
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"{name}: got {weight}, expected a finite number >= 0")
    if not 0 <= objective.noise < 1:
        raise ConfigError(f"noise: got {objective.noise}, expected a number in [0, 1)")
    if objective.noise > 0 and objective.cloning == 0:
        raise ConfigError(f"noise: got {objective.noise} with cloning 0, which clones nothing; expected 0")
