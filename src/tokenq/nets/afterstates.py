"""Values that are read after a token instead of before it, and heads that foresee later tokens.

A head on the state before a token must tell what each token would lead to without reading it. Here the token is read
first, and what is judged is the text that it makes: an afterstate (Sutton & Barto 2018, section 6.8). It costs a pass
of the model for each token that is tried. Letters as in `action_values`; R texts of L tokens, m states, k tokens tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.action_values import Dense, Factored
from tokenq.nets.q_heads import Guided, Head, Peek, Reading
from tokenq.ops.policies import prior_guided
from tokenq.types import Texts

AT_ONCE = 256
"""Texts that are read together while tokens are tried."""


class Afterstates(nn.Module):
    """One head from the hidden state at a token to what the text is worth then: Q(s, a) = V(s·a).

    `ahead` is the number of heads that foresee: the k-th tells from the state before a decision what is decided k
    decisions later, by a matrix of its own and the model's output matrix (Gloeckle et al. 2024, arXiv 2404.19737; a
    matrix per step instead of a layer). They start as the identity and have no say when text is written. `beta` is how
    much the values have to say then, about the `top_k` tokens that the model finds most probable, >= 1, or those of
    them that it finds at least `min_p` times as probable as the best.
    """

    def __init__(self, width: int, ahead: int = 0, beta: float = 0.0, top_k: int = 1, min_p: float = 0.0) -> None:
        super().__init__()
        if top_k < 1:
            raise ConfigError(f"top_k: got {top_k}, expected how many tokens guidance tries, >= 1")
        self.worth = Head(width, 1)
        steps = [nn.Linear(width, width) for _ in range(ahead)]
        for step in steps:
            nn.init.eye_(step.weight)
            nn.init.zeros_(step.bias)
        self.ahead = nn.ModuleList(steps)
        self.beta = beta
        self.top_k = top_k
        self.min_p = min_p

    def value(self, hidden: Float[Tensor, "*M D"]) -> Float[Tensor, "*M"]:
        """What texts are worth, from the hidden state at their last token."""
        value: Tensor = self.worth.outer(self.worth.activated(hidden)).squeeze(-1)
        return value

    def answers(self, model: Dense | Factored, reading: Reading, valid: Bool[Tensor, "B S"]) -> Guided:
        """Answers at the decision states of texts, given those of the model itself."""
        if not isinstance(model, Factored):
            raise ConfigError(
                "values: got afterstates for a model whose logits are not its hidden states times a matrix; use heads"
            )
        judge = AfterstateValues(model, reading, self.value, self.top_k)
        hidden = model.hidden
        foreseen = tuple(replace(model, hidden=step(hidden.float()).to(hidden.dtype)) for step in self.ahead)
        return Guided(model, (judge,), valid, self.beta, self.top_k, None, foreseen, self.min_p)

    @torch.no_grad()
    def guided(self, logits: Float[Tensor, "M V"], hidden: Float[Tensor, "M D"], peek: Peek) -> Float[Tensor, "M V"]:
        """Log-probabilities to write with; `peek` reads the tokens that are tried, `hidden` is not needed."""
        tried = _likeliest(logits, self.top_k)
        values = _among_all(logits, tried, self.value(peek(tried)))
        return prior_guided(logits, values, self.beta, self.top_k, self.min_p)


@dataclass(frozen=True, eq=False)
class AfterstateValues:
    """What the head says of tokens at decision states: of those that were taken, and of the model's `top_k`."""

    model: Factored
    reading: Reading
    value: Callable[[Float[Tensor, "*M D"]], Float[Tensor, "*M"]]
    top_k: int

    @property
    def following(self) -> "AfterstateValues":
        """The same at the states after the decisions."""
        texts = self.reading.texts
        later = replace(texts, states=texts.states[:, 1:], rows=texts.rows[:, 1:])
        return replace(self, model=self.model.following, reading=replace(self.reading, texts=later))

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken token, differentiable. Raises `ConfigError` if it does not stand in the text."""
        texts = self.reading.texts
        rows, places = texts.rows[:, :-1], (texts.states[:, :-1] + 1).clamp(max=texts.tokens.shape[1] - 1)
        real = self.model.valid[:, 1:]  # decision n is real exactly when state n + 1 is
        if not torch.equal(texts.tokens[rows, places][real], actions[real]):
            raise ConfigError("values: got tokens that do not follow their state, expected those that were written")
        found = self.value(self.reading.hidden[rows, places][real])
        return torch.zeros_like(real, dtype=found.dtype).masked_scatter(real, found)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """Not known: a softmax over all tokens would need a pass for each of them."""
        raise ConfigError("values: got afterstates where the values of all tokens are asked for; use heads")

    def chunks(self, valid: Bool[Tensor, "B S"]) -> Iterator[Float[Tensor, "m V"]]:
        """The values of the `top_k` tokens at the states marked in `valid`, 0 for all others, without gradient."""
        tokens, values = (iter(part[valid[self.model.valid]].split(1)) for part in self._tried)
        for logits in self.model.chunks(valid):
            tried, worth = (torch.cat([next(part) for _ in logits]) for part in (tokens, values))
            yield _among_all(logits, tried, worth)

    @cached_property
    @torch.no_grad()
    def _tried(self) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
        """The `top_k` tokens at all M real states and their values: found once, since each costs a pass.

        Where the model can read no further token, values are 0.
        """
        tokens = torch.cat([_likeliest(logits, self.top_k) for logits in self.model.chunks(self.model.valid)])
        texts, k = self.reading.texts, tokens.shape[1]
        rows, places = (part[self.model.valid].repeat_interleave(k) for part in (texts.rows, texts.states))
        context = self.reading.context
        room = torch.ones_like(places, dtype=torch.bool) if context is None else places + 1 < context
        found = []
        for row, place, token in zip(
            *(part[room].split(AT_ONCE) for part in (rows, places, tokens.flatten())), strict=True
        ):
            hidden = self.reading.read(*_continued(texts, row, place, token))
            found.append(self.value(hidden[torch.arange(len(row), device=row.device), place + 1]))
        worth = torch.zeros_like(places, dtype=torch.float32).masked_scatter(room, torch.cat(found))
        return tokens, worth.view(-1, k)


def _continued(
    texts: Texts, rows: Int[Tensor, "M"], places: Int[Tensor, "M"], token: Int[Tensor, "M"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts up to a place and one token more: tokens, attention, source and its attention."""
    end = int(places.max()) + 2
    where = torch.arange(end, device=places.device)
    room = torch.nn.functional.pad(texts.tokens, (0, 1))[rows, :end]
    tokens = torch.where(where == places.unsqueeze(1) + 1, token.unsqueeze(1), room)
    read = (where <= places.unsqueeze(1) + 1).to(texts.attention.dtype)
    return tokens, read, texts.source[rows], texts.source_attention[rows]


def _likeliest(logits: Float[Tensor, "M V"], k: int) -> Int[Tensor, "M k"]:
    """The k most probable tokens; as many as there are if that is fewer."""
    return logits.topk(min(k, logits.shape[-1]), dim=-1).indices


def _among_all(
    logits: Float[Tensor, "M V"], tokens: Int[Tensor, "M k"], values: Float[Tensor, "M k"]
) -> Float[Tensor, "M V"]:
    """Values of some tokens at their places, 0 elsewhere: guidance asks for no others."""
    return torch.zeros_like(logits, dtype=torch.float32).scatter(-1, tokens, values.float())
