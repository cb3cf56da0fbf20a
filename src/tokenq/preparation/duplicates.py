"""Duplicates: rows that say the same as an earlier one, to the letter or nearly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenq.errors import ConfigError
from tokenq.preparation.optional import imported
from tokenq.preparation.records import Note, Outcome, Record
from tokenq.preparation.watch import watched
from tokenq.preparation.words import plain_key, shingles

MISSED = 0.001
"""Largest probability that a pair exactly at the threshold escapes the search."""


@dataclass(frozen=True)
class Exact:
    """Remove rows whose texts are those of an earlier row, but for case and white space."""

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """The first row of each kind; of a translation both sides must agree to make a duplicate."""
        first: dict[tuple[str, ...], Record] = {}
        outcome = Outcome([])
        for record in records:
            original = first.setdefault(tuple(plain_key(record.text(column)) for column in columns), record)
            if original is record:
                outcome.kept.append(record)
            else:
                outcome.removed.append(Note("exact duplicate", record, f"of {original.place}"))
        return outcome


@dataclass(frozen=True)
class Near:
    """Two texts are near-duplicates if the Jaccard similarity of their sets of shingles reaches a threshold.

    MinHash signatures (Broder 1997) in bands (Leskovec, Rajaraman and Ullman 2014, section 3.4) find candidates, and
    the exact similarity of each decides: nothing below the threshold is taken for a duplicate, and a pair at it is
    missed with a probability of at most 0.001.
    """

    threshold: float = 0.8
    """Jaccard similarity from which on two texts are near-duplicates, in (0, 1]."""
    size: int = 3
    """Words in a shingle, >= 1; characters in scripts without spaces."""
    permutations: int = 128
    """Length of a MinHash signature, a power of two >= 16; longer ones find candidates with fewer comparisons."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold: got {self.threshold}, expected a number in (0, 1]")
        if self.size < 1:
            raise ConfigError(f"size: got {self.size}, expected an integer >= 1")
        if self.permutations < 16 or self.permutations & (self.permutations - 1):
            raise ConfigError(f"permutations: got {self.permutations}, expected a power of two >= 16")
        if (1 - self.threshold) ** self.permutations > MISSED:
            raise ConfigError(
                f"threshold: got {self.threshold}, too low for signatures of {self.permutations}; "
                "raise it, or permutations"
            )

    @property
    def bands(self) -> int:
        """The fewest bands of equal length with which a pair at the threshold is missed no more often than allowed."""
        bands = 1
        while (1 - self.threshold ** (self.permutations // bands)) ** bands > MISSED:
            bands *= 2
        return bands

    def apply(self, records: Sequence[Record], columns: Sequence[str], seed: int) -> Outcome:
        """The rows that are no near-duplicate of an earlier row that is kept; of a translation, in both texts."""
        sketches = [self.sketches([record.text(column) for record in records], seed) for column in columns]
        index = Index(self)
        outcome = Outcome([])
        for i, record in enumerate(watched(records, "near duplicates")):
            detail = None
            for j in index.candidates(sketches[0][i]):
                if all(self.alike(column[i], column[j]) for column in sketches):
                    similarity = min(jaccard(column[i].shingles, column[j].shingles) for column in sketches)
                    detail = f"of {records[j].place}, similarity {similarity:.2f}"
                    break
            if detail is None:
                outcome.kept.append(record)
                index.add(i, sketches[0][i])
            else:
                outcome.removed.append(Note("near duplicate", record, detail))
        return outcome

    def alike(self, a: "Sketch", b: "Sketch") -> bool:
        """Whether two texts are near-duplicates, by their exact similarity."""
        return jaccard(a.shingles, b.shingles) >= self.threshold

    def sketches(self, texts: Sequence[str], seed: int) -> list["Sketch"]:
        """The shingles of each text and their signature.

        Raises:
            ConfigError: rensa is not installed.
        """
        sets = [shingles(text, self.size) for text in texts]
        signatures = imported("rensa", "near, split.near and against.near").RMinHash.from_token_sets(
            [list(found) for found in sets], num_perm=self.permutations, seed=seed
        )
        return [Sketch(*pair) for pair in zip(sets, signatures, strict=True)]


@dataclass(frozen=True, eq=False)
class Sketch:
    """The shingles of a text, and their MinHash signature."""

    shingles: frozenset[str]
    signature: Any


class Index:
    """Sketches by number, and which of them may be near-duplicates of another one."""

    def __init__(self, near: Near) -> None:
        self._lsh = imported("rensa", "near, split.near and against.near").RMinHashLSH(
            threshold=near.threshold, num_perm=near.permutations, num_bands=near.bands
        )

    def add(self, number: int, sketch: Sketch) -> None:
        """Remember a sketch under a number."""
        self._lsh.insert(number, sketch.signature)

    def candidates(self, sketch: Sketch) -> list[int]:
        """Numbers of all that share a band with this one, in ascending order."""
        return sorted(set(self._lsh.query(sketch.signature)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union, in [0, 1], of sets that are not empty (Jaccard)."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)
