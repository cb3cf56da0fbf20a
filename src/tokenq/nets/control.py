"""Networks of control tasks: an observation in, the value of each action out, or the distribution of its return.

Letters: B sequences of N steps, M observations, A actions.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.action_values import Dense
from tokenq.nets.decoupled import Decoupled, Parts
from tokenq.nets.noisy import NoisyLinear
from tokenq.nets.readouts import Spread, readout
from tokenq.nets.step_values import StepValues
from tokenq.types import Batch, Spaces

TOGETHER = 2**24
"""Numbers of observations that are read at once."""


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
        linear = nn.Linear if self.noisy is None else partial(NoisyLinear, sigma=self.noisy)
        inputs = spaces.states or math.prod(spaces.shape)
        layers: list[nn.Module] = [OneHot(spaces.states) if spaces.states else Flat()]
        for _ in range(self.layers):
            layers += [linear(inputs, self.width), *([nn.LayerNorm(self.width)] if self.norm else []), nn.ReLU()]
            inputs = self.width
        return ControlQ(nn.Sequential(*layers, *readout(inputs, spaces, spread, self.dueling, linear)), spread)


class Flat(nn.Module):
    """Observations of any shape and type as one row of floats each."""

    def forward(self, observations: Shaped[Tensor, "M *shape"]) -> Float[Tensor, "M D"]:
        """One row for each observation."""
        return observations.float().flatten(1)


class OneHot(nn.Module):
    """Discrete observations as unit vectors."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.states = states

    def forward(self, observations: Int[Tensor, "M"]) -> Float[Tensor, "M states"]:
        """One row of the unit matrix for each observation."""
        return nn.functional.one_hot(observations.long(), self.states).float()


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

    @property
    def parts(self) -> Parts | None:
        """The readout of actions with several parts; None if they have one."""
        last = self.layers[-1]
        return last if isinstance(last, Parts) else None

    def values(self, observations: Shaped[Tensor, "M *shape"]) -> Float[Tensor, "M *D A"]:
        """Q of every action; for actions of several parts, what each choice of each part adds to Q."""
        values: Tensor = self.layers(observations)
        return values if self.spread is None else self.spread.mean(values)

    def forward(self, batch: Batch) -> StepValues:
        """Answers to every question about the batch's states, each read when it is first asked for."""
        seen = batch.observations
        return StepValues(partial(self._answers, seen.before), partial(self._answers, seen.after), self._read)

    def together(self, batches: Sequence[Batch]) -> list[StepValues]:
        """The same for batches of one shape; the first that is asked reads the states of all, without gradient.

        A network with noise reads each batch when it is asked about it: its draws belong to that moment.
        """
        if any(isinstance(layer, NoisyLinear) for layer in self.modules()):
            return [self(batch) for batch in batches]

        def shared(parts: Sequence[Tensor]) -> list[Callable[[], Tensor]]:
            whole = cache(torch.no_grad()(lambda: self._answers(torch.cat(list(parts))).chunk(len(parts))))
            return [lambda i=i: whole()[i] for i in range(len(parts))]  # type: ignore[misc]

        before = shared([batch.observations.before for batch in batches])
        after = shared([batch.observations.after for batch in batches])
        return [StepValues(b, a, self._read) for b, a in zip(before, after, strict=True)]

    def _answers(self, observations: Shaped[Tensor, "B N *shape"]) -> Float[Tensor, "B N *answers"]:
        rows = observations.flatten(0, 1)
        parts = rows.split(max(1, TOGETHER // max(1, rows[0].numel())))
        answers = self.layers(rows) if len(parts) == 1 else torch.cat([self.layers(part) for part in parts])
        shaped: Tensor = answers.unflatten(0, observations.shape[:2])
        return shaped

    def _read(self, answers: Float[Tensor, "B N *answers"]) -> Dense | Decoupled:
        if self.parts is not None:
            return self.parts.answers(answers)
        return Dense(answers if self.spread is None else self.spread.mean(answers))

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "ControlQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares the others."""
        shared: dict[int, Any] = {id(p): p for name, p in self.named_parameters() if not lagged(name)}
        twin = copy.deepcopy(self, shared)
        for name, parameter in twin.named_parameters():
            if lagged(name):
                parameter.requires_grad_(False)
        return twin
