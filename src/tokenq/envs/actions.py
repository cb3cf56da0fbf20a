"""From the code of an action to what an environment takes: one table of values for each of its parts.

Letters: M environments.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from jaxtyping import Int, Shaped

from tokenq.errors import ConfigError

LARGEST = 2**62
"""Joint actions at most: a code is one 64-bit integer."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Every choice of every part of an action, in the environment's own values.

    `shape` and `dtype` are those of one action; it has as many parts as numbers.
    """

    tables: tuple[Shaped[np.ndarray, "_"], ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of choices of each part."""
        return tuple(len(table) for table in self.tables)

    def of(self, codes: Int[np.ndarray, "M"]) -> Shaped[np.ndarray, "M *shape"]:
        """The actions that the codes stand for: mixed radix, the last part changes fastest (`ops.radix`)."""
        parts = np.unravel_index(codes, self.heads)
        values = [table[choice] for table, choice in zip(self.tables, parts, strict=True)]
        return np.stack(values, axis=-1).astype(self.dtype).reshape(len(codes), *self.shape)


def choices(name: str, space: Any, bins: int | None) -> Choices | None:
    """The choices of an action space; None for a space that does not work.

    Of a Box, each dimension has `bins` evenly spaced values, its bounds among them; 3 (as far as possible either way,
    or halfway) if `bins` is None. Raises `ConfigError` where they cannot be made.
    """
    if bins is not None and not isinstance(space, Box):
        raise ConfigError(f"environment.bins: got {bins}, but the actions of {name} are {space}; leave bins at null")
    if isinstance(space, Discrete):
        tables = [space.start + np.arange(space.n)]
    elif isinstance(space, MultiDiscrete):
        tables = [first + np.arange(n) for first, n in zip(space.start.flat, space.nvec.flat, strict=True)]
    elif isinstance(space, Box):
        if not space.is_bounded():
            raise ConfigError(
                f"environment: {name} has actions {space}, expected bounds on every dimension; register it with "
                "gymnasium.wrappers.RescaleAction or ClipAction"
            )
        tables = [np.linspace(a, b, bins or 3) for a, b in zip(space.low.flat, space.high.flat, strict=True)]
    else:
        return None
    if math.prod(len(table) for table in tables) > LARGEST:
        sizes = " × ".join(str(len(table)) for table in tables)
        raise ConfigError(
            f"environment: {name} has {sizes} joint actions, expected at most 2^62; set environment.bins lower, or "
            "register it with a wrapper that joins some of their parts"
        )
    return Choices(tuple(tables), space.shape or (), np.dtype(space.dtype or np.int64))
