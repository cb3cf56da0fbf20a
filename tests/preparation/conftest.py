from collections.abc import Callable
from typing import Any

import pytest

from tokenq.preparation.records import Record

Records = Callable[..., list[Record]]


@pytest.fixture(scope="session")
def records() -> Records:
    """Rows of a file `data`: a text becomes the column `text`, a mapping stands as it is."""

    def make(*rows: str | dict[str, Any], file: str = "data") -> list[Record]:
        values = [{"text": row} if isinstance(row, str) else row for row in rows]
        return [Record(row, file, number) for number, row in enumerate(values, 1)]

    return make
