"""What every task on rows of data has in common: a row becomes a prompt and the answers that count as right."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from tokenq.errors import DataError

Row = Mapping[str, Any]


def filled(template: str, row: Row, number: int) -> str:
    """A template such as "Say: {question}" with the columns of a row, the `number`-th from 1."""
    needed = [name for _, name, _, _ in Formatter().parse(template) if name]
    for name in needed:
        value(row, name, number)
    return template.format(**{name: row[name] for name in needed})


def value(row: Row, column: str, number: int) -> Any:
    """What stands in a column; raises `DataError` with the row and its columns if nothing does."""
    found = row.get(column)
    if found is None:
        raise DataError(
            f"row {number}: no column '{column}'; expected one among {', '.join(row)}; name the right column in `task`"
        )
    return found


def example(row: Row, prompt: str, answers: Sequence[str], template: str, **more: Any) -> dict[str, Any]:
    """The row with its `prompt`, the `completion` that a teacher would write, and all right `references`."""
    return {**row, **more, "prompt": prompt, "completion": template.format(answers[0]), "references": list(answers)}
