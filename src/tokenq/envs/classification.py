"""Text classification: say which of a few labels a text has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenq.envs.examples import Numbered, Row, check_template, example, filled, value
from tokenq.errors import ConfigError, DataError


@dataclass(frozen=True)
class Classification:
    """Reward 1 for the right label and 0 for everything else."""

    names: list[str]
    """Names of the labels, as the model says them; a number in the data is a place in this list, counted from 0."""
    label: str = "label"
    """Column with the label, as a number or a name."""
    template: str = "{text}"
    """The prompt; columns of the row in braces."""
    answer: str = "{}"
    """How a label follows the prompt, such as " {}" for a language model whose tokens begin with their space."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1")
    """What `tokenq evaluate` measures if nothing is asked for."""

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise ConfigError(f"names: got {self.names}, expected at least two different names of labels")
        check_template("template", self.template)
        check_template("answer", self.answer, [""])

    @property
    def labels(self) -> Sequence[str]:
        """The names of the labels, in order."""
        return self.names

    def numbered(self, rows: Sequence[Row]) -> list[tuple[int, dict[str, Any]]]:
        """Prompt, completion and references of each row, by its number; raises `DataError` for an unknown label."""
        return [(number, self._example(row, number)) for number, row in enumerate(rows, 1)]

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The same without the numbers."""
        return [found for _, found in self.numbered(rows)]

    def _example(self, row: Row, number: int) -> dict[str, Any]:
        name = self._name(value(row, self.label, number), number)
        kept = {column: content for column, content in row.items() if column != self.label}
        return example(kept, filled(self.template, row, number), [name], self.answer)

    def _name(self, label: Any, number: int) -> str:
        # Files without types hold numbers as digits, unless a label has such a name.
        digits = isinstance(label, str) and label.isdecimal() and label not in self.names
        place = int(label) if digits else label
        known = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(self.names)
        name = self.names[place] if known else label
        if name not in self.names:
            raise DataError(
                f"row {number}: column '{self.label}' is {label!r}; expected one of {', '.join(self.names)} "
                f"or a number below {len(self.names)}; complete `task.names` or fix the row"
            )
        return str(name)

    def check(self, train: Sequence[Row], evaluated: Sequence[Numbered]) -> None:
        """Raise `DataError` for a label that is evaluated on and never seen in training."""
        seen = {row["references"][0] for row in train}
        for number, row in evaluated:
            if row["references"][0] not in seen:
                raise DataError(
                    f"row {number}: has the label {row['references'][0]!r}, which no training row has "
                    f"({', '.join(sorted(seen))}); expected labels that can be learned"
                )

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """1 where the completion, but for white space around it, is the label."""
        return [float(said.strip() == right[0]) for said, right in zip(completions, references, strict=True)]
