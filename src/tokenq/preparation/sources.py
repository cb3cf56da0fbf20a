"""Reading rows with their places, from files in any encoding, some of whose text may be broken."""

import codecs
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.records import Note, Outcome, Record
from tokenq.replay.lines import is_aligned
from tokenq.replay.rows import matching, read_rows

_TEXT_FILES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Source:
    """Where rows come from, whatever `read_rows` reads, and which of their columns hold text."""

    files: Sequence[str]
    columns: Sequence[str] = ("text",)
    encoding: str | None = None
    on_bad_text: Literal["stop", "drop"] = "stop"

    def read(self) -> Outcome:
        """All rows, file by file; those whose text is broken are removed, or end the reading with an error.

        Raises:
            DataError: a file is missing or malformed, lacks a column, or holds bytes that are not in its encoding.
        """
        outcome = Outcome([])
        for file in self.files:
            for number, row in enumerate(self._rows(file), 1):
                record = self._checked(Record(row, file, number))
                bad = _broken(record)
                if bad is None:
                    outcome.kept.append(record)
                elif self.on_bad_text == "drop":
                    outcome.removed.append(Note("bad text", record, bad))
                else:
                    advice = "repair the file, or set on_bad_text to drop"
                    raise DataError(f"{record.place}: {bad}, expected whole text; {advice}")
        return outcome

    def _rows(self, source: str) -> Sequence[Mapping[str, Any]]:
        """The rows of all files that a source names, counted through."""
        return [row for file in matching(source) for row in self._rows_of(file)]

    def _rows_of(self, file: str) -> Sequence[Mapping[str, Any]]:
        """The rows of a file, or of files that belong together; what is not UTF-8 throughout is read from copies."""
        files = _text_files(file)
        texts = [self._decoded(path) for path in files.values()]
        if all(as_it_is for _, as_it_is in texts):
            return read_rows(file)
        with tempfile.TemporaryDirectory() as folder:
            ending = ".txt" if is_aligned(file) else Path(file).suffix
            copies = [Path(folder, f"{number}{ending}") for number in range(len(files))]
            for copy, (text, _) in zip(copies, texts, strict=True):
                copy.write_text(text, encoding="utf-8", newline="")
            numbers = ",".join(copy.stem for copy in copies)
            source = f"{folder}/{{{numbers}}}{ending}" if is_aligned(file) else str(copies[0])
            try:
                rows = read_rows(source)
            except DataError as error:
                message = str(error).replace(source, file)
                for copy, path in zip(copies, files.values(), strict=True):
                    message = message.replace(str(copy), str(path))
                raise DataError(message) from error
        return [dict(zip(files, row.values(), strict=True)) for row in rows] if is_aligned(file) else rows

    def _decoded(self, path: Path) -> tuple[str, bool]:
        """The text of a file, and whether that is what anyone reads who takes it for UTF-8."""
        raw = path.read_bytes()
        name = self.encoding or "UTF-8"
        try:
            codec = codecs.lookup(name).name
        except LookupError as error:
            raise ConfigError(f"encoding: got {name!r}, expected a name such as utf-8, latin-1 or gb18030") from error
        codec = "utf-8-sig" if codec == "utf-8" else codec
        try:
            return raw.decode(codec), codec == "utf-8-sig"
        except UnicodeDecodeError as error:
            if self.on_bad_text == "drop":
                return raw.decode(codec, errors="replace"), False
            line = raw.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{path} row {line}: byte {error.start} is not {name}, expected {name} throughout; set encoding if the "
                "whole file is in another one, or on_bad_text to drop"
            ) from error

    def _checked(self, record: Record) -> Record:
        """The record, if it has its texts and can be written again; a null for a text becomes an empty one."""
        nulls = []
        for column in self.columns:
            if column not in record.values:
                there = ", ".join(record.values) or "none"
                raise DataError(
                    f"{record.place}: no column '{column}'; there is {there}; set text_column"
                    f"{' and target_column' if len(self.columns) > 1 else ''}"
                )
            value = record.values[column]
            if value is not None and not isinstance(value, str):
                raise DataError(
                    f"{record.place}: column '{column}' is {type(value).__name__}, expected a text; "
                    "name another column, or write it as a string"
                )
            nulls += [column] if value is None else []
        for column, value in record.values.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{record.place}: column '{column}' cannot be written as JSON ({error}); fix or drop the column"
                ) from error
        return Record({**record.values, **dict.fromkeys(nulls, "")}, record.file, record.row) if nulls else record


def _text_files(source: str) -> dict[str, Path]:
    """The files of text that a source consists of, by column; none if one is missing, which `read_rows` tells."""
    files = {"": Path(source)} if Path(source).suffix in _TEXT_FILES else {}
    if is_aligned(source):
        before, _, rest = source.partition("{")
        names, _, after = rest.partition("}")
        files = {name.strip(): Path(f"{before}{name.strip()}{after}") for name in names.split(",")}
    return files if all(path.is_file() for path in files.values()) else {}


def _broken(record: Record) -> str | None:
    """What is wrong with the characters of a row; None if nothing is."""
    for column, value in record.values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if _REPLACEMENT in text:
            return f"column '{column}' holds U+FFFD, the mark of bytes that could not be decoded"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return f"column '{column}' holds half a surrogate pair, which is no character"
    return None
