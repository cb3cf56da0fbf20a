"""Rows with the place they come from, and what a step made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Record:
    """One row of a file; `row` counts from 1, for lines of text that is the line."""

    values: Mapping[str, Any]
    file: str
    row: int

    @property
    def place(self) -> str:
        """Where the row stands, for messages."""
        return f"{self.file} row {self.row}"

    def text(self, column: str) -> str:
        """The text in a column that is known to hold one."""
        value: str = self.values[column]
        return value


@dataclass(frozen=True, eq=False)
class Note:
    """Why a row was removed, or in what way it was changed; `detail` says what decided it for this row."""

    reason: str
    record: Record
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step left, in the order it came, and a note for every row that it removed or changed."""

    kept: list[Record]
    removed: list[Note] = field(default_factory=list)
    changed: list[Note] = field(default_factory=list)
