"""Corrupting texts for self-supervised learning: masked tokens, and spans replaced by sentinels."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def mask_tokens(
    tokens: Int[Tensor, "*B"],
    maskable: Bool[Tensor, "*B"],
    probability: float,
    mask: int,
    vocabulary: int,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "*B"], Bool[Tensor, "*B"]]:
    """Corrupted tokens, and where the originals are to be predicted (Devlin et al. 2019, section 3.1).

    Each maskable token is chosen with `probability`; of the chosen, 80 % become `mask`, 10 % a random token below
    `vocabulary`, and 10 % stay as they are.
    """
    chosen = maskable & (torch.rand(tokens.shape, generator=generator) < probability)
    fate = torch.rand(tokens.shape, generator=generator)
    random = torch.randint(vocabulary, tokens.shape, generator=generator)
    corrupted = torch.where(chosen & (fate < 0.8), mask, tokens)
    return torch.where(chosen & (fate >= 0.9), random, corrupted), chosen


def corrupt_spans(
    tokens: Int[Tensor, "L"], probability: float, mean_length: float, sentinels: list[int], generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """A source with spans cut out and a target that holds them (Raffel et al. 2020, section 3.1.4).

    About a share of `probability` of the L tokens is cut out, in spans of about `mean_length`; each leaves a sentinel
    in the source, which stands before the span in the target. A text of one token comes back whole, with nothing to
    predict.
    """
    length = len(tokens)
    noise = min(max(round(length * probability), 1), length - 1)
    if noise < 1:
        return tokens.tolist(), []
    spans = min(max(round(noise / mean_length), 1), noise, length - noise, len(sentinels))
    cut, kept = _pieces(noise, spans, generator), _pieces(length - noise, spans, generator)
    source: list[int] = []
    target: list[int] = []
    position = 0
    for sentinel, stays, leaves in zip(sentinels, kept, cut, strict=False):
        source += [*tokens[position : position + stays].tolist(), sentinel]
        target += [sentinel, *tokens[position + stays : position + stays + leaves].tolist()]
        position += stays + leaves
    return source, target


def _pieces(total: int, parts: int, generator: torch.Generator) -> list[int]:
    """`total` as a sum of so many positive numbers, all such sums alike probable."""
    ends = torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values + 1
    edges = [0, *ends.tolist(), total]
    return [b - a for a, b in pairwise(edges)]
