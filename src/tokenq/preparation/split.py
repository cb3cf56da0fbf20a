"""Splitting without leakage: what belongs together falls into one part."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.duplicates import Index, Near
from tokenq.preparation.records import Record
from tokenq.preparation.watch import watched
from tokenq.preparation.words import plain_key

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Parts:
    """The records of each part in the order they came, and how many groups were dealt out, the largest with how many.

    A group is what had to stay together; a row that is tied to no other is a group of its own.
    """

    records: dict[str, list[Record]]
    groups: int
    largest: int


@dataclass(frozen=True)
class Split:
    """Divide rows into train, valid and test; rows with the same or nearly the same text stay together."""

    valid: float = 0.05
    """Share of the rows that goes to valid, in [0, 1); 0: no such part."""
    test: float = 0.05
    """Share of the rows that goes to test, in [0, 1); 0: no such part. What is left of 1 is train."""
    group: str | None = None
    """Column whose equal values stay in one part, such as the title of an article; null: none."""
    stratify: str | None = None
    """Column whose values, such as labels, are spread over the parts alike; null: none."""
    near: Near | None = field(default_factory=Near)
    """What counts as nearly the same text; null: only the same text."""

    def __post_init__(self) -> None:
        for name, share in (("valid", self.valid), ("test", self.test)):
            if not 0 <= share < 1:
                raise ConfigError(f"{name}: got {share}, expected a share in [0, 1)")
        if self.valid + self.test >= 1:
            raise ConfigError(f"valid, test: got {self.valid} and {self.test}, expected a sum below 1")

    def apply(self, records: Sequence[Record], columns: Sequence[str], seed: int) -> Parts:
        """The parts asked for, each of them with at least one row.

        Raises:
            DataError: a row lacks `group` or `stratify`; a part would be empty; a value of `stratify` in valid or test
                is nowhere in train.
        """
        groups = self._groups(records, columns, seed)
        labels = _numbered([_value(record, self.stratify) if self.stratify else "" for record in records])
        shares = {"train": 1 - self.valid - self.test, "valid": self.valid, "test": self.test}
        shares = {part: share for part, share in shares.items() if share}
        dealt = _deal(groups, labels, list(shares.values()), np.random.default_rng(seed))
        parts = {part: [records[i] for i in np.flatnonzero(dealt == p).tolist()] for p, part in enumerate(shares)}
        sizes = np.bincount(groups)
        for part, rows in parts.items():
            if not rows:
                raise DataError(
                    f"split: {part} got no row: {len(records)} rows are tied into {len(sizes)} groups, the largest of "
                    f"{sizes.max()}; expected enough for every part; give more rows, a smaller group or a larger share"
                )
        self._refuse_unseen(parts)
        return Parts(parts, len(sizes), int(sizes.max()))

    def check(self, records: Sequence[Record]) -> None:
        """Raise DataError unless every record has a value of `group` and of `stratify`."""
        for column in (self.group, self.stratify):
            if column is not None:
                for record in records:
                    _value(record, column)

    def _groups(self, records: Sequence[Record], columns: Sequence[str], seed: int) -> Int[np.ndarray, "n"]:
        """The number of each record's group, from 0 in order of appearance."""
        ties = _Ties(len(records))
        for column in columns:
            texts = [record.text(column) for record in records]
            ties.equal([plain_key(text) for text in texts])
            if self.near is not None:
                ties.similar(texts, self.near, seed)
        if self.group is not None:
            ties.equal([_value(record, self.group) for record in records])
        return _numbered([ties.root(i) for i in range(len(records))])

    def _refuse_unseen(self, parts: dict[str, list[Record]]) -> None:
        if self.stratify is None:
            return
        seen = {_value(record, self.stratify) for record in parts["train"]}
        for part in parts.keys() - {"train"}:
            for record in parts[part]:
                value = _value(record, self.stratify)
                if value not in seen:
                    raise DataError(
                        f"{record.place}: column '{self.stratify}' is {value} and the row fell to {part}, but no row "
                        "of train has this value; expected every one of them in train; add rows, drop these, or take "
                        "another seed"
                    )


class _Ties:
    """Which records must stay together (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        """The first record of the group."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def tie(self, i: int, j: int) -> None:
        """The groups of both become one."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low

    def equal(self, values: Sequence[Hashable]) -> None:
        """Tie the records with equal values."""
        first: dict[Hashable, int] = {}
        for i, value in enumerate(values):
            self.tie(first.setdefault(value, i), i)

    def similar(self, texts: Sequence[str], near: Near, seed: int) -> None:
        """Tie the records whose texts are near-duplicates."""
        index = Index(near)
        sketches = near.sketches(texts, seed)
        for i, sketch in enumerate(watched(sketches, "ties between rows")):
            for j in index.candidates(sketch):
                # The comparison is the dear part, and within a group it would change nothing.
                if self.root(i) != self.root(j) and near.alike(sketch, sketches[j]):
                    self.tie(i, j)
            index.add(i, sketch)


def _deal(
    groups: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"], shares: Sequence[float], rng: np.random.Generator
) -> Int[np.ndarray, "n"]:
    """The number of the part that each record falls to.

    Groups are dealt from the largest to the smallest, in random order where they are equal, each to the part that lacks
    most of its labels (iterative stratification, Sechidis et al. 2011, for whole groups).
    """
    lacking = np.outer(shares, np.bincount(labels)).astype(np.float64)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    dealt = np.zeros_like(groups)
    random = rng.permutation(len(members))
    for i in sorted(range(len(members)), key=lambda i: (-len(members[i]), random[i])):
        own = np.bincount(labels[members[i]], minlength=lacking.shape[1])
        part = int(np.argmax(lacking @ own))
        dealt[members[i]] = part
        lacking[part] -= own
    return dealt


def _value(record: Record, column: str) -> str:
    """The value of a column as JSON text, so that lists can be compared as well."""
    if record.values.get(column) is None:
        found = "is null" if column in record.values else f"is not there, only {', '.join(record.values)}"
        raise DataError(
            f"{record.place}: column '{column}' {found}; expected a value in every row; fix or drop the row"
        )
    return json.dumps(record.values[column], sort_keys=True, ensure_ascii=False)


def _numbered(values: Sequence[Hashable]) -> Int[np.ndarray, "n"]:
    """Values as numbers from 0, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
