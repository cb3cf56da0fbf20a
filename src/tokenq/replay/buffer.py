"""The replay: a bounded, ordered store of episodes that updates draw from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from tokenq.errors import ConfigError, DataError
from tokenq.replay.support import Support
from tokenq.types import Episode


@runtime_checkable
class Sampler(Protocol):
    """How likely each stored episode is, and how strongly the learner corrects for it."""

    def probabilities(self, age: Float[np.ndarray, "n"], priority: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """Probabilities that sum to 1; `age` is the number of newer episodes, `priority` a number >= 0."""

    def correction(self, update: int) -> float:
        """Exponent of the importance weight at this update, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Drawn episodes with their identities in the replay and importance weights in (0, 1]."""

    episodes: list[Episode]
    index: Int64[np.ndarray, "B"]
    weight: Float32[np.ndarray, "B"]


class Replay:
    """Episodes from oldest to newest, within two capacities; the oldest leave first.

    Every episode has an identity, 0, 1, 2, ... in order of arrival, that is never given again. `capacity_episodes` and
    `capacity_tokens` (all tokens count, prompts and sources too) are >= 1, or None for no bound.
    """

    def __init__(self, capacity_episodes: int | None, capacity_tokens: int | None, sampler: Sampler) -> None:
        for name, capacity in (("capacity_episodes", capacity_episodes), ("capacity_tokens", capacity_tokens)):
            if capacity is not None and capacity < 1:
                raise ConfigError(f"{name}: got {capacity}, expected a number >= 1, or null for no bound")
        self._capacity_episodes = capacity_episodes
        self._capacity_tokens = capacity_tokens
        self._sampler = sampler
        self._episodes: list[Episode] = []
        self._priorities = np.empty(0)
        # Schaul et al. 2016, algorithm 1: the first priority is 1.
        self._highest = 1.0
        self._added = 0
        self._tokens = 0
        self._support = Support()

    def __len__(self) -> int:
        """Number of episodes stored now."""
        return len(self._episodes)

    @property
    def tokens(self) -> int:
        """Number of tokens stored now."""
        return self._tokens

    @property
    def added(self) -> int:
        """Number of episodes ever added: also the identity that comes next."""
        return self._added

    @property
    def first(self) -> int:
        """Identity of the oldest stored episode; `added` if there is none."""
        return self._added - len(self._episodes)

    @property
    def episodes(self) -> Sequence[Episode]:
        """The stored episodes, oldest first."""
        return tuple(self._episodes)

    @property
    def priorities(self) -> Float64[np.ndarray, "n"]:
        """A copy of the priorities, oldest episode first."""
        return self._priorities.copy()

    @property
    def highest_priority(self) -> float:
        """The highest priority ever set: new episodes start with it."""
        return self._highest

    def add(self, episodes: Sequence[Episode]) -> list[int]:
        """Stores the episodes, lets the oldest go where a capacity is exceeded, and returns the new identities.

        Raises DataError, and stores nothing, if one episode alone has more tokens than `capacity_tokens`.
        """
        return self._append(episodes, np.full(len(episodes), self._highest))

    def restore(
        self, episodes: Sequence[Episode], priorities: Float64[np.ndarray, "n"], highest: float, added: int
    ) -> None:
        """Fills an empty replay with what another one held; the newest episode gets the identity added - 1."""
        if self._added:
            raise ValueError(f"restore needs an empty replay, got one with {self._added} episodes added")
        self._added = added - len(episodes)
        self._highest = highest
        self._append(episodes, priorities)

    def sample(self, n: int, rng: np.random.Generator, update: int) -> Sample:
        """Draws n episodes: all different while n <= len(self), with repetition otherwise.

        Weights are (len * p)^-correction over their largest value in the batch (Schaul et al. 2016, section 3.4).
        Raises DataError if the replay is empty.
        """
        stored = len(self._episodes)
        if stored == 0:
            raise DataError("the replay is empty: add at least one episode before the first update")
        age = np.arange(stored - 1, -1, -1, dtype=np.float64)
        p = self._sampler.probabilities(age, self._priorities)
        position = rng.choice(stored, size=n, replace=n > stored, p=p)
        weight = (stored * p[position]) ** -self._sampler.correction(update)
        return Sample(
            episodes=[self._episodes[i] for i in position],
            index=(self.first + position).astype(np.int64),
            weight=(weight / weight.max()).astype(np.float32),
        )

    def set_priorities(self, index: Int[np.ndarray, "B"], priority: Float[np.ndarray, "B"]) -> None:
        """Sets the priorities (>= 0, e.g. mean |TD error|) of these identities; those that have left are ignored."""
        if not (np.isfinite(priority) & (priority >= 0)).all():
            raise DataError(f"priorities: got {priority}, expected finite numbers >= 0")
        position = index - self.first
        stored = (position >= 0) & (position < len(self._episodes))
        self._priorities[position[stored]] = priority[stored]
        self._highest = max(self._highest, float(np.max(priority, initial=0.0)))

    def stored(self, index: Int[np.ndarray, "B"]) -> list[Episode]:
        """The episodes with these identities, which must all be stored."""
        return [self._episodes[i - self.first] for i in index]

    def unseen_share(
        self, episodes: Sequence[Episode], greedy: Int[np.ndarray, "B N"], decided: Bool[np.ndarray, "B N"]
    ) -> float:
        """Share (0 to 1) of the greedy actions at decided states that no stored episode takes after the same tokens.

        Row b of `greedy` and `decided` belongs to `episodes[b]`; NaN if `decided` marks nothing.
        """
        return self._support.unseen_share(episodes, greedy, decided)

    def _append(self, episodes: Sequence[Episode], priorities: Float64[np.ndarray, "n"]) -> list[int]:
        self._check_sizes(episodes)
        identities = list(range(self._added, self._added + len(episodes)))
        for episode in episodes:
            self._support.add(episode)
        self._episodes.extend(episodes)
        self._priorities = np.concatenate([self._priorities, priorities])
        self._added += len(episodes)
        self._tokens += sum(len(episode) for episode in episodes)
        self._evict()
        return identities

    def _check_sizes(self, episodes: Sequence[Episode]) -> None:
        longest = max((len(episode) for episode in episodes), default=0)
        if self._capacity_tokens is not None and longest > self._capacity_tokens:
            raise DataError(
                f"capacity_tokens: got {self._capacity_tokens}, expected at least {longest}, "
                "the length of the longest episode; raise capacity_tokens or shorten the episode"
            )

    def _evict(self) -> None:
        leaving, tokens = 0, self._tokens
        while self._over(len(self._episodes) - leaving, tokens):
            tokens -= len(self._episodes[leaving])
            leaving += 1
        for episode in self._episodes[:leaving]:
            self._support.remove(episode)
        del self._episodes[:leaving]
        self._priorities = self._priorities[leaving:]
        self._tokens = tokens

    def _over(self, episodes: int, tokens: int) -> bool:
        too_many = self._capacity_episodes is not None and episodes > self._capacity_episodes
        too_long = self._capacity_tokens is not None and tokens > self._capacity_tokens
        return too_many or too_long
