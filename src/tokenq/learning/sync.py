"""When and how a target network follows the online network. Every period is counted in updates.

A rule is a frozen dataclass. `move` moves the lagging tensors of `pairs` in place and returns the mean share by which
each of them moved (1 a full copy, 0 not at all), from which the target's age is kept. `rest` says for how many updates
the target stays as it is: what it answers until then can be computed at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tokenq.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Pair:
    """A tensor of the online network and its lagging copy."""

    name: str
    online: Tensor
    lagging: Tensor


@dataclass(frozen=True)
class Clock:
    """What a rule may know.

    The update that was just made (from 1), the updates since the last sync, how many syncs there were, and the relative
    distance between the two networks (computed when asked).
    """

    update: int
    since: int
    syncs: int
    gap: Callable[[], float]


@dataclass(frozen=True)
class NoTarget:
    """No target network: the online network, without gradient, bootstraps from itself."""

    tag: ClassVar[str] = "none"

    def rest(self, clock: Clock) -> int:
        """One update: the online network moves with each."""
        return 1

    def move(self, clock: Clock, pairs: Sequence[Pair], generator: torch.Generator) -> list[float]:
        """Nothing lags, nothing moves."""
        return [0.0] * len(pairs)


@dataclass(frozen=True)
class Periodic:
    """A full copy every so many updates (Mnih et al. 2015)."""

    every: int = 100
    """Updates between two copies."""

    def __post_init__(self) -> None:
        _at_least_one("every", self.every)

    def rest(self, clock: Clock) -> int:
        """The updates that are left of the period."""
        return self.every - clock.update % self.every

    def move(self, clock: Clock, pairs: Sequence[Pair], generator: torch.Generator) -> list[float]:
        """Copy if the period is over."""
        return _copy(pairs) if clock.update % self.every == 0 else [0.0] * len(pairs)


@dataclass(frozen=True)
class Polyak:
    """An exponential average, θ̄ ← (1 − τ)·θ̄ + τ·θ after every update (Lillicrap et al. 2016, Algorithm 1).

    Its mean lag is (1 − τ)/τ updates, that of `Periodic` (every − 1)/2.
    """

    tau: float = 0.05
    """Share of the online network taken over at each update, in (0, 1]."""

    def __post_init__(self) -> None:
        _probability("tau", self.tau)

    def rest(self, clock: Clock) -> int:
        """One update."""
        return 1

    def move(self, clock: Clock, pairs: Sequence[Pair], generator: torch.Generator) -> list[float]:
        """Blend every tensor."""
        for pair in pairs:
            pair.lagging.lerp_(pair.online, self.tau)
        return [self.tau] * len(pairs)


@dataclass(frozen=True)
class RandomPartial:
    """Every so many updates each part is copied with some probability, or left alone.

    Its expected target is that of `Polyak` with τ = probability, but parts of different age stand side by side.
    """

    probability: float = 0.1
    """Chance of each part to be copied, in (0, 1]."""
    every: int = 1
    """Updates between two draws."""
    granularity: Literal["element", "tensor", "layer"] = "tensor"
    """What is drawn for: each number, each parameter tensor, or each module that owns tensors."""

    def __post_init__(self) -> None:
        _probability("probability", self.probability)
        _at_least_one("every", self.every)

    def rest(self, clock: Clock) -> int:
        """The updates until the next draw."""
        return self.every - clock.update % self.every

    def move(self, clock: Clock, pairs: Sequence[Pair], generator: torch.Generator) -> list[float]:
        """Copy the parts that were drawn."""
        if clock.update % self.every:
            return [0.0] * len(pairs)
        if self.granularity == "element":
            return [self._copy_elements(pair, generator) for pair in pairs]
        parts = [p.name if self.granularity == "tensor" else p.name.rpartition(".")[0] for p in pairs]
        drawn = {part: float(torch.rand((), generator=generator)) < self.probability for part in dict.fromkeys(parts)}
        return [_copy([pair])[0] if drawn[part] else 0.0 for pair, part in zip(pairs, parts, strict=True)]

    def _copy_elements(self, pair: Pair, generator: torch.Generator) -> float:
        chosen = torch.rand(pair.online.shape, generator=generator).to(pair.online.device) < self.probability
        pair.lagging.copy_(torch.where(chosen, pair.online, pair.lagging))
        return float(chosen.float().mean())


@dataclass(frozen=True)
class Adaptive:
    """Full copies, frequent at first and rarer later; or earlier, as soon as the networks are too far apart.

    The period is `start` updates, then grows by the factor `growth` with every copy until it is `end`.
    """

    start: int = 10
    """First period, in updates."""
    end: int = 200
    """Longest period, in updates."""
    growth: float = 1.5
    """Factor of the period from one copy to the next, >= 1."""
    gap: float | None = None
    """Relative distance ‖θ − θ̄‖/‖θ‖ that triggers a copy at once; null: no such trigger."""

    def __post_init__(self) -> None:
        _at_least_one("start", self.start)
        if self.end < self.start:
            raise ConfigError(f"end: got {self.end}, expected at least start ({self.start})")
        if self.growth < 1:
            raise ConfigError(f"growth: got {self.growth}, expected a number >= 1")
        if self.gap is not None and self.gap <= 0:
            raise ConfigError(f"gap: got {self.gap}, expected a number > 0, or null for no trigger")

    def period(self, syncs: int) -> int:
        """The number of updates to wait after so many copies."""
        if syncs * math.log(self.growth) >= math.log(self.end / self.start):
            return self.end  # the power itself would overflow some day
        return int(self.start * self.growth**syncs)

    def rest(self, clock: Clock) -> int:
        """The updates that are left of the period; one where a gap may end it at any time."""
        return 1 if self.gap is not None else max(1, self.period(clock.syncs) - clock.since)

    def move(self, clock: Clock, pairs: Sequence[Pair], generator: torch.Generator) -> list[float]:
        """Copy if the period is over or the gap is too wide."""
        due = clock.since >= self.period(clock.syncs) or (self.gap is not None and clock.gap() > self.gap)
        return _copy(pairs) if due else [0.0] * len(pairs)


def _copy(pairs: Sequence[Pair]) -> list[float]:
    for pair in pairs:
        pair.lagging.copy_(pair.online)
    return [1.0] * len(pairs)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: got {value}, expected an integer >= 1")


def _probability(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(f"{name}: got {value}, expected a number in (0, 1]")
