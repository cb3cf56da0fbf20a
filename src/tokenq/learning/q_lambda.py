"""Q(λ): returns that follow the data for a while, with the greedy maximum wherever they leave it."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenq.errors import ConfigError, DataError
from tokenq.learning.losses import Huber, SquaredError
from tokenq.learning.objectives import Loss, Target
from tokenq.learning.values import ActionValues, Raw
from tokenq.ops.returns import lambda_returns
from tokenq.types import Batch


@dataclass(frozen=True)
class QLambda:
    """Peng's Q(λ) on sequences of steps, as PQN uses it.

    G_n = r_n + γ·c_n·[(1 − λ_n)·max_a Q̄(s_{n+1}, a) + λ_n·G_{n+1}], with λ_n = λ, but 0 at the end of an episode and of
    the sequence (Peng & Williams 1996; Gallici et al. 2025, arXiv 2407.04811). The trace is not cut at actions that are
    not greedy: with λ > 0 exploration is part of the values.
    """

    gamma: float = 0.99
    """Discount per decision, in [0, 1]."""
    lam: float = 0.65
    """λ in [0, 1]: 0 bootstraps at every step, 1 follows the data to the end of the episode or of the sequence."""
    error: SquaredError | Huber = field(default_factory=SquaredError)
    """How far a value is from its target."""

    values: ClassVar[Raw] = Raw()
    """Q is what the network answers."""
    plausible: ClassVar[int] = 0
    """No candidate tokens are stored: the maximum runs over all actions."""

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected a number in [0, 1]")

    def loss(self, online: ActionValues, target: Target, batch: Batch) -> Loss:
        """The loss of every decision; raises `DataError` for sequences that do not say where episodes ended."""
        q = self.values.q(online, batch)
        lam = self.lam * _goes_on(batch).float()
        best = target().following.maximum[0]
        goal = lambda_returns(batch.rewards, batch.discounts(self.gamma), best, torch.zeros_like(best), lam)
        return Loss(self.error.between(q, goal), q.detach(), goal)

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The largest Q of each state."""
        return values.maximum[0]


def _goes_on(batch: Batch) -> Bool[Tensor, "B N"]:
    """After which steps the sequence goes on within the episode."""
    ended = batch.observations.ended
    if ended is None and batch.decided.shape[1] > 1:
        raise DataError("got sequences of steps that do not say where episodes ended; fill Observations.ended")
    goes_on = torch.ones_like(batch.decided) if ended is None else ~ended
    goes_on[:, -1] = False
    return goes_on
