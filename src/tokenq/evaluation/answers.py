"""What a language task hands to its metrics: one row a text, with whatever the task knows about it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float

from tokenq.errors import ConfigError, DataError

Need = Literal["predictions", "references", "labels", "log_probabilities", "kl", "vectors"]
NEEDS: tuple[Need, ...] = get_args(Need)

ROUNDING = 1e-3
"""How far above 0 a log-probability may lie: float32 softmaxes over large vocabularies are that exact."""

T = TypeVar("T")


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one size."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
        """One vector a text; a row of NaN where nothing in the text is known."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The rows of an evaluation, column by column; None for a column that the task does not have."""

    predictions: Sequence[str] | None = None
    """What the model wrote; may be empty strings."""
    references: Sequence[Sequence[str]] | None = None
    """Right answers, at least one a row; may be empty strings."""
    labels: Sequence[str] | None = None
    """The classes of a classification task, at least two; every row has one reference, which is one of them."""
    log_probabilities: Sequence[Float[np.ndarray, "_"]] | None = None
    """Natural log-probability of each token of a row's text, <= 0 and finite."""
    kl: Float[np.ndarray, "n"] | None = None
    """KL divergence from the reference model, summed over a row's tokens, in nats."""
    vectors: Embedder | None = None
    """Word vectors, for similarities of meaning."""

    def __post_init__(self) -> None:
        columns = {name: len(column) for name in _COLUMNS if (column := getattr(self, name)) is not None}
        if len(set(columns.values())) != 1 or 0 in columns.values():
            found = ", ".join(f"{rows} {name}" for name, rows in columns.items()) or "no column"
            raise DataError(f"evaluation rows: got {found}, expected one or more rows, the same number in every column")
        for row, references in enumerate(self.references or [], start=1):
            if isinstance(references, str) or not references:
                raise DataError(f"row {row}, references: got {references!r}, expected a list of one or more strings")
        if self.labels is not None:
            _check_labels(self.labels, self.references)
        for row, values in enumerate(self.log_probabilities or [], start=1):
            if not np.all(np.isfinite(values) & (values <= ROUNDING)):
                raise DataError(f"row {row}, log_probabilities: expected finite numbers <= 0, the natural logarithms")
        if self.kl is not None and not np.all(np.isfinite(self.kl)):
            raise DataError(f"row {int(np.argmin(np.isfinite(self.kl))) + 1}, kl: expected a finite number")

    @property
    def available(self) -> frozenset[Need]:
        """What a metric can have from these rows."""
        there = {field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None}
        return frozenset(need for need in NEEDS if need in there)


_COLUMNS = ("predictions", "references", "log_probabilities", "kl")


def needed(column: T | None, name: Need) -> T:
    """The column, or a ConfigError where a metric was given rows that it does not fit."""
    if column is None:
        raise ConfigError(f"{name}: these rows have none, and the metric needs them; take another metric")
    return column


def _check_labels(labels: Sequence[str], references: Sequence[Sequence[str]] | None) -> None:
    if len(set(labels)) < 2 or len(set(labels)) != len(labels):
        raise DataError(f"labels: got {list(labels)}, expected two or more different classes")
    if references is None:
        raise DataError("labels: got classes and no references, expected the right class of each row as its reference")
    for row, right in enumerate(references, start=1):
        if len(right) != 1 or right[0] not in labels:
            raise DataError(f"row {row}, references: got {list(right)}, expected one of the classes {list(labels)}")
