"""Which stored episodes an update sees: three answers, each a frozen dataclass whose fields are its configuration.

A sampler gives every stored episode a probability and says how strongly the learner corrects for it
(`correction`, the exponent of the importance weight; 0 means every weight is 1).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tokenq.errors import ConfigError

# 2 ** -1000 is still a normal float64: very old episodes stay possible, so that a batch can always be filled.
_MAX_HALVINGS = 1000.0


@dataclass(frozen=True)
class Uniform:
    """Every stored episode is equally likely (Mnih et al. 2015, "Human-level control through deep RL")."""

    def probabilities(self, age: Float[np.ndarray, "n"], priority: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The same probability 1/n for each of the n episodes."""
        return np.full(len(age), 1.0 / len(age))

    def correction(self, update: int) -> float:
        """Exponent of the importance weight: 0, there is nothing to correct."""
        return 0.0


@dataclass(frozen=True)
class Recent:
    """New episodes are more likely: the probability halves with every `half_life` newer episodes.

    The weights stay 1 on purpose. Which episodes are drawn decides where the squared error is small, not what it is
    zero for: the target of every objective is sound off policy, so a shifted draw brings no bias into it.
    """

    half_life: float = 64.0
    """Number of newer episodes after which an episode is drawn half as often; > 0."""

    def __post_init__(self) -> None:
        if not 0.0 < self.half_life < float("inf"):
            raise ConfigError(f"half_life: got {self.half_life}, expected a finite number of episodes > 0")

    def probabilities(self, age: Float[np.ndarray, "n"], priority: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Probabilities proportional to 2^(-age / half_life); `age` counts newer episodes, 0 is the newest."""
        return _normalised(np.exp2(-np.minimum(age / self.half_life, _MAX_HALVINGS)))

    def correction(self, update: int) -> float:
        """Exponent of the importance weight: 0, the draw is skewed on purpose (see the class)."""
        return 0.0


@dataclass(frozen=True)
class Prioritised:
    """Episodes with a large TD error are more likely, and importance weights undo the skew.

    Schaul et al. 2016, "Prioritized Experience Replay", the proportional variant: P(i) = (p_i + epsilon)^alpha / sum
    (equation 1), w_i = (n P(i))^-beta divided by the largest weight of the batch (section 3.4).
    """

    alpha: float = 0.6
    """How much the priority counts; >= 0, where 0 is uniform."""

    beta: float = 0.4
    """Exponent of the importance weight at update 0; 0 (no correction) to 1 (full correction)."""

    beta_end: float = 1.0
    """Exponent of the importance weight after `anneal` updates; 0 to 1."""

    anneal: int = 1000
    """Number of updates over which beta moves in a straight line to beta_end; >= 1."""

    epsilon: float = 1e-3
    """Added to every priority, so that an episode without error is still drawn now and then; > 0."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < float("inf"):
            raise ConfigError(f"alpha: got {self.alpha}, expected a finite number >= 0")
        for name, value in (("beta", self.beta), ("beta_end", self.beta_end)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name}: got {value}, expected a number from 0 to 1")
        if self.anneal < 1:
            raise ConfigError(f"anneal: got {self.anneal}, expected a number of updates >= 1")
        if not 0.0 < self.epsilon < float("inf"):
            raise ConfigError(f"epsilon: got {self.epsilon}, expected a finite number > 0")

    def probabilities(self, age: Float[np.ndarray, "n"], priority: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Probabilities proportional to `mass`; `priority` is a TD error >= 0 per episode."""
        return _normalised(self.mass(priority))

    def mass(self, priority: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """(priority + epsilon)^alpha, to be drawn in proportion to."""
        mass: np.ndarray = (priority + self.epsilon) ** self.alpha
        return mass

    def correction(self, update: int) -> float:
        """Exponent of the importance weight at this update: beta, annealed linearly to beta_end."""
        return self.beta + (self.beta_end - self.beta) * min(1.0, update / self.anneal)


def _normalised(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    return mass / float(mass.sum())
