"""What a language model would earn, from episodes that somebody else logged: nothing is generated.

The behaviour is never known; a model that was trained to imitate it, the reference, stands in for it. Its hidden states
are the states of fitted Q evaluation and the rows of its output matrix the actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.evaluation.intervals import Score, bootstrap, resampled_score
from tokenq.learning.fitted_q import ActionHead, FittedQ, Logged, LoggedBatch, padded
from tokenq.nets.action_values import Factored
from tokenq.nets.encoder import QNetwork
from tokenq.nets.q_heads import Guided
from tokenq.nets.reference import evaluate
from tokenq.ops import off_policy as ops
from tokenq.types import Episode

BATCH = 32
FEW = 30
"""Below this effective sample size an importance-weighted mean says nothing: a few episodes decide it."""


@torch.no_grad()
def logged_episodes(reference: QNetwork, policy: QNetwork, episodes: Sequence[Episode]) -> list[Logged]:
    """The episodes as the evaluation of `policy` sees them: one pass of each model, and exact expectations.

    Raises:
        ConfigError: The logits of a model are not hidden states times an output matrix, or the reference has Q heads.
    """
    found: list[Logged] = []
    vectors: Tensor | None = None
    for (part, frozen, actions), (_, values, _) in zip(
        evaluate(reference, episodes, BATCH), evaluate(policy, episodes, BATCH), strict=True
    ):
        if not isinstance(frozen, Factored) or not isinstance(values, Factored | Guided):
            raise ConfigError(
                "off_policy: got a model whose logits are not its hidden states times a matrix, expected a plain "
                "language model"
            )
        vectors = _standardised(frozen.readout.weight) if vectors is None else vectors
        ratio = _log_probability(values, actions) - _log_probability(frozen, actions)
        expected, shared = _expected(values, frozen, vectors)
        for row, episode in enumerate(part):
            n = len(episode.decisions)
            found.append(
                Logged(
                    states=frozen.hidden[row, : n + 1].float().cpu(),
                    actions=vectors[actions[row, :n]].cpu(),
                    expected=expected[row, : n + 1].cpu(),
                    shared=shared[row, : n + 1].cpu(),
                    log_ratio=ratio[row, :n].cpu(),
                    rewards=torch.from_numpy(np.nan_to_num(episode.rewards)).float(),
                    terminated=episode.terminated,
                    turns=turn_starts(episode),
                )
            )
    return found


def turn_starts(episode: Episode) -> list[int]:
    """Which decisions open a turn: the first one, and those that follow the last of another."""
    return [0, *(int(n) for n in np.flatnonzero(episode.closes[:-1]) + 1)]


def _log_probability(values: Factored | Guided, actions: Tensor) -> Tensor:
    return values.at(actions) - values.logsumexp[:, :-1]


def _standardised(weight: Tensor) -> Tensor:
    """Rows of an output matrix with mean 0 and deviation 1 in each column: one step size suits them all."""
    weight = weight.float()
    return (weight - weight.mean(0)) / weight.std(0).clamp(min=1e-6)


def _expected(
    policy: Factored | Guided, behaviour: Factored, vectors: Float[Tensor, "V A"]
) -> tuple[Float[Tensor, "B S A"], Float[Tensor, "B S A"]]:
    """`Logged.expected` and `Logged.shared` at all states, exact, in chunks; 0 where a state is padding."""
    found = []
    for ours, theirs in zip(policy.chunks(policy.valid), behaviour.chunks(policy.valid), strict=True):
        p, least = ours.softmax(-1), torch.minimum(ours.log_softmax(-1), theirs.log_softmax(-1)).exp()
        mean = p @ vectors
        found.append(torch.cat([mean, least @ vectors - least.sum(-1, keepdim=True) * mean], dim=-1))
    full = vectors.new_zeros((*policy.valid.shape, 2 * vectors.shape[-1]))
    full[policy.valid] = torch.cat(found)
    expected, shared = full.chunk(2, dim=-1)
    return expected, shared


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates of a policy's value, each with an interval, and how many episodes' worth of weight is behind them.

    `values` holds the fitted value of each held-out start, one row for each fit; `cut_share` is the share of episodes
    whose weight was cut for `dr`.
    """

    scores: dict[str, Score]
    effective_sample_size: float
    cut_share: float
    values: Float[np.ndarray, "F n"]


