"""Where zero lies: the offset and the scale that turn rewards into what is learned.

The value of a token that nobody tried stays near its start, zero. Offline, zero should therefore be the worst outcome
(untried is bad); with fresh text, the average one. The scale belongs to every reward. The offset o belongs to every
return: each decision pays what the value after it lacks of it, o·(1 − discount), which with γ = 1 is all of it where an
episode terminates and nothing elsewhere. Such a potential changes no policy (Ng et al. 1999).

Returns of one prompt differ from those of another more than good completions from bad ones where prompts are unequal.
Online, with several completions a prompt, what the others got can be taken off before an episode is stored.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tokenq.types import Episode


@dataclass
class ReturnStatistics:
    """Running statistics of episode returns (Welford's method), and extremes over all their decisions: run state."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    smallest: float = math.inf
    largest: float = -math.inf

    def observe(self, returns: Iterable[Float[np.ndarray, "N"]]) -> None:
        """Take in new episodes: the returns from each of their decisions on, the first of which is the episode's."""
        for values in returns:
            value = float(values[0])
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)
            self.smallest = min(self.smallest, float(values.min()))
            self.largest = max(self.largest, float(values.max()))

    @property
    def deviation(self) -> float:
        """Standard deviation of the returns; 0 with fewer than two of them."""
        return math.sqrt(self.squares / self.count) if self.count > 1 else 0.0


def returns_from(episode: Episode, gamma: float, per_turn: bool) -> Float[np.ndarray, "N"]:
    """The discounted return from each decision on, of what was rated; γ for each turn or for each decision."""
    discounts = gamma ** episode.closes.astype(float) if per_turn else np.full(len(episode.rewards), gamma)
    returns: Float[np.ndarray, N] = np.nan_to_num(episode.rewards)
    for n in reversed(range(len(returns) - 1)):
        returns[n] += discounts[n] * returns[n + 1]
    return returns


@dataclass(frozen=True)
class RawRewards:
    """Rewards as they are."""

    def affine(self, statistics: ReturnStatistics) -> tuple[float, float]:
        """(offset, scale): a return g is learned as scale·g + offset."""
        return 0.0, 1.0


@dataclass(frozen=True)
class WorstIsZero:
    """Shift returns so that the worst one seen is 0: for learning from logs."""

    def affine(self, statistics: ReturnStatistics) -> tuple[float, float]:
        """(offset, scale): a return g is learned as scale·g + offset."""
        return (-statistics.smallest if statistics.count else 0.0), 1.0


@dataclass(frozen=True)
class Standardise:
    """Returns of mean 0 and deviation 1 over all episodes seen so far: for learning from fresh text."""

    floor: float = 1e-3
    """Smallest deviation to divide by, in reward units, > 0."""

    def affine(self, statistics: ReturnStatistics) -> tuple[float, float]:
        """(offset, scale): a return g is learned as scale·g + offset."""
        scale = 1 / max(statistics.deviation, self.floor)
        return -statistics.mean * scale, scale


@dataclass(frozen=True)
class PerPrompt:
    """Each return less the mean of its prompt's other completions, over the deviation of these differences.

    A constant for each prompt moves V and no policy; what is left varies less (Kool et al. 2019; Ahmadian et al. 2024,
    arXiv 2402.14740, section 2.2). The rollout takes the mean off: the differences are what the replay holds.
    """

    floor: float = 1e-3
    """Smallest deviation to divide by, in reward units, > 0."""

    def affine(self, statistics: ReturnStatistics) -> tuple[float, float]:
        """(offset, scale) for returns that are differences already."""
        return 0.0, 1 / max(statistics.deviation, self.floor)
