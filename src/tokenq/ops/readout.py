"""Questions about logits = hidden · weightᵀ + bias, answered in chunks of rows.

A language model's logits over M states fill an [M, V] matrix, for V in the tens of thousands the largest tensor of the
whole update. None of these functions holds more than about `CHUNK` of its entries at once, and only `rows` and
`cross_entropy` have a gradient. Letters: M states, D width, V vocabulary, k candidates a state.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tokenq.ops.losses import blurred

CHUNK = 2**23
"""Entries of a [rows, V] chunk of logits, rounded up to whole rows: at least 32 MiB in float32.

From this size on glibc maps memory afresh and gives it back at once; smaller pieces leave a heap full of holes, which
cost more, when it was measured, than the tensor that is avoided.
"""

LEFT_OUT = -1e30
"""The logit of a token that is left out: with minus infinity, where none is left, gradients would be NaN."""


def rows_per_chunk(vocabulary: int) -> int:
    """How many states' logits are held at once."""
    return math.ceil(CHUNK / vocabulary)


@dataclass(frozen=True, eq=False)
class Readout:
    """The output matrix of a language model, `weight` [V, D], and its `bias` [V] if it has one."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, "V"] | None = None

    @property
    def _rows_per_chunk(self) -> int:
        return rows_per_chunk(self.weight.shape[0])

    def logits(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """All logits at once, in float32; differentiable."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias).float()

    def rows(self, hidden: Float[Tensor, "*M D"], index: Int[Tensor, "*M k"]) -> Float[Tensor, "*M k"]:
        """The logits of k chosen tokens per state, [*M, k]; differentiable, at the cost of k rows of the matrix."""
        chosen = (self.weight[index].float() * hidden.unsqueeze(-2).float()).sum(-1)
        return chosen if self.bias is None else chosen + self.bias[index].float()

    def chunks(self, hidden: Float[Tensor, "M D"]) -> Iterator[Float[Tensor, "m V"]]:
        """The rows of the logit matrix, a few states at a time, without gradient."""
        for part in hidden.split(self._rows_per_chunk):
            with torch.no_grad():
                logits = self.logits(part)
            yield logits

    def rest(
        self, hidden: Float[Tensor, "M D"], known: Int[Tensor, "M k"], samples: int
    ) -> tuple[Float[Tensor, "M"], Int[Tensor, "M n"]]:
        """Log-sum-exp over all tokens but those in `known`, exact, and n = `samples` of them drawn from their softmax.

        Neither has a gradient. Where no token is left the former is about −1e30.
        """
        total, drawn = [], []
        for logits, left_out in zip(self.chunks(hidden), known.split(self._rows_per_chunk), strict=True):
            others = logits.scatter(-1, left_out, LEFT_OUT)
            total.append(others.logsumexp(-1))
            drawn.append(torch.multinomial(others.softmax(-1), samples, replacement=True))
        return torch.cat(total), torch.cat(drawn)

    def logsumexp(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M"]:
        """Log-sum-exp over the vocabulary, exact, without gradient."""
        return torch.cat([logits.logsumexp(-1) for logits in self.chunks(hidden)])

    def maximum(self, hidden: Float[Tensor, "M D"]) -> tuple[Float[Tensor, "M"], Int[Tensor, "M"]]:
        """The largest logit of each state and its token, without gradient."""
        best = [logits.max(-1) for logits in self.chunks(hidden)]
        return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])

    def top(self, hidden: Float[Tensor, "M D"], k: int) -> tuple[Float[Tensor, "M k"], Int[Tensor, "M k"]]:
        """The k largest logits of each state and their tokens, without gradient.

        Where there are fewer than k tokens, the best one fills up the row.
        """
        vocabulary = self.weight.shape[0]
        best = [logits.topk(min(k, vocabulary), dim=-1) for logits in self.chunks(hidden)]
        filled = [*range(min(k, vocabulary)), *[0] * (k - vocabulary)]
        return torch.cat([b.values for b in best])[:, filled], torch.cat([b.indices for b in best])[:, filled]

    def sample(self, hidden: Float[Tensor, "M D"], k: int) -> Int[Tensor, "M k"]:
        """K tokens per state drawn with replacement from the softmax policy, from torch's global generator."""
        drawn = [torch.multinomial(logits.softmax(-1), k, replacement=True) for logits in self.chunks(hidden)]
        return torch.cat(drawn)

    def entropy(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M"]:
        """Entropy of the softmax policy in nats, without gradient."""
        logs = (logits.log_softmax(-1) for logits in self.chunks(hidden))
        return torch.cat([-(log.exp() * log.clamp(min=-1e30)).sum(-1) for log in logs])

    def cross_entropy(
        self, hidden: Float[Tensor, "M D"], tokens: Int[Tensor, "M"], noise: float = 0.0
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of `tokens` in nats, differentiable; each chunk's logits are recomputed in backward.

        `noise` is the share of tokens that were drawn blindly (`losses.blurred`), in [0, 1).
        """
        total = hidden.new_zeros((), dtype=torch.float32)
        size = self._rows_per_chunk
        for part, target in zip(hidden.split(size), tokens.split(size), strict=True):
            total = total + checkpoint(self._summed_cross_entropy, part, target, noise, use_reentrant=False)
        return total / len(tokens)

    def _summed_cross_entropy(self, hidden: Tensor, tokens: Tensor, noise: float) -> Tensor:
        missed = torch.nn.functional.cross_entropy(
            self.logits(hidden), tokens, reduction="sum" if noise == 0 else "none"
        )
        return -blurred(-missed, noise, self.weight.shape[0]).sum()
