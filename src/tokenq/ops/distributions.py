"""Distributions of returns: the projection onto fixed atoms, and two measures of how far a target is away.

A target is J values with weights that sum to 1, a prediction K numbers: the logits of K atoms, or K quantiles.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.ops.losses import huber


def project(
    values: Float[Tensor, "*B J"], weights: Float[Tensor, "*B J"], low: float, high: float, atoms: int
) -> Float[Tensor, "*B K"]:
    """Probabilities of `atoms` evenly spaced values from `low` to `high`: each weight goes to its two neighbours.

    What lies outside goes to the nearer end. Where nothing does, the mean stays what it was (Bellemare et al. 2017,
    arXiv 1707.06887, Algorithm 1, whose split would lose the weight of a value that hits an atom).
    """
    place = ((values.clamp(low, high) - low) * ((atoms - 1) / (high - low))).clamp(max=atoms - 1)
    # A value that is no number has no place, but stays what it is in the result.
    left = place.floor().clamp(max=atoms - 2).nan_to_num()
    right_share = place - left
    index = left.long()
    probabilities = values.new_zeros(*values.shape[:-1], atoms)
    probabilities.scatter_add_(-1, index, weights * (1 - right_share))
    return probabilities.scatter_add_(-1, index + 1, weights * right_share)


def cross_entropy(logits: Float[Tensor, "*B K"], probabilities: Float[Tensor, "*B K"]) -> Float[Tensor, "*B"]:
    """−Σ p·log softmax(logits): the KL divergence from the target, plus the target's own entropy."""
    return -(probabilities * logits.log_softmax(-1)).sum(-1)


def quantile_huber(
    quantiles: Float[Tensor, "*B K"], values: Float[Tensor, "*B J"], weights: Float[Tensor, "*B J"], delta: float
) -> Float[Tensor, "*B"]:
    """Σ_i Σ_j w_j·|τ_i − 1[y_j < θ_i]|·huber(y_j − θ_i) at the midpoints τ_i = (i + ½)/K.

    Dabney et al. 2018, arXiv 1710.10044, eq. 10 and Algorithm 1, where all w_j are equal; `delta` is its κ.
    """
    y, theta = torch.broadcast_tensors(values.unsqueeze(-2), quantiles.unsqueeze(-1))
    midpoints = (torch.arange(quantiles.shape[-1], device=values.device) + 0.5) / quantiles.shape[-1]
    share = (midpoints.unsqueeze(-1) - (y < theta).float()).abs()
    loss: Tensor = (share * huber(theta, y, delta) * weights.unsqueeze(-2)).sum((-2, -1))
    return loss
