"""Normalisation: one way of writing the same text."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenq.preparation.optional import imported
from tokenq.preparation.records import Note, Outcome, Record
from tokenq.preparation.watch import watched

Change = tuple[str, Callable[[str], str]]

_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
# The byte-order mark is no control character for Unicode, but inside a text it is one.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_SPACES = re.compile(r"[^\S\n]+")
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Normalise:
    """Repair text that was decoded wrongly, then strip control characters, compose letters and collapse spaces."""

    mojibake: bool = True
    """Whether text that was decoded with the wrong encoding (`schÃ¶n`) is repaired, by ftfy."""
    form: Literal["NFC", "NFKC"] | None = "NFC"
    """Unicode normal form; NFKC also makes full-width and half-width letters one; null: as it is."""
    spaces: Literal["lines", "all"] | None = "lines"
    """What white space collapses: within lines, or all of it to single spaces, line ends too; null: none."""

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """Every record with its text columns normalised; a note for each kind of change to a row."""
        changes = self._changes()
        kept, notes = [], []
        for record in watched(records, "normalising"):
            values = dict(record.values)
            kinds: dict[str, str] = {}
            for column in columns:
                for kind, change in changes:
                    before, values[column] = values[column], change(values[column])
                    if values[column] != before:
                        kinds.setdefault(kind, f"column '{column}'")
            new = Record(values, record.file, record.row) if kinds else record
            kept.append(new)
            notes += [Note(kind, new, detail) for kind, detail in kinds.items()]
        return Outcome(kept, changed=notes)

    def _changes(self) -> list[Change]:
        changes: list[Change] = []
        if self.mojibake:
            changes.append(("mojibake repaired", imported("ftfy", "normalise").fix_encoding))
        changes.append(("control characters stripped", _without_controls))
        form = self.form
        if form is not None:
            changes.append((f"normal form {form}", lambda text: unicodedata.normalize(form, text)))
        if self.spaces is not None:
            changes.append(("white space collapsed", _lines_collapsed if self.spaces == "lines" else _all_collapsed))
        return changes


def _without_controls(text: str) -> str:
    """Line ends become a line feed; what else is no character to read, but the tab, goes."""
    return _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))


def _lines_collapsed(text: str) -> str:
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()


def _all_collapsed(text: str) -> str:
    return " ".join(text.split())
