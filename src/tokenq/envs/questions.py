"""Question answering: from a paragraph, by writing the answer or by pointing at it, and the bAbI stories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenq.envs.examples import Row, example, filled
from tokenq.errors import DataError
from tokenq.scoring.matching import exact_match, token_f1

SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "f1": token_f1}


@dataclass(frozen=True)
class QuestionAnswering:
    """Reward: exact match with a right answer, or the F1 of its words, in [0, 1].

    Rows are paragraphs with their questions, as in SQuAD (`context`, `qas`), or one question each (`context`,
    `question`, `answers` or `answer`). A model that points at answers reads the question as its prompt and the
    paragraph beside it, so its template is "{question}".
    """

    template: str = "{context}\n{question}\n"
    """The prompt, with {context} and {question}."""
    answer: str = "{}"
    """How an answer follows the prompt."""
    score: Literal["exact_match", "f1"] = "f1"
    """What is rewarded."""
    extractive: bool = True
    """Whether every answer must stand in its paragraph."""

    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "token_f1")
    """What `tokenq evaluate` measures if nothing is asked for."""
    labels: ClassVar[Sequence[str]] = ()
    """There are none."""

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """One example for each question; raises `DataError` with the row of an answer that is not in its paragraph."""
        return [found for number, row in enumerate(rows, 1) for found in self._examples(row, number)]

    def _examples(self, row: Row, number: int) -> list[dict[str, Any]]:
        asked = row.get("qas", [row])
        return [self._example({"context": row.get("context"), **question}, number) for question in asked]

    def _example(self, row: Row, number: int) -> dict[str, Any]:
        given = row.get("answers", [row.get("answer")])
        answers = [one["text"] if isinstance(one, dict) else one for one in given if one is not None]
        if not answers:
            raise DataError(f"row {number}: the question {row.get('question')!r} has no answer; expected at least one")
        for text in answers if self.extractive else ():
            if text not in str(row["context"]):
                raise DataError(
                    f"row {number}: the answer {text!r} to {row.get('question')!r} is not in its paragraph; "
                    "fix or drop it, or set `task.extractive` to false"
                )
        first = given[0]
        start = {"answer_start": first["answer_start"]} if isinstance(first, dict) and "answer_start" in first else {}
        prompt = filled(self.template, row, number)
        return example({"context": row["context"]}, prompt, answers, self.answer, **start)

    def check(self, train: Sequence[Row], evaluated: Sequence[Row]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """The score of each answer."""
        score = SCORES[self.score]
        return [score(said, right) for said, right in zip(completions, references, strict=True)]


@dataclass(frozen=True)
class Babi:
    """The bAbI stories (Weston et al. 2015, arXiv 1502.05698): a few sentences, then questions in between.

    Rows are the lines of a task's text file: "1 Mary moved to the bathroom." or "3 Where is Mary?<tab>bathroom<tab>1";
    the number 1 begins a new story. Reward 1 for the exact answer, 0 otherwise.
    """

    template: str = "{story}\n{question}\n"
    """The prompt, with {story} and {question}."""
    answer: str = "{}"
    """How an answer follows the prompt."""
    sentences: int | None = None
    """Only the last so many sentences of a story are told, >= 1; null: all of them."""

    metrics: ClassVar[tuple[str, ...]] = ("exact_match",)
    """What `tokenq evaluate` measures if nothing is asked for."""
    labels: ClassVar[Sequence[str]] = ()
    """There are none."""

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """One example for each question; raises `DataError` with the row of a line that is neither."""
        story: list[str] = []
        found = []
        for number, row in enumerate(rows, 1):
            place, _, line = str(row.get("text", "")).partition(" ")
            if not place.isdigit() or not line:
                raise DataError(f"row {number}: got {row.get('text')!r}, expected a number and a sentence, as in bAbI")
            if place == "1":
                story = []
            question, tab, rest = line.partition("\t")
            if tab:
                found.append(self._example(story, question.strip(), rest.split("\t")[0], number))
            else:
                story.append(line.strip())
        return found

    def _example(self, story: Sequence[str], question: str, answer: str, number: int) -> dict[str, Any]:
        told = list(story if self.sentences is None else story[-self.sentences :])
        prompt = filled(self.template, {"story": " ".join(told), "question": question}, number)
        return example({"context": " ".join(told)}, prompt, [answer], self.answer)

    def check(self, train: Sequence[Row], evaluated: Sequence[Row]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """1 where the answer, but for white space around it, is right."""
        return [float(said.strip() == right[0]) for said, right in zip(completions, references, strict=True)]
