"""Which actions the stored episodes take, and after which tokens: the support of the data.

A Q-value for an action that no episode takes was never trained; `Support` tells how often a greedy policy asks for one.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from tokenq.types import Episode

# Odd, hence invertible modulo 2^64: the golden ratio's bits (Steele et al. 2014, "Fast splittable PRNGs").
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))


class Support:
    """Counts (token prefix, action) pairs of the episodes present now.

    A pair is one 64-bit hash, so that a decision costs one dictionary entry whatever the length of its prefix. Two
    different pairs share a hash with a chance of about 2^-64 each.
    """

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def add(self, episode: Episode) -> None:
        """Counts each decision of the episode."""
        self._count.update(_taken(episode).tolist())

    def remove(self, episode: Episode) -> None:
        """Takes back an earlier `add` of the same episode."""
        for key in _taken(episode).tolist():
            self._count[key] -= 1
            if self._count[key] == 0:
                del self._count[key]

    def unseen_share(
        self, episodes: Sequence[Episode], greedy: Int[np.ndarray, "B N"], decided: Bool[np.ndarray, "B N"]
    ) -> float:
        """Share (0 to 1) of the greedy actions that no counted episode takes after the same tokens.

        Row b of `greedy` holds the greedy action at each decision of `episodes[b]`; only entries with `decided` count.
        NaN if `decided` marks nothing.
        """
        seen = [
            key in self._count
            for episode, actions, real in zip(episodes, greedy, decided, strict=True)
            for key in _asked(episode, actions, real).tolist()
        ]
        return 1.0 - sum(seen) / len(seen) if seen else float("nan")


def _taken(episode: Episode) -> NDArray[np.uint64]:
    every = np.arange(len(episode.decisions))
    return _since(episode, len(episode.source) + episode.decisions, every)


def _asked(episode: Episode, actions: NDArray[np.integer], real: NDArray[np.bool_]) -> NDArray[np.uint64]:
    column = np.flatnonzero(real)
    position: NDArray[np.intp] = len(episode.source) + episode.decisions[column]
    powers = _powers(_BASE, len(episode))[position - _start(episode, column)]
    asked: NDArray[np.uint64] = _since(episode, position - 1, column) + _mixed(actions[column]) * powers
    return asked


def _since(episode: Episode, last: NDArray[np.intp], column: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Hash of what is read up to each position `last`, from where the policy begins to read at that decision."""
    start = _start(episode, column)
    before: NDArray[np.uint64] = np.pad(_prefixes(_read(episode)), (1, 0))
    read: NDArray[np.uint64] = (before[last + 1] - before[start]) * _powers(_INVERSE, len(episode) + 1)[start]
    return read


def _start(episode: Episode, column: NDArray[np.intp]) -> NDArray[np.intp]:
    since = episode.starts[column]
    start: NDArray[np.intp] = np.where(since > 0, len(episode.source) + since, 0)
    return start


def _read(episode: Episode) -> NDArray[np.integer]:
    """Everything the model reads, in order."""
    return np.concatenate([episode.source, episode.tokens])


def _prefixes(tokens: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash of tokens[:i+1] for every i: the sum of mixed(token_j) * base^j modulo 2^64."""
    return np.cumsum(_mixed(tokens) * _powers(_BASE, len(tokens)), dtype=np.uint64)


def _powers(base: np.uint64, length: int) -> NDArray[np.uint64]:
    """From the power 0 on."""
    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(max(length - 1, 0), base)]), dtype=np.uint64)


def _mixed(tokens: NDArray[np.integer]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: token ids are small and regular, their hashes must not be."""
    z = (tokens.astype(np.uint64) + np.uint64(1)) * _BASE
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
