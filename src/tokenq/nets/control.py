"""Networks of control tasks: an observation in, one value for each action out.

Letters: B sequences of N steps, M observations, A actions.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.action_values import Dense
from tokenq.nets.decoupled import Decoupled, Parts
from tokenq.types import Batch, Observations, Spaces


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers with ReLU between them; discrete observations are read one-hot."""

    layers: int = 2
    """Hidden layers, >= 1."""
    width: int = 256
    """Units of each, >= 1."""
    dueling: bool = False
    """Q = V + A − mean A from two output layers (Wang et al. 2016, arXiv 1511.06581, eq. 9)."""

    def __post_init__(self) -> None:
        if self.layers < 1 or self.width < 1:
            raise ConfigError(f"layers, width: got {self.layers}, {self.width}, expected integers >= 1")

    def build(self, spaces: Spaces) -> "ControlQ":
        """A network with fresh weights for these observations and actions."""
        inputs, actions = spaces.states or math.prod(spaces.shape), sum(spaces.heads)
        body: list[nn.Module] = [OneHot(spaces.states) if spaces.states else nn.Flatten()]
        for _ in range(self.layers):
            body += [nn.Linear(inputs, self.width), nn.ReLU()]
            inputs = self.width
        if len(spaces.heads) > 1:
            state = nn.Linear(inputs, 1) if self.dueling else None
            return ControlQ(nn.Sequential(*body, Parts(spaces.heads, nn.Linear(inputs, actions), state)))
        readout = Dueling(inputs, actions) if self.dueling else nn.Linear(inputs, actions)
        return ControlQ(nn.Sequential(*body, readout))


class OneHot(nn.Module):
    """Discrete observations as unit vectors."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.states = states

    def forward(self, observations: Int[Tensor, "B"]) -> Float[Tensor, "B states"]:
        """One row of the unit matrix for each observation."""
        return nn.functional.one_hot(observations.long(), self.states).float()


class Dueling(nn.Module):
    """A state value and advantages whose mean is 0."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, 1)
        self.advantage = nn.Linear(inputs, actions)

    def forward(self, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        """Q of every action."""
        advantage = self.advantage(hidden)
        values: Tensor = self.value(hidden) + advantage - advantage.mean(-1, keepdim=True)
        return values


class ControlQ(nn.Module):
    """Q of every action of an observation; answers a batch as `StepValues`."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def parts(self) -> Parts | None:
        """The readout of actions with several parts; None if they have one."""
        readout = self.layers[-1]
        return readout if isinstance(readout, Parts) else None

    def values(self, observations: Shaped[Tensor, "M *shape"]) -> Float[Tensor, "M *D A"]:
        """Q of every action; for actions of several parts, what each choice of each part adds to Q."""
        read = observations if isinstance(self.layers[0], OneHot) else observations.float()
        values: Tensor = self.layers(read)
        return values

    def forward(self, batch: Batch) -> "StepValues":
        """Answers to every question about the batch's two states, each read when it is first asked for."""
        return StepValues(self.values, batch.observations, Dense if self.parts is None else self.parts.answers)

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
    answers: Callable[[Tensor], Dense | Decoupled] = Dense
    state_value: None = None

    @cached_property
    def _before(self) -> Dense | Decoupled:
        return self.answers(self._read(self.observations.before))

    @cached_property
    @torch.no_grad()
    def following(self) -> Dense | Decoupled:
        """The answers at the state that the step led to, without gradient."""
        return self.answers(self._read(self.observations.after))

    @cached_property
    def _both(self) -> Dense | Decoupled:
        return self.answers(torch.cat([self._before.values.detach(), self.following.values[:, -1:]], dim=1))

    def _read(self, observations: Shaped[Tensor, "B N *shape"]) -> Float[Tensor, "B N *D A"]:
        values: Tensor = self.network(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        return values

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
