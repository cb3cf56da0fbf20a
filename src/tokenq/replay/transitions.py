"""The replay of control tasks: a ring of steps, drawn as transitions over n steps.

Letters: B transitions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tokenq.errors import ConfigError, DataError
from tokenq.replay.samplers import Prioritised, Uniform
from tokenq.replay.sum_tree import SumTree
from tokenq.types import Batch, Observations, Steps

FIELDS = ("before", "actions", "rewards", "after", "terminated", "truncated")


class Transitions:
    """The newest steps of some environments, at most `capacity` in all.

    A transition over `n_step` steps has the reward r_0 + γ·r_1 + … and the observation it led to (Sutton 1988). It is
    shorter where its episode ended, and at the newest step: `continues` holds γ^(k−1) for its own length k, times 0 if
    the episode terminated, so that objectives multiply with γ once, as for one step. A truncated episode goes on.
    """

    def __init__(
        self, capacity: int, n_step: int = 1, gamma: float = 0.99, sampler: Uniform | Prioritised | None = None
    ) -> None:
        if capacity < 1 or n_step < 1:
            raise ConfigError(f"capacity, n_step: got {capacity}, {n_step}, expected integers >= 1")
        self.capacity = capacity
        self.n_step = n_step
        self.gamma = gamma
        self.sampler = sampler or Uniform()
        self._tree: SumTree | None = None
        self._highest = 1.0  # Schaul et al. 2016, algorithm 1: the first priority is 1
        self._rings: dict[str, np.ndarray] = {}
        self._times = 0
        """Times ever added."""

    def __len__(self) -> int:
        """Number of steps stored now."""
        return self._stored * self._environments

    @property
    def added(self) -> int:
        """Number of steps ever added."""
        return self._times * self._environments

    @property
    def prioritised(self) -> bool:
        """Whether priorities decide what is drawn."""
        return isinstance(self.sampler, Prioritised)

    @property
    def largest_reward(self) -> float:
        """The largest reward stored now; minus infinity if there is none."""
        return float(self._rings["rewards"][: self._times].max()) if self._rings else -np.inf

    def add(self, steps: Steps) -> None:
        """Take in one step of every environment; the oldest time leaves when the ring is full."""
        if not self._rings:
            self._rings = {name: _ring(getattr(steps, name), self.capacity) for name in FIELDS}
            if self.prioritised:
                self._tree = SumTree(self._rings["rewards"].size)
        for name, ring in self._rings.items():
            ring[self._times % len(ring)] = getattr(steps, name)
        self._times += 1
        newest = np.arange(self.added - self._environments, self.added)
        self._prioritise(newest, np.full(self._environments, self._highest))

    def sample(self, n: int, rng: np.random.Generator, update: int) -> Batch:
        """Draw n transitions, with repetition; their weights correct for the draw, as those of episodes do.

        Raises DataError if nothing is stored.
        """
        if not len(self):
            raise DataError("the replay is empty: add at least one step before the first update")
        if self._tree is None:
            return self.at(self._first + rng.integers(len(self), size=n))
        slot = self._tree.draw(n, rng)
        weight = (len(self) * self._tree[slot] / self._tree.total) ** -self.sampler.correction(update)
        index = self._first + (slot - self._first) % self._tree.size
        return replace(self.at(index), weight=torch.from_numpy((weight / weight.max()).astype(np.float32)))

    def set_priorities(self, index: Int64[np.ndarray, "B"], priority: Float[np.ndarray, "B"]) -> None:
        """Sets the priorities (>= 0, e.g. |TD error|) of these identities; those that have left are ignored."""
        if self._tree is None:
            return
        stored = index >= self._first
        self._prioritise(index[stored], priority[stored].astype(np.float64))
        self._highest = max(self._highest, float(np.max(priority, initial=0.0)))

    def _prioritise(self, index: Int[np.ndarray, "n"], priority: Float[np.ndarray, "n"]) -> None:
        if self._tree is not None and isinstance(self.sampler, Prioritised) and len(index):
            self._tree[index % self._tree.size] = self.sampler.mass(priority)

    def at(self, index: Int64[np.ndarray, "B"]) -> Batch:
        """The transitions with these identities, which count steps in order of arrival."""
        first, environment = np.divmod(index, self._environments)
        rewards, continues, last = self._follow(first, environment)
        shape = (len(index), 1)
        return Batch(
            inputs=Observations(self._read("before", first, environment), self._read("after", last, environment)),
            actions=self._read("actions", first, environment).long(),
            rewards=torch.from_numpy(rewards.astype(np.float32)).reshape(shape),
            continues=torch.from_numpy(continues.astype(np.float32)).reshape(shape),
            decided=torch.ones(shape, dtype=torch.bool),
            rated=torch.ones(shape, dtype=torch.bool),
            weight=torch.ones(len(index)),
            index=torch.from_numpy(index),
        )

    def state(self) -> dict[str, Any]:
        """Everything that is stored, for a checkpoint."""
        masses = None if self._tree is None else torch.from_numpy(self._tree[np.arange(self._tree.size)])
        rings = {name: torch.from_numpy(ring) for name, ring in self._rings.items()}
        return {"times": self._times, "rings": rings, "masses": masses, "highest": self._highest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self._times = state["times"]
        self._rings = {name: ring.numpy() for name, ring in state["rings"].items()}
        self._highest = state["highest"]
        if state["masses"] is not None:
            self._tree = SumTree(len(state["masses"]))
            self._tree[np.arange(self._tree.size)] = state["masses"].numpy()

    @property
    def _first(self) -> int:
        """Identity of the oldest stored step."""
        return self.added - len(self)

    @property
    def _environments(self) -> int:
        return self._rings["rewards"].shape[1] if self._rings else 0

    @property
    def _stored(self) -> int:
        return min(self._times, len(self._rings["rewards"])) if self._rings else 0

    def _follow(
        self, first: Int64[np.ndarray, "B"], environment: Int64[np.ndarray, "B"]
    ) -> tuple[Float[np.ndarray, "B"], Float[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
        """Rewards over up to n steps, what multiplies γ·V at their end, and the time of the last step."""
        size = len(self._rings["rewards"])
        rewards, discount, last = np.zeros(len(first)), np.ones(len(first)), first.copy()
        open_ = np.ones(len(first), bool)
        for k in range(self.n_step):
            time = np.where(open_, first + k, last)
            slot = time % size, environment
            rewards += np.where(open_, self.gamma**k * self._rings["rewards"][slot], 0.0)
            discount = np.where(open_, self.gamma**k, discount)
            last = time
            ended = self._rings["terminated"][slot] | self._rings["truncated"][slot]
            open_ &= ~ended & (time + 1 < self._times)
        return rewards, discount * ~self._rings["terminated"][last % size, environment], last

    def _read(self, name: str, time: Int[np.ndarray, "B"], environment: Int[np.ndarray, "B"]) -> Tensor:
        ring = self._rings[name]
        return torch.from_numpy(ring[time % len(ring), environment]).unsqueeze(1)


def _ring(example: np.ndarray, capacity: int) -> np.ndarray:
    environments = len(example)
    times = capacity // environments
    if times < 1:
        raise ConfigError(f"capacity: got {capacity}, expected at least {environments}, one step of every environment")
    dtype = np.float32 if example.dtype == np.float64 else example.dtype
    return np.zeros((times, *example.shape), dtype)
