"""Plain text files as rows: one text a line, tab-separated values, and files whose lines belong together."""

import re
from pathlib import Path
from typing import Any

from tokenq.errors import DataError

_BRACES = re.compile(r"\{([^{}]+)\}")


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark; raises `DataError` with the row of a byte that is neither."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} row {line}: byte {error.start} is not UTF-8; expected UTF-8 throughout; save the file as UTF-8"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """One row with a `text` for each line, empty ones included, so that row numbers are line numbers."""
    return [{"text": line} for line in _lines(path)]


def read_tsv(path: Path) -> list[dict[str, Any]]:
    """Rows of a table with a header line; tabs separate, and nothing is quoted."""
    lines = _lines(path)
    if not lines:
        return []
    names = lines[0].split("\t")
    rows = []
    for number, line in enumerate(lines[1:], start=1):
        values = line.split("\t")
        if len(values) != len(names):
            raise DataError(
                f"{path} row {number}: has {len(values)} values, expected {len(names)} ({', '.join(names)}), "
                "separated by tabs; fix or drop the line"
            )
        rows.append(dict(zip(names, values, strict=True)))
    return rows


def is_aligned(source: str) -> bool:
    """Whether a source names several files, as in train.{en,de}."""
    return _BRACES.search(source) is not None


def read_aligned(source: str) -> list[dict[str, Any]]:
    """Line n of each of several files as row n: train.{en,de} gives rows with the columns en and de.

    Raises:
        DataError: A file is missing, or the files have unequal numbers of lines.
    """
    found = _BRACES.search(source)
    if found is None:
        raise DataError(f"{source}: got no braces, expected names of columns in them, as in train.{{en,de}}")
    names = [name.strip() for name in found.group(1).split(",")]
    paths = {name: Path(source[: found.start()] + name + source[found.end() :]) for name in names}
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected one for each of {', '.join(names)}; check the path")
    columns = {name: _lines(path) for name, path in paths.items()}
    counts = {str(paths[name]): len(lines) for name, lines in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{path} has {count:,} lines" for path, count in counts.items())
        raise DataError(f"{source}: {told}; expected the same number, line by line translations of each other")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _lines(path: Path) -> list[str]:
    # Not splitlines(): a text may hold U+2028 and other characters that it takes for the end of a line.
    text = read_text(path)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
