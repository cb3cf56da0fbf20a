"""An action of several parts as one integer, in mixed radix: the last part changes fastest, as in numpy's C order.

Letters: D parts.
"""

import math

import torch
from jaxtyping import Int
from torch import Tensor


def encode(parts: Int[Tensor, "*B D"], heads: tuple[int, ...]) -> Int[Tensor, "*B"]:
    """The code of each row of choices, where part d has `heads[d]` of them; their product must be below 2^63."""
    return (parts * _places(heads, parts.device)).sum(-1)


def decode(codes: Int[Tensor, "*B"], heads: tuple[int, ...]) -> Int[Tensor, "*B D"]:
    """The inverse of `encode`."""
    choices = torch.tensor(heads, device=codes.device)
    return (codes.unsqueeze(-1) // _places(heads, codes.device)) % choices


def _places(heads: tuple[int, ...], device: torch.device) -> Int[Tensor, "D"]:
    return torch.tensor([math.prod(heads[d + 1 :]) for d in range(len(heads))], device=device)