def estimate(
    heads: Sequence[ActionHead],
    held_out: Sequence[Logged],
    settings: FittedQ,
    gamma: float,
    counts: Int[np.ndarray, "R n"],
    seed: int,
) -> Estimates:
    """Every estimate of the value of the policy that `heads` were fitted for, on n episodes that they never saw.

    Intervals are percentiles over R resamples of the held-out episodes, given as how often each one is in them; those
    of `fqe` also draw one of the fits. Where the policy would have written none of the episodes, all estimates with
    self-normalised weights are NaN.
    """
    batch = padded(held_out)
    weight = ops.cumulative(batch.log_ratio.double())
    cut = ops.cumulative(batch.log_ratio.double(), settings.largest_weight)
    answers = [_answers(head, batch) for head in heads]
    q, value = (torch.stack(rows).mean(0).double() for rows in zip(*answers, strict=True))
    values = np.stack([of_head[:, 0].numpy() for _, of_head in answers])
    rewards = batch.rewards.double()
    episodes = ops.doubly_robust(cut, rewards, q, value, gamma)
    statistics: dict[str, Callable[[Tensor], Tensor]] = {
        "wis": lambda counts: ops.weighted_importance_sampling(weight, rewards, gamma, counts),
        "pdis": lambda counts: ops.weighted_per_decision(weight, rewards, gamma, counts),
        "dr": lambda counts: counts @ episodes / counts.sum(1),
        "wdr": lambda counts: ops.weighted_doubly_robust(weight, rewards, q, value, gamma, counts),
    }
    scores = {"fqe": fitted_score(values, counts, seed)}
    resamples = torch.from_numpy(counts).double()
    for name, statistic in statistics.items():
        figure = float(statistic(ops.once(weight)))
        scores[name] = resampled_score(statistic(resamples).numpy(), figure, len(held_out))
    share = float((weight[:, -1] > cut[:, -1]).double().mean())
    return Estimates(scores, float(ops.effective_sample_size(weight[:, -1])), share, values)


@torch.no_grad()
def _answers(head: ActionHead, batch: LoggedBatch) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B S"]]:
    """Q of every decision and V of every state, 0 where an episode is over."""
    goes_on = torch.cat([torch.ones_like(batch.continues[:, :1]), batch.continues], dim=1)
    q = head(batch.states[:, :-1], batch.actions) * batch.decided
    return q, head(batch.states, batch.expected) * goes_on


def fitted_score(values: Float[np.ndarray, "F n"], counts: Int[np.ndarray, "R n"], seed: int) -> Score:
    """The mean over fits and starts; a resample draws starts, and one fit for all of them."""
    drawn = values[np.random.default_rng(seed).integers(len(values), size=len(counts))]
    return resampled_score((counts * drawn).sum(1) / counts.sum(1), float(values.mean()), values.shape[1])


def logged_score(held_out: Sequence[Logged], gamma: float, counts: Int[np.ndarray, "R n"]) -> Score:
    """What the logged episodes themselves earned."""
    returns = np.array(
        [
            float((e.rewards.double() * gamma ** torch.arange(len(e.rewards), dtype=torch.float64)).sum())
            for e in held_out
        ]
    )
    return resampled_score(counts @ returns / counts.sum(1), float(returns.mean()), len(returns))


@dataclass(frozen=True)
class Decile:
    """A tenth of the decisions by what was predicted for them, and what followed, with its interval."""

    predicted: float
    realised: Score


def deciles(
    predicted: Float[np.ndarray, "n"],
    realised: Float[np.ndarray, "n"],
    episode: Int[np.ndarray, "n"],
    seed: int,
    bins: int = 10,
) -> list[Decile]:
    """Mean prediction and mean return of equal groups, sorted by prediction; fewer groups where there are fewer rows.

    Decisions of one episode share its luck: `episode` says whose each one is, and whole episodes are resampled.
    """
    found = []
    for group in np.array_split(np.argsort(predicted, kind="stable"), min(bins, len(predicted))):
        whose = np.unique(episode[group], return_inverse=True)[1]
        sums, counts = np.bincount(whose, realised[group]), np.bincount(whose)
        interval = bootstrap(_ratio(sums, counts), len(sums), seed)
        score = Score(float(realised[group].mean()), *interval, len(group))
        found.append(Decile(float(predicted[group].mean()), score))
    return found


def _ratio(sums: np.ndarray, counts: np.ndarray) -> Callable[[Int[np.ndarray, "n"]], float]:
    return lambda rows: float(sums[rows].sum() / counts[rows].sum())


def predictions(
    heads: Sequence[ActionHead], held_out: Sequence[Logged], gamma: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Predicted and realised return from the first decision of each turn on, and the episode of each.

    They agree in the mean only where the heads were fitted for the policy that wrote the episodes. Episodes that were
    cut off are left out: nobody knows what they would have earned.
    """
    rows: list[tuple[float, float, int]] = []
    for number, episode in enumerate(held_out):
        if not episode.terminated:
            continue
        q = torch.stack([head(episode.states[:-1], episode.actions) for head in heads]).mean(0)
        following, returns = 0.0, []
        for reward in reversed(episode.rewards.tolist()):
            following = reward + gamma * following
            returns.append(following)
        returns.reverse()
        rows += [(float(q[turn]), returns[turn], number) for turn in episode.turns]
    table = np.array(rows, dtype=float).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2].astype(int)
