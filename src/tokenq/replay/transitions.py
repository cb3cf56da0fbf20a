"""The replay of control tasks: a ring of steps, drawn as transitions over n steps or as sequences of N.

Letters: B items, N steps of each, R batches of a round, M environments.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from tokenq.errors import ConfigError, DataError
from tokenq.replay.ring import GOES_ON, TERMINATED, StepRing
from tokenq.replay.samplers import Prioritised, Uniform
from tokenq.replay.sum_tree import SumTree
from tokenq.types import Batch, Observations, Steps

TOGETHER = 2**26
"""Bytes of observations that are gathered at once."""
GOING_ON = np.array([1.0, 0.0, 1.0], np.float32)
"""What multiplies γ·V for each kind of end: GOES_ON, TERMINATED, TRUNCATED."""


class Transitions:
    """The newest steps of some environments, at most `capacity` in all.

    A transition over `n_step` steps has the reward r_0 + γ·r_1 + … and the observation it led to (Sutton 1988). It is
    shorter where its episode ended, and at the newest step: `continues` holds γ^(k−1) for its own length k, times 0 if
    the episode terminated, so that objectives multiply with γ once, as for one step. A truncated episode goes on.

    With `length` > 1 an item is so many steps in a row of one environment, whatever ends among them.

    What a step led to must be the observation before the next step of its environment, unless its episode ended there:
    it is stored once. With `frames` > 1 the observations of steps are stacks [M, frames, *shape], the newest last, and
    so are those of batches; single ones are stored (Mnih et al. 2015). Before the first observation of an episode, that
    one is repeated.
    """

    def __init__(
        self,
        capacity: int,
        n_step: int = 1,
        gamma: float = 0.99,
        sampler: Uniform | Prioritised | None = None,
        frames: int = 1,
        length: int = 1,
    ) -> None:
        if min(capacity, n_step, frames, length) < 1:
            got = f"{capacity}, {n_step}, {frames}, {length}"
            raise ConfigError(f"capacity, n_step, frames, length: got {got}, expected integers >= 1")
        if length > 1 and n_step > 1:
            raise ConfigError(f"n_step: got {n_step} with length {length}, expected 1 for sequences; set one to 1")
        self.capacity = capacity
        self.n_step = n_step
        self.gamma = gamma
        self.sampler = sampler or Uniform()
        self.frames = frames
        self.length = length
        self._tree: SumTree | None = None
        self._highest = 1.0  # Schaul et al. 2016, algorithm 1: the first priority is 1
        self._ring: StepRing | None = None
        self._drawn: tuple[Int64[np.ndarray, "R B"], Float32[np.ndarray, "R B"] | None] | None = None

    def __len__(self) -> int:
        """Number of steps stored now."""
        return 0 if self._ring is None else self._ring.added - self._ring.first

    @property
    def added(self) -> int:
        """Number of steps ever added."""
        return 0 if self._ring is None else self._ring.added

    @property
    def prioritised(self) -> bool:
        """Whether priorities decide what is drawn."""
        return isinstance(self.sampler, Prioritised)

    @property
    def largest_reward(self) -> float:
        """The largest reward stored now; minus infinity if there is none."""
        return -np.inf if self._ring is None else float(self._ring.rewards[: self._ring.added].max())

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return 0 if self._ring is None else self._ring.nbytes

    def add(self, steps: Steps) -> None:
        """Take in one step of every environment; the oldest time leaves when the ring is full."""
        ring = self._ring or self._begin(steps.before if self.frames == 1 else steps.before[:, -1])
        ring.add(steps)
        if self._tree is not None:
            newest = np.arange(ring.added - ring.number, ring.added)
            if self.length > 1:  # no sequence begins at the newest steps yet
                self._tree[newest % self._tree.size] = np.zeros(ring.number)
            begins = newest - (self.length - 1) * ring.number
            self._prioritise(begins[begins >= 0], self._highest)

    def sample(self, n: int, rng: np.random.Generator, update: int) -> Batch:
        """Draw n items, with repetition; their weights correct for the draw, as those of episodes do.

        Raises DataError if nothing is stored.
        """
        return next(self.sample_many(n, 1, rng, update))

    def sample_many(self, n: int, rounds: int, rng: np.random.Generator, update: int) -> Iterator[Batch]:
        """Draw the batches of a whole round of updates at once, which begins with this update; n items each.

        Uniform draws repeat items only after all have had their turn, if a round takes as many as are stored. Those by
        priority are made with the priorities as they are now, at the start of the round. The draws are part of `state`.
        The items are read when they are asked for: add no steps before the last batch.

        Raises DataError if nothing is stored.
        """
        if not len(self):
            raise DataError("the replay is empty: add at least one step before the first update")
        if self._items < 1:
            raise DataError(f"the replay holds {len(self)} steps, too few for sequences of {self.length}; collect more")
        if self._tree is None:
            self._drawn = self._first + _uniform(self._items, n * rounds, rng).reshape(rounds, n), None
        else:
            place = self._tree.draw(n, rng, rounds)
            exponent = np.array([self.sampler.correction(update + i) for i in range(rounds)])
            weight = (self._items * self._tree[place] / self._tree.total).reshape(rounds, n) ** -exponent[:, None]
            weight /= weight.max(1, keepdims=True)
            index = self._first + (place - self._first) % self._tree.size
            self._drawn = index.reshape(rounds, n), weight.astype(np.float32)
        return self.drawn()

    def drawn(self) -> Iterator[Batch]:
        """The batches of the last round again: how a resumed run takes up the middle of a round."""
        if self._drawn is None or self._ring is None:
            return
        index, weight = self._drawn
        stack = self.frames * self._ring.current[0].nbytes
        together = max(1, TOGETHER // (2 * self.length * index.shape[1] * stack))
        for i in range(0, len(index), together):
            part = slice(i, i + together)
            yield from self._gather(index[part], None if weight is None else weight[part])

    def set_priorities(self, index: Int64[np.ndarray, "B"], priority: Float[np.ndarray, "B"]) -> None:
        """Sets the priorities (>= 0, e.g. |TD error|) of these identities; those that have left are ignored."""
        if self._tree is None:
            return
        stored = index >= self._first
        self._prioritise(index[stored], priority[stored].astype(np.float64))
        self._highest = max(self._highest, float(np.max(priority, initial=0.0)))

    def at(self, index: Int64[np.ndarray, "B"]) -> Batch:
        """The items that begin with these identities, which count steps in order of arrival."""
        return self._gather(index[None], None)[0]

    def head(self) -> dict[str, Any]:
        """What a checkpoint needs besides the steps."""
        index, weight = (None, None) if self._drawn is None else self._drawn
        arrays = {
            "current": None if self._ring is None else self._ring.current.copy(),
            "masses": None if self._tree is None else self._tree[np.arange(min(self.added, self._tree.size))],
            "drawn": index,
            "weight": weight,
        }
        tensors = {name: None if array is None else torch.from_numpy(array) for name, array in arrays.items()}
        return {"added": self.added, "highest": self._highest, **tensors}

    @property
    def times(self) -> range:
        """The times that a checkpoint needs: each is one step of every environment, counted from the first ever."""
        ring = self._ring
        return range(0) if ring is None else range(ring.oldest // ring.number, ring.added // ring.number)

    def piece(self, times: range) -> dict[str, Any]:
        """The steps at these times, which are consecutive, for a checkpoint."""
        return self._stored.piece(times.start, times.stop)

    def state(self) -> dict[str, Any]:
        """Everything that is stored, for a checkpoint."""
        return self.head() | {"steps": [self.piece(self.times)] if self._ring is not None else []}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`; `steps` may be any iterable of pieces, the older first."""
        if state["current"] is not None:
            ring = self._begin(state["current"].numpy())
            ring.added = state["added"]
            for piece in state["steps"]:
                ring.fill(piece)
        self._highest = state["highest"]
        if self._tree is not None and state["masses"] is not None:
            self._tree[np.arange(len(state["masses"]))] = state["masses"].numpy()
        weight = None if state["weight"] is None else state["weight"].numpy()
        self._drawn = None if state["drawn"] is None else (state["drawn"].numpy(), weight)

    @property
    def _stored(self) -> StepRing:
        if self._ring is None:
            raise DataError("the replay is empty: add at least one step first")
        return self._ring

    @property
    def _first(self) -> int:
        """Identity of the oldest step that can be drawn."""
        return self._stored.first

    @property
    def _items(self) -> int:
        """How many items can be drawn: those that begin with the oldest step and the ones after it."""
        return len(self) - (self.length - 1) * self._stored.number

    def _begin(self, example: np.ndarray) -> StepRing:
        times, number = self.capacity // len(example), len(example)
        if times < self.length:
            least = f"{number * self.length}, {self.length} of every environment"
            raise ConfigError(f"capacity: got {self.capacity}, expected at least {least}")
        self._ring = StepRing(times, self.frames, example)
        self._tree = SumTree(times * number) if self.prioritised else None
        return self._ring

    def _prioritise(self, index: Int64[np.ndarray, "n"], priority: Float[np.ndarray, "n"] | float) -> None:
        if self._tree is not None and isinstance(self.sampler, Prioritised) and len(index):
            self._tree[index % self._tree.size] = self.sampler.mass(np.broadcast_to(priority, index.shape))

    def _steps(self, index: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "nN"]:
        """The steps of items, one item after the other."""
        if self.length == 1:
            return index
        return (index[:, None] + np.arange(self.length) * self._stored.number).ravel()

    def _gather(self, index: Int64[np.ndarray, "R B"], weight: Float32[np.ndarray, "R B"] | None) -> list[Batch]:
        """Batches, read all at once; each is a view."""
        ring, steps = self._stored, self._steps(index.ravel())
        slot = ring.slot(steps)
        ends = ring.ends.take(slot, mode="clip")
        if self.n_step == 1:
            rewards, last, continues = ring.rewards.take(slot, mode="clip"), steps, GOING_ON.take(ends)
        else:
            rewards, continues, last = self._follow(steps)

        def views(array: np.ndarray) -> tuple[Tensor, ...]:
            return torch.from_numpy(array.reshape(*index.shape, self.length, *array.shape[1:])).unbind(0)

        actions = ring.actions.take(slot, mode="clip")
        columns = zip(*map(views, (ring.before(steps), ring.after(last), actions, rewards, continues)), strict=True)
        real = torch.ones(index.shape[1], self.length, dtype=torch.bool)
        same = [torch.ones(index.shape[1])] * len(index)
        weights = same if weight is None else torch.from_numpy(weight).unbind(0)
        ended = views(ends != GOES_ON) if self.length > 1 else [None] * len(index)
        return [
            Batch(Observations(before, after, over), action, reward, goes_on, real, real, w, i)
            for (before, after, action, reward, goes_on), over, w, i in zip(
                columns, ended, weights, torch.from_numpy(index).unbind(0), strict=True
            )
        ]

    def _follow(
        self, first: Int64[np.ndarray, "n"]
    ) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        """Rewards over up to n steps, what multiplies γ·V at their end, and the last step."""
        ring = self._stored
        rewards, discount, last = np.zeros(len(first)), np.ones(len(first)), first
        open_ = np.ones(len(first), bool)
        for k in range(self.n_step):
            last = np.where(open_, first + k * ring.number, last)
            slot = ring.slot(last)
            rewards += np.where(open_, self.gamma**k * ring.rewards[slot], 0.0)
            discount = np.where(open_, self.gamma**k, discount)
            open_ &= (ring.ends[slot] == GOES_ON) & (last + ring.number < ring.added)
        discount *= ring.ends[ring.slot(last)] != TERMINATED
        return rewards.astype(np.float32), discount.astype(np.float32), last


def _uniform(items: int, n: int, rng: np.random.Generator) -> Int64[np.ndarray, "n"]:
    """Numbers below `items`; where n is no fewer, each comes once before any comes again."""
    if n < items:
        return rng.integers(items, size=n)
    return np.concatenate([rng.permutation(items) for _ in range(-(-n // items))])[:n]
