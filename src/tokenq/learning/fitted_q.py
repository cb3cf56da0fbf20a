"""Fitted Q evaluation: the value of a given policy, learned from logs (Le, Voloshin & Yue 2019, Algorithm 3).

States and actions are vectors that somebody else computed, once: hidden states of a frozen model, rows of its output
matrix. As Q is linear in the action's vector, its expectation under a policy is Q of the expected vector, exactly:
E_{a~π} Q(s, a) = v(s) + u(s)·E_{a~π} e(a). Letters: N decisions, S = N + 1 states, D width, A width of an action.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tokenq.errors import ConfigError
from tokenq.learning.sync import Adaptive, NoTarget, Periodic, Polyak, RandomPartial
from tokenq.learning.target import Target, TargetConfig
from tokenq.ops.losses import masked_mean, squared_error
from tokenq.ops.returns import lambda_returns


@dataclass(frozen=True, eq=False)
class Logged:
    """One logged episode as a policy's evaluation sees it.

    `states` are vectors of all states, `actions` those of the actions that were taken, `expected` the evaluated
    policy's mean action vector at every state, ē, and `shared` what it does as well as the behaviour,
    Σ_a min(π, μ)(a|s)·(e(a) − ē). `log_ratio` is log π(a|s) − log μ(a|s) of the evaluated policy π and the behaviour
    μ, in nats. `rewards` are 0 where nobody rated. A `terminated` episode is worth nothing after its end. `turns` are
    the decisions that open a turn.
    """

    states: Float[Tensor, "S D"]
    actions: Float[Tensor, "N A"]
    expected: Float[Tensor, "S A"]
    shared: Float[Tensor, "S A"]
    log_ratio: Float[Tensor, "N"]
    rewards: Float[Tensor, "N"]
    terminated: bool
    turns: Sequence[int] = (0,)


@dataclass(frozen=True, eq=False)
class LoggedBatch:
    """Episodes padded with 0 on the right. `continues` is 0 after the last decision of a terminated episode."""

    states: Float[Tensor, "B S D"]
    actions: Float[Tensor, "B N A"]
    expected: Float[Tensor, "B S A"]
    shared: Float[Tensor, "B S A"]
    log_ratio: Float[Tensor, "B N"]
    rewards: Float[Tensor, "B N"]
    continues: Float[Tensor, "B N"]
    decided: Float[Tensor, "B N"]


def padded(episodes: Sequence[Logged]) -> LoggedBatch:
    """The episodes as one batch."""

    def stacked(name: str) -> Tensor:
        return pad_sequence([getattr(episode, name) for episode in episodes], batch_first=True)

    decided = pad_sequence([torch.ones_like(episode.rewards) for episode in episodes], batch_first=True)
    continues = decided.clone()
    for row, episode in enumerate(episodes):
        continues[row, len(episode.rewards) - 1] = float(not episode.terminated)
    return LoggedBatch(
        states=stacked("states"),
        actions=stacked("actions"),
        expected=stacked("expected"),
        shared=stacked("shared"),
        log_ratio=stacked("log_ratio"),
        rewards=stacked("rewards"),
        continues=continues,
        decided=decided,
    )


class ActionHead(nn.Module):
    """Q(s, a) = v(s) + u(s)·e(a)/√A, with v and u of one hidden layer; the same constant everywhere at the start."""

    def __init__(self, width: int, action_width: int, start: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1 + action_width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        with torch.no_grad():
            self.outer.bias[0] = start

    def forward(self, states: Float[Tensor, "*#B D"], actions: Float[Tensor, "*#B A"]) -> Float[Tensor, "*#B"]:
        """Q of one action, or of the mean of several, at every state."""
        answer = self.outer(nn.functional.gelu(self.inner(self.norm(states))))
        q: Tensor = answer[..., 0] + (answer[..., 1:] * actions).sum(-1) / math.sqrt(actions.shape[-1])
        return q

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "ActionHead":
        """A copy that owns everything: a head is too small to share."""
        return copy.deepcopy(self).requires_grad_(False)


@dataclass(frozen=True)
class FittedQ:
    """The value of a policy by regression of Q(s, a) on r + γ·E_{a'~π} Q̄(s', a'), from logged episodes.

    With `lam` > 0 the target follows the log as far as the evaluated policy would have, with the traces of Retrace
    (Munos et al. 2016), c = λ·min(1, π/μ): a reward at the end of a hundred tokens then needs no hundred rounds to be
    known at the start. 0 is the method as published. At the next state and action

        G_n = r_n + γ·[V̄ + c·(G_{n+1} − V̄) − E_{a~μ} c·(Q̄(a) − V̄)].

    Retrace subtracts c·(Q̄ − V̄) of the action that was taken, which has the same mean where μ is who wrote the log. Here
    μ only imitates them, the difference adds up over hundreds of tokens, and games that cost 20 at most were thought to
    cost 28. In expectation it is exact, and for π = μ the target is the return that was logged.
    """

    updates: int = 300
    """Updates of each fit, >= 1."""
    batch_size: int = 32
    """Episodes per update, >= 1."""
    learning_rate: float = 1e-3
    """Step size of AdamW at the start, > 0; it falls linearly to 0."""
    weight_decay: float = 0.1
    """Decoupled weight decay, >= 0."""
    lam: float = 1.0
    """λ in [0, 1]: how far a target follows the log."""
    sync: NoTarget | Periodic | Polyak | RandomPartial | Adaptive = field(default_factory=lambda: Periodic(20))
    """When the lagging copy follows that targets are computed from."""
    fits: int = 3
    """Fits, each on a resample of the episodes, >= 1: how far they differ is part of the interval."""
    episodes: int = 2000
    """Episodes to fit on, at most, >= 1."""
    largest_weight: float = 100.0
    """The cumulative importance ratios of `dr` are cut here, >= 1; the other weights are self-normalised, and whole."""
    gamma: float | None = None
    """Discount of the return that is estimated, in [0, 1]; null: that of the run's objective."""
    cluster: str | None = None
    """Column whose equal values mark rows that are one conversation, drawn together; null: each row is its own."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "fits", "episodes", "largest_weight"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected a number >= 1")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            got = f"{self.learning_rate}, {self.weight_decay}"
            raise ConfigError(f"learning_rate, weight_decay: got {got}, expected numbers > 0 and >= 0")
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"lam: got {self.lam}, expected a number in [0, 1]")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma: got {self.gamma}, expected a number in [0, 1], or null")

    def fit(self, episodes: Sequence[Logged], gamma: float, seed: int) -> list[ActionHead]:
        """One head for each resample of the episodes (bootstrapping: Hao et al. 2021, arXiv 2102.03607).

        Draws from torch's global generator, in a fork of it that starts at `seed`.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            rng = np.random.default_rng(seed)
            n = len(episodes)
            return [self._fit([episodes[i] for i in rng.integers(n, size=n)], gamma, rng) for _ in range(self.fits)]

    def _fit(self, episodes: Sequence[Logged], gamma: float, rng: np.random.Generator) -> ActionHead:
        mean = float(np.mean([float(episode.rewards.sum()) for episode in episodes]))
        head = ActionHead(episodes[0].states.shape[-1], episodes[0].actions.shape[-1], mean)
        target = Target(head, TargetConfig(sync=self.sync), seed=0)
        optimiser = torch.optim.AdamW(head.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        # In units of the returns' deviation, so that one step size suits them all.
        scale = max(float(np.std([float(episode.rewards.sum()) for episode in episodes])), 1e-3)
        for update in range(self.updates):
            chosen = rng.integers(len(episodes), size=min(self.batch_size, len(episodes)))
            batch = padded([episodes[i] for i in chosen])
            goal = self.targets(target.network, batch, gamma)
            error = squared_error(head(batch.states[:, :-1], batch.actions) / scale, goal / scale)
            optimiser.param_groups[0]["lr"] = self.learning_rate * (1 - update / self.updates)
            optimiser.zero_grad()
            masked_mean(error, batch.decided.bool()).backward()
            optimiser.step()
            target.follow(update + 1)
        return head.requires_grad_(False)

    @torch.no_grad()
    def targets(
        self, lagging: Callable[[Tensor, Tensor], Tensor], batch: LoggedBatch, gamma: float
    ) -> Float[Tensor, "B N"]:
        """What Q of every decision is regressed on; `lagging` answers Q for vectors of states and of actions."""
        value, as_both = lagging(batch.states, torch.stack((batch.expected, batch.expected + batch.shared)))
        following = torch.zeros_like(batch.rewards)
        following[:, :-1] = self.lam * batch.log_ratio[:, 1:].exp().clamp(max=1) * batch.decided[:, 1:]
        # Subtracted on either way, from V̄ where the target leaves the log and from G where it goes on.
        excess = torch.zeros_like(batch.rewards)
        excess[:, :-1] = self.lam * (as_both - value)[:, 1:-1] * batch.decided[:, 1:]
        return lambda_returns(batch.rewards, gamma * batch.continues, value[:, 1:] - excess, excess, following)
