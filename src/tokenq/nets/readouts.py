"""The last layers of agents' networks: plain, dueling, for distributions, for actions of several parts.

Letters: M observations, H hidden units, A actions, K numbers that describe a distribution.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.nets.decoupled import Parts
from tokenq.types import Spaces


@runtime_checkable
class Spread(Protocol):
    """How K numbers describe the distribution of an action's return."""

    @property
    def outputs(self) -> int:
        """K, >= 1."""

    def mean(self, answers: Float[Tensor, "*any K"]) -> Float[Tensor, "*any"]:
        """The mean of each distribution: Q."""


class Dueling(nn.Module):
    """A state value and advantages whose mean is 0, each of K numbers (Hessel et al. 2018, arXiv 1710.02298)."""

    def __init__(self, value: nn.Module, advantage: nn.Module) -> None:
        super().__init__()
        self.value = value
        self.advantage = advantage

    def forward(self, hidden: Float[Tensor, "M H"]) -> Float[Tensor, "M AK"]:
        """The answers of every action, one action after the other."""
        value = self.value(hidden)
        advantage = self.advantage(hidden).unflatten(-1, (-1, value.shape[-1]))
        answers: Tensor = value.unsqueeze(-2) + advantage - advantage.mean(-2, keepdim=True)
        return answers.flatten(-2)


def readout(
    width: int,
    spaces: Spaces,
    spread: Spread | None,
    dueling: bool,
    linear: Callable[[int, int], Any] = nn.Linear,
) -> list[nn.Module]:
    """Layers from so many hidden units to answers: [M, A], with a spread [M, A, K], with several parts [M, D, A]."""
    outputs = 1 if spread is None else spread.outputs
    if len(spaces.heads) > 1:
        if spread is not None:
            got = f"got distributions for actions of {len(spaces.heads)} parts"
            raise ConfigError(f"objective: {got}, expected actions of one part; use double_dqn")
        return [Parts(spaces.heads, linear(width, sum(spaces.heads)), linear(width, 1) if dueling else None)]
    values = linear(width, spaces.actions * outputs)
    last: nn.Module = Dueling(linear(width, outputs), values) if dueling else values
    return [last] if spread is None else [last, nn.Unflatten(-1, (spaces.actions, outputs))]
