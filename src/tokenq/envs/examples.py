"""What every task on rows of data has in common: a row becomes a prompt and the answers that count as right."""

from collections.abc import Callable, Collection, Mapping, Sequence
from string import Formatter
from typing import Any

from tokenq.errors import ConfigError, DataError

Row = Mapping[str, Any]
Numbered = tuple[int, Row]
"""The number of a row in its file, from 1, and an example that it became; one row may become several."""


def check_template(key: str, template: str, names: Collection[str] = ()) -> None:
    """Raise `ConfigError` unless a template has names in braces and all of them are among these; none: any name."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
        fits = all((name in names if names else name) and not (spec or mark) for _, name, spec, mark in parts)
    except ValueError:
        parts, fits = [], False
    if not parts or not fits:
        wanted = " or ".join(f"{{{name}}}" for name in names) or "columns of the row in braces, such as {text}"
        raise ConfigError(
            f"{key}: got {template!r}, expected a text with {wanted}; a brace of the text itself is written twice"
        )


def filled(template: str, row: Row, number: int) -> str:
    """A checked template such as "Say: {question}" with the columns of a row, the `number`-th from 1."""
    return _joined(template, lambda name: str(value(row, name, number)))


def value(row: Row, column: str, number: int) -> Any:
    """What stands in a column; raises `DataError` with the row if there is no such column, or nothing in it."""
    if column not in row:
        raise DataError(
            f"row {number}: no column '{column}'; expected one among {', '.join(row)}; name the right column in `task`"
        )
    found = row[column]
    if found is None or (isinstance(found, str) and not found.strip()):
        raise DataError(f"row {number}: column '{column}' is empty; expected something in it; fill it or drop the row")
    return found


def example(row: Row, prompt: str, answers: Sequence[str], template: str, **more: Any) -> dict[str, Any]:
    """The row with its `prompt`, the `completion` that a teacher would write, and all right `references`."""
    completion = _joined(template, lambda _: answers[0])
    return {**row, **more, "prompt": prompt, "completion": completion, "references": list(answers)}


def _joined(template: str, found: Callable[[str], str]) -> str:
    parts = Formatter().parse(template)
    return "".join(text if name is None else text + found(name) for text, name, _, _ in parts)
