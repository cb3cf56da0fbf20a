"""Machine translation: say a sentence in another language, as close to a reference as can be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenq.envs.examples import Row, example, value
from tokenq.scoring.overlap import sentence_bleu, sentence_chrf

SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {"bleu": sentence_bleu, "chrf": sentence_chrf}


@dataclass(frozen=True)
class Translation:
    """Reward: sentence BLEU or chrF of the translation against the reference, in [0, 1]."""

    source: str = "en"
    """Column with the sentence to translate."""
    target: str = "de"
    """Column with its translation."""
    template: str = "{}"
    """The prompt, with the source sentence in the place of {}."""
    answer: str = "{}"
    """How a translation follows the prompt."""
    score: Literal["bleu", "chrf"] = "bleu"
    """What is rewarded."""

    labels: ClassVar[Sequence[str]] = ()
    """There are none."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `tokenq evaluate` measures if nothing is asked for; Chinese has no spaces to find words by."""
        return ("bleu_zh" if self.target.startswith("zh") else "bleu", "chrf")

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Prompt, completion and references of each row; raises `DataError` with the row of a missing sentence."""
        return [self._example(row, number) for number, row in enumerate(rows, 1)]

    def _example(self, row: Row, number: int) -> dict[str, Any]:
        source, target = (str(value(row, column, number)) for column in (self.source, self.target))
        return example({}, self.template.format(source), [target], self.answer)

    def check(self, train: Sequence[Row], evaluated: Sequence[Row]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """The score of each translation."""
        score = SCORES[self.score]
        return [score(said.strip(), right) for said, right in zip(completions, references, strict=True)]
