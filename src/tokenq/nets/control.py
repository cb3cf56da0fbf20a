"""Networks of control tasks: an observation in, the value of each action out, or the distribution of its return.

Letters: B sequences of N steps, M observations, A actions, K numbers that describe a distribution.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.action_values import Dense
from tokenq.nets.noisy import NoisyLinear
from tokenq.types import Batch, Observations, Spaces


@runtime_checkable
class Spread(Protocol):
    """How K numbers describe the distribution of an action's return."""

    @property
    def outputs(self) -> int:
        """K, >= 1."""

    def mean(self, answers: Float[Tensor, "*any K"]) -> Float[Tensor, "*any"]:
        """The mean of each distribution: Q."""


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers with ReLU between them; discrete observations are read one-hot."""

    layers: int = 2
    """Hidden layers, >= 1."""
    width: int = 256
    """Units of each, >= 1."""
    dueling: bool = False
    """Q = V + A − mean A from two output layers (Wang et al. 2016, arXiv 1511.06581, eq. 9)."""
    noisy: float | None = None
    """Size of the noise on all weights while training, > 0, such as 0.5; null: none. Explores without ε."""
    norm: bool = False
    """LayerNorm before each ReLU."""

    def __post_init__(self) -> None:
        if self.layers < 1 or self.width < 1:
            raise ConfigError(f"layers, width: got {self.layers}, {self.width}, expected integers >= 1")
        if self.noisy is not None and not 0 < self.noisy < float("inf"):
            raise ConfigError(f"noisy: got {self.noisy}, expected a finite number > 0, or null")

    def build(self, spaces: Spaces, spread: Spread | None = None) -> "ControlQ":
        """A network with fresh weights for these observations and actions; without `spread` it answers Q itself."""
        if spread is not None and len(spaces.heads) > 1:
            got = f"got distributions for actions of {len(spaces.heads)} parts"
            raise ConfigError(f"objective: {got}, expected actions of one part; use double_dqn")
        linear = nn.Linear if self.noisy is None else partial(NoisyLinear, sigma=self.noisy)
        inputs, actions = spaces.states or math.prod(spaces.shape), spaces.actions
        outputs = 1 if spread is None else spread.outputs
        layers: list[nn.Module] = [OneHot(spaces.states) if spaces.states else Flat()]
        for _ in range(self.layers):
            layers += [linear(inputs, self.width), *([nn.LayerNorm(self.width)] if self.norm else []), nn.ReLU()]
            inputs = self.width
        if self.dueling:
            layers += [Dueling(linear(inputs, outputs), linear(inputs, actions * outputs))]
        else:
            layers += [linear(inputs, actions * outputs)]
        if spread is not None:
            layers += [nn.Unflatten(-1, (actions, outputs))]
        return ControlQ(nn.Sequential(*layers), spread)


class Flat(nn.Module):
    """Observations of any shape and type as one row of floats each."""

    def forward(self, observations: Shaped[Tensor, "B *shape"]) -> Float[Tensor, "B D"]:
        """One row for each observation."""
        return observations.float().flatten(1)


class OneHot(nn.Module):
    """Discrete observations as unit vectors."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.states = states

    def forward(self, observations: Int[Tensor, "B"]) -> Float[Tensor, "B states"]:
        """One row of the unit matrix for each observation."""
        return nn.functional.one_hot(observations.long(), self.states).float()


class Dueling(nn.Module):
    """A state value and advantages whose mean is 0, each of K numbers (Hessel et al. 2018, arXiv 1710.02298)."""

    def __init__(self, value: nn.Module, advantage: nn.Module) -> None:
        super().__init__()
        self.value = value
        self.advantage = advantage

    def forward(self, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B AK"]:
        """The numbers of every action, one action after the other."""
        value = self.value(hidden)
        advantage = self.advantage(hidden).unflatten(-1, (-1, value.shape[-1]))
        answers: Tensor = value.unsqueeze(-2) + advantage - advantage.mean(-2, keepdim=True)
        return answers.flatten(-2)


class ControlQ(nn.Module):
    """Q of every action of an observation; answers a batch as `StepValues`.

    The first of the layers reads observations as the environment gives them, of any type.
    """

    def __init__(self, layers: nn.Sequential, spread: Spread | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.spread = spread

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def answers(self, observations: Shaped[Tensor, "M *shape"]) -> Float[Tensor, "M A *K"]:
        """Q of every action, or with a spread the K numbers that describe its return."""
        answers: Tensor = self.layers(observations)
        return answers

    def values(self, observations: Shaped[Tensor, "M *shape"]) -> Float[Tensor, "M A"]:
        """Q of every action."""
        answers = self.answers(observations)
        return answers if self.spread is None else self.spread.mean(answers)

    def forward(self, batch: Batch) -> "StepValues":
        """Answers to every question about the batch's two states, each read when it is first asked for."""
        mean = None if self.spread is None else self.spread.mean
        return StepValues(self.answers, batch.observations, mean)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "ControlQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares the others."""
        shared: dict[int, Any] = {id(p): p for name, p in self.named_parameters() if not lagged(name)}
        twin = copy.deepcopy(self, shared)
        for name, parameter in twin.named_parameters():
            if lagged(name):
                parameter.requires_grad_(False)
        return twin


@dataclass(frozen=True, eq=False)
class StepValues:
    """Action values before and after N steps in a row: only the states that a question needs are read.

    State n is the one before step n, the last one that after all of them. `following` holds those after each step,
    which differ from the ones before the next where an episode ended in between.
    """

    network: Callable[[Tensor], Tensor]
    observations: Observations
    mean: Callable[[Tensor], Tensor] | None = None
    state_value: None = None

    @cached_property
    def _before(self) -> Dense:
        return self._values(self._answers_before)

    @cached_property
    @torch.no_grad()
    def following(self) -> Dense:
        """The answers at the state that the step led to, without gradient."""
        return self._values(self._answers_after)

    @cached_property
    def _both(self) -> Dense:
        return Dense(torch.cat([self._before.values.detach(), self.following.values[:, -1:]], dim=1))

    @cached_property
    def _answers_before(self) -> Float[Tensor, "B N A *K"]:
        return self._read(self.observations.before)

    @cached_property
    @torch.no_grad()
    def _answers_after(self) -> Float[Tensor, "B N A *K"]:
        return self._read(self.observations.after)

    def _read(self, observations: Shaped[Tensor, "B N *shape"]) -> Float[Tensor, "B N A *K"]:
        answers: Tensor = self.network(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        return answers

    def _values(self, answers: Float[Tensor, "B N A *K"]) -> Dense:
        return Dense(answers if self.mean is None else self.mean(answers))

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
        return self._before.values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def log_probability(self, actions: Int[Tensor, "B N"], samples: int) -> Float[Tensor, "B N"]:
        """The taken actions' log-probability under the softmax policy; dense, so `samples` changes nothing."""
        return self.at(actions) - self._before.values.logsumexp(-1)

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
