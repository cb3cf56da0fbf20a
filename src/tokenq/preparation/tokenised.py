"""Texts and their tokens in an Arrow table, for programs that read tokens."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.records import Record
from tokenq.preparation.watch import watched

Encode = Callable[[list[str], int | None], list[list[int]]]
"""Texts to token numbers; with a number, none longer than that, cut as the tokenizer cuts."""

_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Table:
    """The rows with their tokens, what they amount to, and the longest text before anything was cut."""

    arrow: pa.Table
    tokens: int
    longest: int
    truncated: int


@dataclass(frozen=True)
class Tokenise:
    """Add the tokens of each text: `input_ids`, and `labels` for those of a translation."""

    tokenizer: str
    """Folder or hub id of the tokenizer."""
    max_length: int | None = None
    """Longest text in tokens, >= 1; longer ones are cut and counted; null: nothing is cut."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length: got {self.max_length}, expected an integer >= 1")

    def apply(self, records: Sequence[Record], columns: Sequence[str], encode: Encode) -> Table:
        """One row per record, in their order, with all columns of the records and those of the tokens.

        Raises:
            DataError: a record has such a column already, or a column's values have no common type.
        """
        names = list(dict.fromkeys(name for record in records for name in record.values))
        data: dict[str, Any] = {name: [record.values.get(name) for record in records] for name in names}
        tokens = longest = truncated = 0
        for name, column in zip(("input_ids", "labels"), columns, strict=False):
            if name in data:
                raise DataError(
                    f"{records[0].file}: has a column '{name}', where tokens are written; rename the column"
                )
            rows: list[list[int]] = []
            for start in watched(range(0, len(records), _BATCH), "tokenising"):
                batch = [record.text(column) for record in records[start : start + _BATCH]]
                rows += encode(batch, None)
            longest = max(longest, *map(len, rows))
            for i, row in enumerate(rows):
                if self.max_length is not None and len(row) > self.max_length:
                    (rows[i],) = encode([records[i].text(column)], self.max_length)
                    truncated += 1
            tokens += sum(map(len, rows))
            data[name] = pa.array(rows, pa.list_(pa.int32()))
        return Table(
            pa.table({name: _array(name, values) for name, values in data.items()}), tokens, longest, truncated
        )


def with_one_schema(tables: Mapping[str, Table]) -> dict[str, pa.Table]:
    """The tables by name with the same columns and types; a column that is null throughout one takes the other's type.

    Raises:
        DataError: a column has different types in two of them.
    """
    try:
        whole = pa.concat_tables([table.arrow for table in tables.values()], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"tokenise: {error}; give all values of a column one type") from error
    ends = np.cumsum([len(table.arrow) for table in tables.values()])
    return {
        name: whole.slice(end - len(table.arrow), len(table.arrow)).combine_chunks()
        for (name, table), end in zip(tables.items(), ends, strict=True)
    }


def fingerprint(table: pa.Table) -> str:
    """A name for the content, the same for the same rows; `datasets` would otherwise choose a new one each time."""
    digest = hashlib.sha256(str(table.schema).encode())
    for batch in table.to_batches():
        digest.update(json.dumps(batch.to_pylist(), ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


def save_tables(tables: Mapping[str, Table], place: Path) -> None:
    """Write the tables as a `DatasetDict`, for `datasets.load_from_disk`."""
    # Seconds to import, and only this step needs it.
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        parts = with_one_schema(tables)
        datasets.DatasetDict(
            {part: datasets.Dataset(table, fingerprint=fingerprint(table)) for part, table in parts.items()}
        ).save_to_disk(place)
    finally:
        if bars:
            datasets.enable_progress_bars()


def _array(name: str, values: Any) -> Any:
    try:
        return values if isinstance(values, pa.Array) else pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"column '{name}': {error}; give all its values one type") from error
