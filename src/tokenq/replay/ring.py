"""Steps of some environments in a ring in which every observation is stored once.

Letters: M environments, n steps, k frames that the network sees together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64, Shaped
from torch import Tensor

from tokenq.replay.last_observations import LastObservations
from tokenq.types import Steps

GOES_ON, TERMINATED, TRUNCATED = range(3)
STEP_BYTES = 13
"""Bytes of a step besides what is observed."""
FIELDS = ("observations", "actions", "rewards", "ends")


class StepRing:
    """The newest `times` steps of every environment, and `frames` − 1 more for the stacks of the oldest.

    Steps have identities, which count them in order of arrival, environment after environment. What a step led to is
    the observation before the next one of its environment; it is kept apart where the episode ended, and at the
    newest step. With more than one frame, steps come with stacks [M, k, *shape], of which the last frame is stored.
    """

    def __init__(self, times: int, frames: int, example: Shaped[np.ndarray, "M *shape"]) -> None:
        self.times, self.frames, self.number = times, frames, len(example)
        self.size = (times + frames - 1) * self.number
        self.added = 0
        """Steps ever added."""
        self.current = example.astype(np.float32 if example.dtype == np.float64 else example.dtype)
        """What the newest steps led to."""
        self.observations = np.zeros((self.size, *example.shape[1:]), self.current.dtype)
        self.actions = np.zeros(self.size, np.int64)
        self.rewards = np.zeros(self.size, np.float32)
        self.ends = np.zeros(self.size, np.uint8)
        self._last = LastObservations(self.current)

    @property
    def first(self) -> int:
        """Identity of the oldest step that can be drawn."""
        return max(0, self.added - self.times * self.number)

    @property
    def oldest(self) -> int:
        """Identity of the oldest step that is stored."""
        return max(0, self.added - self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        arrays: list[np.ndarray] = [getattr(self, name) for name in (*FIELDS, "current")]
        return sum(array.nbytes for array in arrays) + self._last.nbytes

    def slot(self, index: Int64[np.ndarray, "*n"]) -> Int64[np.ndarray, "*n"]:
        """Where the steps with these identities are stored."""
        slots: np.ndarray = index % self.size
        return slots

    def add(self, steps: Steps) -> None:
        """Take in one step of every environment."""
        begin = self.added % self.size
        new = slice(begin, begin + self.number)
        self.observations[new] = self._newest(steps.before)
        self.actions[new] = steps.actions
        self.rewards[new] = steps.rewards
        self.ends[new] = GOES_ON
        self.current[:] = self._newest(steps.after)
        if steps.ended.any():
            self.ends[new] = np.where(steps.terminated, TERMINATED, steps.truncated * TRUNCATED)
            ended = np.flatnonzero(steps.ended)
            self._last.add(self.added + ended, self.current[ended])
        self.added += self.number
        self._last.forget(self.oldest)

    def before(self, index: Int64[np.ndarray, "n"]) -> Shaped[np.ndarray, "n *shape"]:
        """The observations, or stacks of them, that the actions were chosen from."""
        return self._seen(index, self._age(index))

    def after(self, index: Int64[np.ndarray, "n"]) -> Shaped[np.ndarray, "n *shape"]:
        """The observations, or stacks of them, that the steps led to."""
        seen = self._seen(index + self.number, np.minimum(self._age(index) + 1, self.frames - 1))
        newest = self._newest(seen)
        ended = np.flatnonzero(self.ends.take(self.slot(index), mode="clip"))
        newest[ended] = self._last[index[ended]]
        nothing_follows = np.flatnonzero(index >= self.added - self.number)
        newest[nothing_follows] = self.current[index[nothing_follows] % self.number]
        return seen

    def piece(self, first: int, stop: int) -> dict[str, Any]:
        """The times from `first` to before `stop`, of which each is a step of every environment, for a checkpoint."""
        index = np.arange(first * self.number, stop * self.number)
        arrays = {name: getattr(self, name)[self.slot(index)] for name in FIELDS}
        arrays["last"] = self._last[index[arrays["ends"] > 0]]
        return {"first": first, **{name: torch.from_numpy(array) for name, array in arrays.items()}}

    def fill(self, piece: Mapping[str, Any]) -> None:
        """Put a piece back, but for what has left since; older pieces come first, and `added` is set before."""
        index = int(piece["first"]) * self.number + np.arange(len(piece["ends"]))
        kept = index >= self.oldest
        for name in FIELDS:
            getattr(self, name)[self.slot(index[kept])] = _numpy(piece[name])[kept]
        ended = _numpy(piece["ends"]) > 0
        self._last.add(index[ended & kept], _numpy(piece["last"])[kept[ended]])

    def _newest(self, seen: Shaped[np.ndarray, "n *shape"]) -> Shaped[np.ndarray, "n *frame"]:
        return seen if self.frames == 1 else seen[:, -1]

    def _age(self, index: Int64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """How many frames of the same episode came before, at most k − 1."""
        age, same = np.zeros(len(index), np.int64), np.ones(len(index), bool)
        for back in range(1, self.frames):
            earlier = index - back * self.number
            same &= (earlier >= 0) & (self.ends.take(self.slot(earlier), mode="clip") == GOES_ON)
            age += same
        return age

    def _seen(self, index: Int64[np.ndarray, "n"], age: Int[np.ndarray, "n"]) -> Shaped[np.ndarray, "n *shape"]:
        """Observations, or stacks of them in which the first frame of an episode stands for those before it."""
        if self.frames > 1:
            back = np.minimum(np.arange(self.frames)[::-1], age[:, None])
            index = index[:, None] - back * self.number
        return self.observations.take(self.slot(index), axis=0, mode="clip")


def _numpy(tensor: Tensor) -> Shaped[np.ndarray, "..."]:
    array: np.ndarray = tensor.numpy()
    return array
