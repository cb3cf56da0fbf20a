"""Machine translation: say a sentence in another language, as close to a reference as can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenq.envs.examples import Numbered, Row, check_template, example, filled, value
from tokenq.scoring.overlap import Tokenize, sentence_bleu, sentence_chrf

BLEU: dict[Tokenize, str] = {"13a": "bleu", "zh": "bleu_zh", "char": "bleu_char"}
"""The metric that cuts text in each way."""


@dataclass(frozen=True)
class Translation:
    """Reward: sentence BLEU or chrF of the translation against the reference, in [0, 1]."""

    source: str = "en"
    """Column with the sentence to translate."""
    target: str = "de"
    """Column with its translation."""
    template: str = "{}"
    """The prompt, with the source sentence in the place of {} or of its column in braces, such as {en}."""
    answer: str = "{}"
    """How a translation follows the prompt."""
    score: Literal["bleu", "chrf"] = "bleu"
    """What is rewarded."""
    tokenize: Tokenize | None = None
    """What BLEU takes for words, in sacrebleu's names; null: zh for a `target` that begins with zh, else 13a."""

    labels: ClassVar[Sequence[str]] = ()
    """There are none."""

    def __post_init__(self) -> None:
        check_template("template", self.template, ["", self.source])
        check_template("answer", self.answer, [""])

    @property
    def words(self) -> Tokenize:
        """What BLEU takes for words, in the reward and in the metrics; Chinese has no spaces to find them by."""
        if self.tokenize is not None:
            return self.tokenize
        return "zh" if self.target.startswith("zh") else "13a"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `tokenq evaluate` measures if nothing is asked for."""
        return (BLEU[self.words], "chrf")

    def numbered(self, rows: Sequence[Row]) -> list[tuple[int, dict[str, Any]]]:
        """Prompt, completion and references of each row, by its number; raises `DataError` for a missing sentence."""
        return [(number, self._example(row, number)) for number, row in enumerate(rows, 1)]

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The same without the numbers."""
        return [found for _, found in self.numbered(rows)]

    def _example(self, row: Row, number: int) -> dict[str, Any]:
        source, target = (str(value(row, column, number)) for column in (self.source, self.target))
        return example({}, filled(self.template, {"": source, self.source: source}, number), [target], self.answer)

    def check(self, train: Sequence[Row], evaluated: Sequence[Numbered]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """The score of each translation."""
        return [self._score(said.strip(), right) for said, right in zip(completions, references, strict=True)]

    def _score(self, said: str, right: Sequence[str]) -> float:
        return sentence_chrf(said, right) if self.score == "chrf" else sentence_bleu(said, right, self.words)
