"""Answers of an agent's network about the states before and after steps.

Letters: B sequences of N steps, S = N + 1 states, A actions, K numbers for a distribution, k and m candidates.
What a network answers is [.., A] for plain values, [.., A, K] for distributions, [.., D, A] for actions of D parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenq.nets.action_values import Dense
from tokenq.nets.decoupled import Decoupled


@dataclass(frozen=True, eq=False)
class StepValues:
    """Action values before and after N steps in a row: only the states that a question needs are read.

    State n is the one before step n, the last one that after all of them. `following` holds those after each step,
    which differ from the ones before the next where an episode ended in between. `before` and `after` let the network
    answer, `read` makes action values of its answers.
    """

    before: Callable[[], Tensor]
    after: Callable[[], Tensor]
    read: Callable[[Tensor], Dense | Decoupled] = Dense
    state_value: None = None

    @cached_property
    def _answers_before(self) -> Float[Tensor, "B N *answers"]:
        return self.before()

    @cached_property
    @torch.no_grad()
    def _answers_after(self) -> Float[Tensor, "B N *answers"]:
        return self.after()

    @cached_property
    def _before(self) -> Dense | Decoupled:
        return self.read(self._answers_before)

    @cached_property
    @torch.no_grad()
    def following(self) -> Dense | Decoupled:
        """The answers at the state that each step led to, without gradient."""
        return self.read(self._answers_after)

    @cached_property
    def _both(self) -> Dense | Decoupled:
        # Whoever asks first about the states before the steps may do so without gradient, but keeps it for the others.
        return self.read(torch.cat([self._answers_before.detach(), self._answers_after[:, -1:]], dim=1))

    def distribution(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N K"]:
        """What describes the return of each taken action, differentiable."""
        return _of_actions(self._answers_before, actions.unsqueeze(-1)).squeeze(-2)

    def distributions(self, actions: Int[Tensor, "B N m"]) -> Float[Tensor, "B N m K"]:
        """The same of m actions at the state that each step led to, without gradient."""
        return _of_actions(self._answers_after, actions)

    def every(self) -> Int[Tensor, "B N A"]:
        """All actions, at the state that each step led to."""
        answers = self._answers_after
        return torch.arange(answers.shape[2], device=answers.device).expand(answers.shape[:3])

    def at(self, actions: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The value of each taken action, differentiable."""
        return self._before.taken(actions)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken actions' log-probability under the softmax policy; exact, so `samples` changes nothing."""
        return self._before.log_taken(actions)

    def among(self, candidates: Int[Tensor, "B S k"]) -> Float[Tensor, "B S k"]:
        """The values of k candidate actions per state, without gradient."""
        return self._both.among(candidates)

    @property
    def logsumexp(self) -> Float[Tensor, "B S"]:
        """Log-sum-exp over all actions, without gradient."""
        return self._both.logsumexp

    def soft_maximum(self, temperature: float) -> Float[Tensor, "B S"]:
        """τ·log-sum-exp of the values over τ, without gradient."""
        return self._both.soft_maximum(temperature)

    @property
    def maximum(self) -> tuple[Float[Tensor, "B S"], Int[Tensor, "B S"]]:
        """The largest value of each state and its action, without gradient."""
        return self._both.maximum

    @property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of the softmax policy in nats, without gradient."""
        return self._both.entropy


def _of_actions(answers: Float[Tensor, "B N A K"], actions: Int[Tensor, "B N m"]) -> Float[Tensor, "B N m K"]:
    return answers.gather(2, actions.unsqueeze(-1).expand(*actions.shape, answers.shape[-1]))
