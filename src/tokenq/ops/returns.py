"""Returns over decisions: what the Bellman targets of every objective are made of."""

import torch
from jaxtyping import Float
from torch import Tensor


def lambda_returns(
    rewards: Float[Tensor, "B N"],
    discounts: Float[Tensor, "B N"],
    next_values: Float[Tensor, "B N"],
    next_corrections: Float[Tensor, "B N"],
    lam: Float[Tensor, "B N"],
) -> Float[Tensor, "B N"]:
    """λ-returns in decision time, with a correction subtracted wherever the return continues along the data.

    G_n = r_n + d_n·[(1 − λ_n)·v_{n+1} + λ_n·(G_{n+1} − e_{n+1})], computed backwards; λ_n = 0 cuts the trace at n.
    `discounts` is γ·c_n, 0 where the episode terminated. `next_values` and `next_corrections` hold v and e of the
    *next* state and decision. With e = 0 these are the λ-returns of Sutton & Barto (2018), eq. 12.18; with
    e = β·log(π/π_ref) they are the path-consistent soft returns of Nachum et al. (2017, arXiv 1702.08892, eq. 10),
    which hold for any behaviour policy. The last column must have λ = 0, there is nothing to continue along.
    """
    following = torch.zeros_like(rewards[:, -1])
    returns = torch.empty_like(rewards)
    for n in reversed(range(rewards.shape[1])):
        continued = lam[:, n] * (following - next_corrections[:, n])
        following = rewards[:, n] + discounts[:, n] * ((1 - lam[:, n]) * next_values[:, n] + continued)
        returns[:, n] = following
    return returns
