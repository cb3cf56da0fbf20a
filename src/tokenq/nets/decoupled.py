"""Actions of several parts: Q is the mean of one value for each part, so every question is asked of each part alone.

Q(s, a) = 1/D · Σ_d Q_d(s, a_d) (DecQN, Seyde et al. 2023, arXiv 2210.12566). What is held is u_d = Q_d / D, padded with
−∞ where a part has fewer choices than another. Then Q is a plain sum: its maximum is Σ_d max u_d, and as exp Q is a
product, Σ_a exp(Q(a)/τ) = Π_d Σ_k exp(u_d(k)/τ): log-sum-exp, entropy and log-probability of the softmax over all joint
actions are sums over the parts as well. Nothing here ever lists the joint actions; they travel as codes (`ops.radix`).

Letters: B sequences, N decisions, S states, M observations, D parts, A choices of the largest part, k candidates.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenq.ops.radix import decode, encode


@dataclass(frozen=True, eq=False)
class Decoupled:
    """Action values as one tensor of the parts' shares; the same questions as `action_values.Dense`."""

    values: Float[Tensor, "B S D A"]
    heads: tuple[int, ...]
    state_value: None = None

    @property
    def following(self) -> "Decoupled":
        """The same answers at the states after the decisions."""
        return Decoupled(self.values[:, 1:], self.heads)

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken action, differentiable."""
        return Decoupled(self.values[:, :-1], self.heads).taken(actions)

    def taken(self, actions: Int[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The value of one action at every state, differentiable."""
        return self._sum(self.values, actions.unsqueeze(-1)).squeeze(-1)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken actions' log-probability under the softmax policy; exact, so `samples` changes nothing."""
        return Decoupled(self.values[:, :-1], self.heads).log_taken(actions)

    def log_taken(self, actions: Int[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The log-probability of one action at every state under the softmax policy, differentiable."""
        return self.taken(actions) - self.values.logsumexp(-1).sum(-1)

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The values of k candidate actions per state, without gradient."""
        return self._sum(self.values.detach(), candidates)

    @cached_property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """Log-sum-exp over all joint actions, without gradient."""
        return self.values.detach().logsumexp(-1).sum(-1)

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log-sum-exp of the values over τ, without gradient: Σ_d τ·lse(u_d/τ)."""
        return temperature * (self.values.detach() / temperature).logsumexp(-1).sum(-1)

    @cached_property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest value of each state and its action, without gradient."""
        best = self.values.detach().max(-1)
        return best.values.sum(-1), encode(best.indices, self.heads)

    @cached_property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the softmax policy in nats, without gradient: the parts are independent under it."""
        log = self.values.detach().log_softmax(-1)
        return -(log.exp() * log.clamp(min=-1e30)).sum((-2, -1))

    def _sum(self, values: Float[Tensor, "B S D A"], actions: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """Q of k actions per state."""
        return values.gather(-1, decode(actions, self.heads).transpose(-1, -2)).sum(-2)


class Parts(nn.Module):
    """The last layer of a network with several heads: the shares u_d of all choices of every part.

    `values` gives one number for each choice of each part, one part after the other. With a `state` layer they are
    advantages: Q_d = V + A_d − mean A_d (Wang et al. 2016, arXiv 1511.06581, eq. 9, for each part), so Q is V plus the
    mean of the parts' centred advantages.
    """

    choices: Tensor
    there: Tensor

    def __init__(self, heads: tuple[int, ...], values: nn.Module, state: nn.Module | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.values = values
        self.state = state
        choices = torch.tensor(heads)
        self.register_buffer("choices", choices.unsqueeze(-1), persistent=False)
        self.register_buffer("there", torch.arange(max(heads)) < choices.unsqueeze(-1), persistent=False)

    def forward(self, hidden: Float[Tensor, "M H"]) -> Float[Tensor, "M D A"]:
        """The shares; −∞ where a part has no such choice."""
        flat = self.values(hidden)
        values = flat.new_zeros((len(flat), *self.there.shape)).masked_scatter(self.there, flat)
        if self.state is not None:
            values = self.state(hidden).unsqueeze(-1) + values - values.sum(-1, keepdim=True) / self.choices
        shares: Tensor = (values / len(self.heads)).masked_fill(~self.there, -torch.inf)
        return shares

    def answers(self, values: Float[Tensor, "B S D A"]) -> Decoupled:
        """These shares at the states of a batch, behind the questions that objectives ask."""
        return Decoupled(values, self.heads)
