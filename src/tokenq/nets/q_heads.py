"""Heads that say what tokens are worth, on a model that stays the policy; and the policy that both make together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenq.nets.action_values import Dense, Factored
from tokenq.ops.policies import prior_guided
from tokenq.ops.readout import Readout
from tokenq.types import Texts

Peek = Callable[[Int[Tensor, "M k"]], Float[Tensor, "M k D"]]
"""The hidden state at each of k tokens, if that were the next one of its text."""

NAMES = ("first", "second")
"""Of the Q heads; numbers would read like those of layers."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a language model made of texts, and how it reads others."""

    hidden: Float[Tensor, "R L D"]
    """The last hidden state at every token."""
    texts: Texts
    read: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """The same for other tokens, their attention mask, sources and theirs."""
    context: int | None
    """The longest text that it can read, in tokens; None: any."""

    @property
    def states(self) -> Float[Tensor, "B S D"]:
        """The last hidden state at every decision state."""
        return self.hidden[self.texts.rows, self.texts.states]


@runtime_checkable
class Judge(Protocol):
    """What one head says of tokens at decision states."""

    @property
    def following(self) -> "Judge":
        """The same at the states after the decisions."""

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken token, differentiable."""

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken tokens' log-probability under a softmax over the values of all."""

    def chunks(self, valid: Bool[Tensor, "B S"]) -> Iterator[Float[Tensor, "m V"]]:
        """The values of all tokens at the states marked in `valid`, a few at a time, without gradient."""


class Head(nn.Module):
    """One hidden layer on the last hidden state, in float32; its output matrix starts at zero, so it answers zero."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, outputs)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def activated(self, hidden: Float[Tensor, "*M D"]) -> Float[Tensor, "*M H"]:
        """What the output matrix is multiplied with."""
        return nn.functional.gelu(self.inner(self.norm(hidden.float())))

    @property
    def readout(self) -> Readout:
        """The output matrix."""
        return Readout(self.outer.weight, self.outer.bias)


class QHeads(nn.Module):
    """One or two Q heads from the last hidden state to every token, and a head for the state's value if asked for.

    On an encoder the actions are its labels, or start and end of every position. The heads' gradient enters the model,
    which they share. `beta`, `top_k` and `min_p` say how much they have to say when text is written
    (`ops.policies.prior_guided`).
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        count: int,
        value: bool,
        beta: float = 0.0,
        top_k: int = 0,
        min_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.q = nn.ModuleDict({name: Head(width, vocabulary) for name in NAMES[:count]})
        self.value = Head(width, 1) if value else None
        self.beta = beta
        self.top_k = top_k
        self.min_p = min_p

    def answers(self, model: Dense | Factored, reading: Reading, valid: Bool[Tensor, "B S"]) -> "Guided":
        """Answers at decision states, given those of the model itself and what it made of the texts."""
        hidden = reading.states
        heads = tuple(Factored(head.activated(hidden), head.readout, valid) for head in self._heads)
        value = self.state_value(hidden)
        return Guided(model, heads, valid, self.beta, self.top_k, value, min_p=self.min_p)

    def values(self, hidden: Float[Tensor, "*M D"]) -> list[Float[Tensor, "*M V"]]:
        """What each head says of every action."""
        return [head.outer(head.activated(hidden)) for head in self._heads]

    def state_value(self, hidden: Float[Tensor, "*M D"]) -> Float[Tensor, "*M"] | None:
        """The value of each state, if there is a head for it."""
        if self.value is None:
            return None
        value: Tensor = self.value.outer(self.value.activated(hidden)).squeeze(-1)
        return value

    @torch.no_grad()
    def guided(
        self, logits: Float[Tensor, "M V"], hidden: Float[Tensor, "M D"], peek: Peek | None = None
    ) -> Float[Tensor, "M V"]:
        """Log-probabilities to write with, from the model's own logits and its last hidden states; nothing is tried."""
        return self.guide(logits, self.values(hidden))

    def guide(self, logits: Float[Tensor, "*M V"], values: Sequence[Tensor]) -> Float[Tensor, "*M V"]:
        """The same from what each head says, [*M, V]."""
        return prior_guided(logits, _least(values), self.beta, self.top_k, self.min_p)

    @property
    def _heads(self) -> list[Head]:
        return cast(list[Head], list(self.q.values()))


@dataclass(frozen=True, eq=False)
class Guided:
    """Answers of a model with Q heads about π ∝ π_β·exp(β·min Q), the policy that writes.

    Its values are log-probabilities, so their log-sum-exp is 0; none has a gradient. What is learned has its own
    answers: `policy` is the model itself, `heads` are the values of tokens, `state_value` is that of the state, and
    the k-th of `ahead` foresees the token k decisions later.
    """

    policy: Dense | Factored
    heads: tuple[Judge, ...]
    valid: Bool[Tensor, "B S"]
    beta: float
    top_k: int
    state_value: Float[Tensor, "B S"] | None = None
    ahead: tuple[Dense | Factored, ...] = ()
    min_p: float = 0.0

    @property
    def following(self) -> "Guided":
        """The same answers at the states after the decisions."""
        value = None if self.state_value is None else self.state_value[:, 1:]
        heads, ahead = tuple(h.following for h in self.heads), tuple(h.following for h in self.ahead)
        policy, valid = self.policy.following, self.valid[:, 1:]
        return Guided(policy, heads, valid, self.beta, self.top_k, value, ahead, self.min_p)

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The log-probability of each taken token."""
        return self.among(nn.functional.pad(actions, (0, 1)).unsqueeze(-1))[:, :-1, 0]

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The same; without a gradient there is nothing to sample."""
        return self.at(actions)

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The log-probabilities of k candidate tokens per state."""
        asked = iter(candidates[self.valid].split(1))
        return self._answer(lambda log: log.gather(-1, torch.cat([next(asked) for _ in log])))

    @property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """0: the values are normalised already."""
        return torch.zeros_like(self.valid, dtype=torch.float32)

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log-sum-exp of the log-probabilities over τ."""
        return temperature * self._answer(lambda log: (log / temperature).logsumexp(-1))

    @cached_property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest log-probability of each state and its token."""
        values, tokens = self.top(1)
        return values.squeeze(-1), tokens.squeeze(-1)

    def top(self, k: int) -> tuple[Float[Tensor, "B S k"], Int[Tensor, "B S k"]]:
        """The k most probable tokens of each state: their log-probabilities and which they are."""
        best = [log.topk(k, dim=-1) for log in self.chunks(self.valid)]
        values, tokens = torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])
        return self._scatter(values), self._scatter(tokens)

    def chunks(self, valid: Bool[Tensor, "B S"]) -> Iterator[Float[Tensor, "m V"]]:
        """The log-probabilities of all tokens at the states marked in `valid`, a few at a time."""
        heads = zip(*(head.chunks(valid) for head in self.heads), strict=True)
        for logits, values in zip(self.policy.chunks(valid), heads, strict=True):
            yield prior_guided(logits, _least(values), self.beta, self.top_k, self.min_p)

    @cached_property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the policy that writes, in nats."""
        return self._answer(lambda log: -(log.exp() * log.clamp(min=-1e30)).sum(-1))

    def _answer(self, question: Callable[[Tensor], Tensor]) -> Tensor:
        return self._scatter(torch.cat([question(log) for log in self.chunks(self.valid)]))

    def _scatter(self, answers: Tensor) -> Tensor:
        full = answers.new_zeros((*self.valid.shape, *answers.shape[1:]))
        full[self.valid] = answers
        return full


def _least(values: Iterable[Tensor]) -> Tensor:
    return reduce(torch.minimum, values)
