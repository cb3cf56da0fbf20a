"""Estimates of what a policy would earn, from episodes that another policy, the behaviour, has logged.

B episodes of at most N decisions; a shorter one is padded with ratio 1 (log 0) and reward 0, as if it stayed in an
absorbing state. With ρ_{1:n} = Π_{t≤n} π(a_t|s_t)/μ(a_t|s_t), the cumulative ratio of the evaluated policy π to the
behaviour μ, everything is computed from log ρ_{1:n}: over a hundred tokens the ratios themselves leave every range.

Rewards count γ^{n-1} each. Estimates of all episodes together are made for R resamples at once, each given as how often
every episode is in it (`once` is the log itself): what a bootstrap needs. Self-normalised weights
w_n^i = ρ_{1:n}^i / Σ_j ρ_{1:n}^j are biased for few episodes, consistent, and have by far the smaller variance
(Precup, Sutton & Singh 2000, section 3).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def cumulative(log_ratio: Float[Tensor, "B N"], largest: float = math.inf) -> Float[Tensor, "B N"]:
    """The logarithm of ρ_{1:n}, from log π(a_n|s_n) − log μ(a_n|s_n), in nats.

    ρ is cut at `largest` (truncated importance sampling, Ionides 2008, eq. 3): less variance, and bias towards what the
    behaviour earned. That is for plain weights, whose mean is 1; self-normalised ones have no scale to cut at.
    """
    return log_ratio.cumsum(1).clamp(max=math.log(largest) if largest < math.inf else math.inf)


def effective_sample_size(log_weight: Float[Tensor, "B *N"]) -> Float[Tensor, "*N"]:
    """(Σ w)² / Σ w² over episodes (Kish 1965), in [1, B]: how many episodes of equal weight say as much; 0 of none."""
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp().nan_to_num(nan=0.0)


def once(log_weight: Float[Tensor, "B N"]) -> Float[Tensor, "1 B"]:
    """Each episode one time."""
    return torch.ones_like(log_weight[:, :1]).T


def weighted_importance_sampling(
    log_weight: Float[Tensor, "B N"], rewards: Float[Tensor, "B N"], gamma: float, counts: Float[Tensor, "R B"]
) -> Float[Tensor, "R"]:
    """Σ_i w_N^i Σ_n γ^{n-1} r_n^i: whole returns, weighted by whole episodes (Precup, Sutton & Singh 2000, eq. 4)."""
    returns = (_discounts(rewards, gamma) * rewards).sum(1, keepdim=True)
    return _averages(log_weight[:, -1:], returns, counts).squeeze(1)


def weighted_per_decision(
    log_weight: Float[Tensor, "B N"], rewards: Float[Tensor, "B N"], gamma: float, counts: Float[Tensor, "R B"]
) -> Float[Tensor, "R"]:
    """Σ_n γ^{n-1} Σ_i w_n^i r_n^i: each reward weighted by what led to it (CWPDIS: Thomas 2015, thesis, section 3.10).

    Of the same order as `weighted_importance_sampling` where the only reward stands at the end; better where rewards
    come early.
    """
    return _averages(log_weight, rewards, counts) @ _discounts(rewards, gamma)


def doubly_robust(
    log_weight: Float[Tensor, "B N"],
    rewards: Float[Tensor, "B N"],
    q: Float[Tensor, "B N"],
    value: Float[Tensor, "B S"],
    gamma: float,
) -> Float[Tensor, "B"]:
    """V̂(s_1) + Σ_n γ^{n-1} ρ_{1:n} (r_n + γ V̂(s_{n+1}) − Q̂(s_n, a_n)) of each episode; the estimate is their mean.

    Jiang & Li (2016), eq. 10, with the recursion unrolled. Unbiased if the ratios are right and uncut, whatever Q̂ is;
    exact from one episode if Q̂ is right and the environment deterministic. `value` holds V̂(s) = E_{a~π} Q̂(s, a), 0
    after a termination.
    """
    error = rewards + gamma * value[:, 1:] - q
    return value[:, 0] + (_discounts(rewards, gamma) * log_weight.exp() * error).sum(1)


def weighted_doubly_robust(
    log_weight: Float[Tensor, "B N"],
    rewards: Float[Tensor, "B N"],
    q: Float[Tensor, "B N"],
    value: Float[Tensor, "B S"],
    gamma: float,
    counts: Float[Tensor, "R B"],
) -> Float[Tensor, "R"]:
    """`doubly_robust` with self-normalised weights (WDR: Thomas & Brunskill 2016, section 6), for all episodes.

    (1/B) Σ_i V̂(s_1^i) + Σ_n γ^{n-1} Σ_i w_n^i (r_n^i + γ V̂(s_{n+1}^i) − Q̂(s_n^i, a_n^i)).
    """
    error = rewards + gamma * value[:, 1:] - q
    start = counts @ value[:, 0] / counts.sum(1)
    return start + _averages(log_weight, error, counts) @ _discounts(rewards, gamma)


def _averages(
    log_weight: Float[Tensor, "B N"], values: Float[Tensor, "B N"], counts: Float[Tensor, "R B"]
) -> Float[Tensor, "R N"]:
    """Self-normalised averages over episodes; NaN in a resample whose weights all vanish beside those left out."""
    weight = (log_weight - log_weight.amax(0)).exp()
    return counts @ (weight * values) / (counts @ weight)


def _discounts(rewards: Float[Tensor, "B N"], gamma: float) -> Float[Tensor, "N"]:
    return gamma ** torch.arange(rewards.shape[1], dtype=rewards.dtype, device=rewards.device)
