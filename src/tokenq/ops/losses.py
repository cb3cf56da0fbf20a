"""Elementwise losses and the one reduction that goes with them."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def squared_error(prediction: Float[Tensor, "*any"], target: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """½·(prediction − target)²; the factor ½ makes its gradient the plain difference."""
    return 0.5 * (prediction - target) ** 2


def huber(prediction: Float[Tensor, "*any"], target: Float[Tensor, "*any"], delta: float) -> Float[Tensor, "*any"]:
    """`squared_error` up to a difference of `delta`, from there on a straight line of slope `delta` (Huber 1964)."""
    distance = (prediction - target).abs()
    inside = distance.clamp(max=delta)
    return inside * (distance - 0.5 * inside)


def expectile(prediction: Float[Tensor, "*any"], target: Float[Tensor, "*any"], tau: float) -> Float[Tensor, "*any"]:
    """|τ − 1(target < prediction)|·(target − prediction)²: its minimum is the τ-expectile of the targets.

    The expectile loss of Kostrikov et al. 2022 (IQL, arXiv 2110.06169). τ = ½ is `squared_error`, whose minimum is the
    mean; as τ goes to 1 the minimum goes to the largest target.
    """
    difference = target - prediction
    return (tau - (difference < 0).to(difference.dtype)).abs() * difference**2


def blurred(log: Float[Tensor, "*any"], noise: float, choices: int) -> Float[Tensor, "*any"]:
    """log((1 − ε)·p + ε/K) from log p, for data of which the share ε = `noise` was drawn blindly from K choices.

    Forward correction of a loss (Patrini et al. 2017, arXiv 1609.03683) for noise that is alike on all of
    them: what p fits is then the rest of the data. ε in [0, 1).
    """
    if noise == 0:
        return log
    floor = torch.full_like(log, math.log(noise / choices))
    return torch.logaddexp(log + math.log(1 - noise), floor)


def masked_mean(values: Float[Tensor, "*any"], mask: Bool[Tensor, "*any"]) -> Float[Tensor, ""]:
    """The mean of `values` where `mask` is true; 0 if it is true nowhere."""
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)
