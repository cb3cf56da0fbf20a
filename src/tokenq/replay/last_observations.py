"""The last observations of episodes: what their last step led to, which is the beginning of nothing stored."""

import numpy as np
from jaxtyping import Int, Shaped


class LastObservations:
    """Observations like those of `example`, by the identity of their step; the oldest are forgotten first."""

    def __init__(self, example: Shaped[np.ndarray, "M *shape"]) -> None:
        self._identities = np.zeros(0, np.int64)
        self._observations = np.zeros((0, *example.shape[1:]), example.dtype)
        self._begin = self._end = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._end - self._begin

    def __getitem__(self, index: Int[np.ndarray, "n"]) -> Shaped[np.ndarray, "n *shape"]:
        """Those of these steps, each of which ended an episode."""
        place = self._begin + np.searchsorted(self._identities[self._begin : self._end], index)
        found: np.ndarray = self._observations[place]
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, free places included."""
        return self._observations.nbytes + self._identities.nbytes

    def add(self, index: Int[np.ndarray, "n"], observations: Shaped[np.ndarray, "n *shape"]) -> None:
        """Take in those of new steps."""
        if self._end + len(index) > len(self._identities):
            self._make_room(len(index))
        new = slice(self._end, self._end + len(index))
        self._identities[new], self._observations[new] = index, observations
        self._end = new.stop

    def forget(self, first: int) -> None:
        """Let those go whose step came before this one."""
        if len(self) and self._identities[self._begin] < first:
            self._begin += int(np.searchsorted(self._identities[self._begin : self._end], first))

    def _make_room(self, more: int) -> None:
        """Move what is kept to the front of arrays with half as much room again, so that moving stays rare."""
        kept = slice(self._begin, self._end)
        places = len(self) + max(more, len(self) // 2, 16)
        for name in ("_identities", "_observations"):
            old = getattr(self, name)
            new = np.zeros((places, *old.shape[1:]), old.dtype)
            new[: len(self)] = old[kept]
            setattr(self, name, new)
        self._begin, self._end = 0, len(self)
