"""How far a value is from its target: two answers, each a frozen dataclass whose fields are its configuration."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.ops import losses


@dataclass(frozen=True)
class SquaredError:
    """½·(Q − y)²: its minimum is the mean of the targets."""

    def between(self, q: Float[Tensor, "B N"], goal: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The loss of every decision."""
        return losses.squared_error(q, goal)


@dataclass(frozen=True)
class Huber:
    """The same for small errors and a straight line for large ones: the clipped error of Mnih et al. 2015."""

    delta: float = 1.0
    """Error from which on the gradient no longer grows, in scaled reward, > 0."""

    def __post_init__(self) -> None:
        if not 0 < self.delta < float("inf"):
            raise ConfigError(f"delta: got {self.delta}, expected a finite number > 0")

    def between(self, q: Float[Tensor, "B N"], goal: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The loss of every decision."""
        return losses.huber(q, goal, self.delta)
