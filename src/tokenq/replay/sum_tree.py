"""Numbers >= 0, drawn in proportion to their size, in time that grows with the logarithm of their number."""

import numpy as np
from jaxtyping import Float, Int


class SumTree:
    """A binary tree: leaves are the numbers, every other node the sum of two below (Schaul et al. 2016, B.2.1).

    All numbers are 0 at first. `size` is how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._leaves = 1 << max(size - 1, 0).bit_length()
        self._nodes = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self._nodes[1])

    def __getitem__(self, index: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        values: np.ndarray = self._nodes[self._leaves + index]
        return values

    def __setitem__(self, index: Int[np.ndarray, "n"], values: Float[np.ndarray, "n"]) -> None:
        """Of several values for one index, the last counts."""
        self._nodes[self._leaves + index] = values
        node = np.unique(self._leaves + index)
        while node[0] > 1:
            node = np.unique(node // 2)
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def find(self, mass: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """For each mass in [0, total): the index at which the sum of the numbers up to it first exceeds the mass."""
        node = np.ones(len(mass), np.int64)
        left_over = mass.copy()
        while node[0] < self._leaves:
            left = self._nodes[2 * node]
            # Rounding may leave more than the left side has where the right side has nothing.
            right = (left_over >= left) & (self._nodes[2 * node + 1] > 0)
            left_over -= np.where(right, left, 0.0)
            node = 2 * node + right
        return node - self._leaves

    def draw(self, n: int, rng: np.random.Generator, rounds: int = 1) -> Int[np.ndarray, "n_rounds"]:
        """Draw n indices so many times, one from each of n equal parts of the total, as the source has it."""
        return self.find(((np.arange(n) + rng.random((rounds, n))) * (self.total / n)).ravel())
