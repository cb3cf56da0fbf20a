"""Rows of a data file, a `datasets` folder or a `datasets` id, in their order, as plain dictionaries.

Nothing is checked here but that there are rows; what a row must hold is the business of whoever reads it. Messages
count rows from 1, for JSON lines that is the line.
"""

import io
import json
from collections.abc import Callable
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from tokenq.errors import DataError
from tokenq.replay.lines import is_aligned, read_aligned, read_lines, read_text, read_tsv

# A CSV file cannot say what is text: without this, a completion of digits would become a number ...
_TEXT_COLUMNS = ("prompt", "completion", "chosen", "rejected")
# ... and what is a list: these columns hold JSON.
_JSON_COLUMNS = ("messages", "rewards", "prompt_ids", "completion_ids")


def read_rows(source: str) -> list[dict[str, Any]]:
    """Reads .jsonl, .json, .parquet, .csv, .tsv or .txt (UTF-8), or the `train` split of a `datasets` folder or id.

    Braces name files whose lines belong together: train.{en,de} has the columns en and de. Wildcards (*, ?, [12]) name
    files that are read one after the other, in the order of their names; rows are counted through.

    Raises DataError if there is no such source, if it is malformed (with the row), or if it has no rows.
    """
    path, files = Path(source), matching(source)
    if is_aligned(source):
        rows = read_aligned(source)
    elif files != [source]:
        rows = [row for file in files for row in read_rows(file)]
    elif path.is_dir():
        rows = _read_dataset(source)
    elif path.suffix in _READERS:
        if not path.is_file():
            raise DataError(f"{source}: no such file; expected a data file; check the path")
        rows = _READERS[path.suffix](path)
    elif path.exists():
        raise DataError(f"{source}: got the ending {path.suffix!r}, expected one of {', '.join(_READERS)}; convert it")
    else:
        rows = _read_dataset(source)
    if not rows:
        raise DataError(f"{source}: has no rows; expected at least one")
    return rows


def matching(source: str) -> list[str]:
    """The files that wildcards name, in the order of their names; a source without wildcards is the only one.

    Raises DataError if no file has such a name.
    """
    if is_aligned(source) or Path(source).exists() or not has_magic(source):
        return [source]
    files = sorted(glob(source))
    if not files:
        raise DataError(f"{source}: no file has such a name; expected at least one; check the pattern")
    return files


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): JSON strings may hold U+2028 and other characters that it takes for the end of a line.
    lines = read_text(path).rstrip().split("\n")
    return [_json_row(line, path, number) for number, line in enumerate(lines, start=1)] if lines != [""] else []


def _json_row(line: str, path: Path, number: int) -> dict[str, Any]:
    if not line.strip():
        raise DataError(f"{path} row {number}: is an empty line; expected a JSON object; delete the line")
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} row {number}: is not valid JSON ({error.msg} at character {error.pos}); "
            "expected one JSON object per line; fix or drop the line"
        ) from error
    return _object(row, path, number)


def _read_json(path: Path) -> list[dict[str, Any]]:
    text = read_text(path)
    if not text.strip():
        return []
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: is not valid JSON ({error.msg} at line {error.lineno}); expected a list of objects; "
            "name it .jsonl if it holds one object per line"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a JSON {type(rows).__name__}, expected a list of objects")
    return [_object(row, path, number) for number, row in enumerate(rows, start=1)]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    raw = read_text(path).encode()
    if not raw.strip():
        return []
    # "NaN" must stay NaN, to be refused later on, and not become a null that would pass for "unrated".
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys((*_TEXT_COLUMNS, *_JSON_COLUMNS), pyarrow.string()), null_values=[""]
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        table = pyarrow.csv.read_csv(io.BytesIO(raw), parse_options=parse, convert_options=convert)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: is not valid CSV ({_one_line(error)}); expected a header and its columns") from error
    return [_decoded(row, path, number) for number, row in enumerate(table.to_pylist(), start=1)]


def _decoded(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    for column in _JSON_COLUMNS:
        if row.get(column):
            try:
                row[column] = json.loads(row[column])
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path} row {number}: column '{column}' is not valid JSON ({error.msg} at character {error.pos}); "
                    "expected a JSON list; fix or drop the row"
                ) from error
    return row


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({_one_line(error)}); write it anew") from error
    return rows


def _read_dataset(source: str) -> list[dict[str, Any]]:
    # Seconds to import, and only this source needs it.
    from datasets import DatasetDict, load_dataset, load_from_disk

    saved = any((Path(source) / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        found = load_from_disk(source) if saved else load_dataset(source)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{source}: got no file, folder or `datasets` id that can be read ({_one_line(error)}); "
            f"expected a {', '.join(_READERS)} file, a dataset folder or an id; check the name"
        ) from error
    if isinstance(found, DatasetDict):
        if "train" not in found:
            raise DataError(f"{source}: has the splits {', '.join(found)}; expected a split named 'train'")
        found = found["train"]
    return [dict(row) for row in found]


def _object(row: object, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path} row {number}: is a JSON {type(row).__name__}, expected an object; fix or drop the row")
    return row


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".tsv": read_tsv,
    ".txt": read_lines,
}
