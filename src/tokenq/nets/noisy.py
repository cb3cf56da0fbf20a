"""Layers whose weights are drawn anew at every use, so that an agent explores by itself."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn


class NoisyLinear(nn.Module):
    """A linear layer with factorised Gaussian noise (Fortunato et al. 2018, arXiv 1706.10295, section 3.1).

    With f(x) = sign(x)·√|x|, the weight is μ + σ·f(ε_out)·f(ε_in)ᵀ and the bias μ + σ·f(ε_out). Every row of a batch
    has a draw of its own, which costs a second product, but no weight matrix for each row. No noise in eval mode.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """The layer's answer, with noise from torch's global stream in training mode."""
        mean = nn.functional.linear(x, self.weight, self.bias)
        if not self.training:
            return mean
        into, out = _noise(x), _noise(mean)
        return mean + out * nn.functional.linear(into * x, self.weight_sigma, self.bias_sigma)


def _noise(like: Tensor) -> Tensor:
    drawn = torch.randn_like(like)
    return drawn.sign() * drawn.abs().sqrt()


@contextmanager
def without_noise(network: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode and back into the mode that it had: nothing random is drawn in between."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
