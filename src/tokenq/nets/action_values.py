"""The two implementations of action values at decision states: dense tensors and hidden states × output matrix.

Both answer the same questions (`learning.values.ActionValues` is the protocol that objectives consume); what they
hold differs. Letters: B episodes, N decisions, S = N + 1 states, A actions, V vocabulary, D width, k candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenq.ops.readout import LEFT_OUT, Readout, rows_per_chunk


@dataclass(frozen=True, eq=False)
class Dense:
    """Action values as one tensor [B, S, A]: classic control, and models whose logits are no plain matrix product."""

    values: Float[Tensor, "B S A"]
    state_value: Float[Tensor, "B S"] | None = None

    @property
    def following(self) -> "Dense":
        """The same answers at the states after the decisions."""
        return Dense(self.values[:, 1:], None if self.state_value is None else self.state_value[:, 1:])

    @property
    def choices(self) -> int:
        """A, the number of actions."""
        return self.values.shape[-1]

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken action, differentiable."""
        return Dense(self.values[:, :-1]).taken(actions)

    def taken(self, actions: Int[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The value of one action at every state, differentiable."""
        return self.values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken actions' log-probability under the softmax policy; dense, so `samples` changes nothing."""
        return Dense(self.values[:, :-1]).log_taken(actions)

    def log_taken(self, actions: Int[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The log-probability of one action at every state under the softmax policy, differentiable."""
        return self.taken(actions) - self.values.logsumexp(-1)

    def rest(self, known: Int[Tensor, "B N k"], samples: int) -> Float[Tensor, "B N"]:
        """Log-sum-exp over all actions but the `known` ones, differentiable; dense, so `samples` changes nothing."""
        return self.values[:, :-1].scatter(-1, known, LEFT_OUT).logsumexp(-1)

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The values of k candidate actions per state, without gradient."""
        return self.values.detach().gather(-1, candidates)

    @cached_property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """Log-sum-exp over all actions, without gradient."""
        return self.values.detach().logsumexp(-1)

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log-sum-exp of the values over τ, without gradient."""
        return temperature * (self.values.detach() / temperature).logsumexp(-1)

    @cached_property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest value of each state and its action, without gradient."""
        best = self.values.detach().max(-1)
        return best.values, best.indices

    def top(self, k: int) -> tuple[Float[Tensor, "B S k"], Int[Tensor, "B S k"]]:
        """The k largest values of each state and their actions, without gradient.

        Where there are fewer than k possible actions, the best one fills up the row.
        """
        best = self.values.detach().topk(min(k, self.values.shape[-1]), dim=-1)
        missing = (0, k - best.values.shape[-1])
        values = torch.nn.functional.pad(best.values, missing, value=-torch.inf)
        impossible = values == -torch.inf
        actions = torch.nn.functional.pad(best.indices, missing)
        first = (values[..., :1].expand_as(values), actions[..., :1].expand_as(actions))
        return values.where(~impossible, first[0]), actions.where(~impossible, first[1])

    def chunks(self, valid: Bool[Tensor, "B S"]) -> Iterator[Float[Tensor, "m A"]]:
        """The values of all actions at the states marked in `valid`, a few at a time, without gradient."""
        yield from self.values.detach()[valid].split(rows_per_chunk(self.values.shape[-1]))

    @cached_property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the softmax policy in nats, without gradient."""
        log = self.values.detach().log_softmax(-1)
        return -(log.exp() * log.clamp(min=-1e30)).sum(-1)


@dataclass(frozen=True, eq=False)
class Factored:
    """Action values of a language model, kept as hidden states [B, S, D] and the output matrix.

    Only states marked in `valid` are ever multiplied with the matrix; the others read 0. Values are exact; the gradient
    reaches only the rows of the taken actions and, for normalised values, of a few sampled ones.
    """

    hidden: Float[Tensor, "B S D"]
    readout: Readout
    valid: Bool[Tensor, "B S"]
    state_value: Float[Tensor, "B S"] | None = None

    @property
    def following(self) -> "Factored":
        """The same answers at the states after the decisions."""
        value = None if self.state_value is None else self.state_value[:, 1:]
        return Factored(self.hidden[:, 1:], self.readout, self.valid[:, 1:], value)

    @property
    def choices(self) -> int:
        """V, the number of tokens."""
        return self.readout.weight.shape[0]

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The logit of each taken token; its gradient touches one row of the output matrix per decision."""
        return self.readout.rows(self.hidden[:, :-1], actions.unsqueeze(-1)).squeeze(-1)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken tokens' exact log-probability, with an unbiased gradient from K = `samples` rows per decision.

        ∇log π(a) = ∇ℓ(a) − E_{a'~π}[∇ℓ(a')]; the expectation is estimated from K tokens drawn from π. With K = 0 the
        whole softmax is differentiated, which holds an [M, V] matrix: the reference that tests compare with.
        """
        if samples == 0:
            return self._dense_log_probability(actions)
        taken = self.at(actions)
        rows = self.valid[:, 1:]  # decision n is real exactly when state n + 1 is
        states = self.hidden[:, :-1][rows]
        drawn = self.readout.rows(states, self.readout.sample(states.detach(), samples)).mean(-1)
        zero_valued = torch.zeros_like(taken).masked_scatter(rows, drawn - drawn.detach())
        return taken - self.logsumexp[:, :-1] - zero_valued

    def rest(self, known: Int[Tensor, "B N k"], samples: int) -> Float[Tensor, "B N"]:
        """Log-sum-exp over all tokens but the `known` ones, exact, with an unbiased gradient from `samples` of them.

        ∇lse = E_{a'}[∇ℓ(a')], with a' drawn from the softmax over these tokens.
        """
        rows = self.valid[:, 1:]
        states = self.hidden[:, :-1][rows]
        total, drawn = self.readout.rest(states.detach(), known[rows], samples)
        logits = self.readout.rows(states, drawn).mean(-1)
        return total.new_zeros(rows.shape).masked_scatter(rows, total + (logits - logits.detach()))

    def _dense_log_probability(self, actions: Tensor) -> Tensor:
        rows = self.valid[:, 1:]
        logits = self.readout.logits(self.hidden[:, :-1][rows])
        log = logits.log_softmax(-1).gather(-1, actions[rows].unsqueeze(-1)).squeeze(-1)
        return log.new_zeros(actions.shape).masked_scatter(rows, log)

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The logits of k candidate tokens per state, without gradient."""
        return self._scatter(self.readout.rows(self._states, candidates[self.valid]).detach())

    @cached_property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """Log-sum-exp over the vocabulary, without gradient."""
        return self._scatter(self.readout.logsumexp(self._states))

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log-sum-exp of the logits over τ, without gradient."""
        bias = self.readout.bias
        cooled = Readout(self.readout.weight, None if bias is None else bias / temperature)
        return temperature * self._scatter(cooled.logsumexp(self._states / temperature))

    @cached_property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest logit of each state and its token, without gradient."""
        values, tokens = self.readout.maximum(self._states)
        return self._scatter(values), self._scatter(tokens)

    def top(self, k: int) -> tuple[Float[Tensor, "B S k"], Int[Tensor, "B S k"]]:
        """The k largest logits of each state and their tokens, without gradient."""
        values, tokens = self.readout.top(self._states, k)
        return self._scatter(values), self._scatter(tokens)

    def chunks(self, valid: Bool[Tensor, "B S"]) -> Iterator[Float[Tensor, "m V"]]:
        """The logits of all tokens at the states marked in `valid`, a few at a time, without gradient."""
        return self.readout.chunks(self.hidden.detach()[valid])

    @cached_property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the softmax policy in nats, without gradient."""
        return self._scatter(self.readout.entropy(self._states))

    @cached_property
    def _states(self) -> Float[Tensor, "M D"]:
        return self.hidden.detach()[self.valid]

    def _scatter(self, answers: Tensor) -> Tensor:
        full = answers.new_zeros((*self.valid.shape, *answers.shape[1:]))
        full[self.valid] = answers
        return full
