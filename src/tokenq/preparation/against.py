"""Decontamination: rows that also stand in other files, such as an official test set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenq.errors import ConfigError
from tokenq.preparation.duplicates import Index, Near
from tokenq.preparation.records import Note, Outcome, Record
from tokenq.preparation.watch import watched
from tokenq.preparation.words import plain_key


@dataclass(frozen=True)
class Against:
    """Remove rows that duplicate a row of other files in any of their texts, exactly or nearly."""

    files: list[str]
    """Files whose rows must not be learned from, with the same columns of text."""
    near: Near | None = field(default_factory=Near)
    """What counts as a near-duplicate; null: only exact duplicates go."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("files: got none, expected at least one file to compare with")

    def apply(
        self, records: Sequence[Record], others: Mapping[str, Sequence[Record]], columns: Sequence[str], seed: int
    ) -> Outcome:
        """The rows that `others`, the rows of a file by its name, do not hold as well."""
        found: dict[int, tuple[str, str]] = {}
        for name, rows in others.items():
            for i, original in overlaps(records, rows, columns, self.near, seed).items():
                found.setdefault(i, (f"also in {name}", f"as {original.place}"))
        kept = [record for i, record in enumerate(records) if i not in found]
        removed = [Note(reason, records[i], detail) for i, (reason, detail) in sorted(found.items())]
        return Outcome(kept, removed)


def overlaps(
    records: Sequence[Record], others: Sequence[Record], columns: Sequence[str], near: Near | None, seed: int
) -> dict[int, Record]:
    """The first row of `others` that each record duplicates in one of the columns, by the record's number from 0."""
    found: dict[int, Record] = {}
    for column in columns:
        keys = {plain_key(other.text(column)): other for other in reversed(others)}
        for i, record in enumerate(records):
            same = keys.get(plain_key(record.text(column)))
            if same is not None:
                found.setdefault(i, same)
        if near is None:
            continue
        index = Index(near)
        theirs = near.sketches([other.text(column) for other in others], seed)
        for number, sketch in enumerate(theirs):
            index.add(number, sketch)
        ours = near.sketches([record.text(column) for record in records], seed)
        for i, sketch in enumerate(watched(ours, "comparing")):
            candidates = [] if i in found else index.candidates(sketch)
            match = next((j for j in candidates if near.alike(sketch, theirs[j])), None)
            if match is not None:
                found[i] = others[match]
    return found
