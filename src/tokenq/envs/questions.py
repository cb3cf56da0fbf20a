"""Question answering: from a paragraph, by writing the answer or by pointing at it, and the bAbI stories."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tokenq.envs.examples import Numbered, Row, check_template, example, filled, value
from tokenq.errors import ConfigError, DataError
from tokenq.scoring.matching import exact_match, token_f1

SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "f1": token_f1}


@dataclass(frozen=True)
class QuestionAnswering:
    """Reward: exact match with a right answer, or the F1 of its words, in [0, 1].

    Rows are paragraphs with their questions, as in SQuAD (`context`, `qas`), or one question each (`context`,
    `question`, `answers` or `answer`). `answers` are texts, objects with `text` and perhaps `answer_start`, or one
    object with a list of each. A model that points at answers reads the question as its prompt and the paragraph beside
    it, so its template is "{question}".
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

    def __post_init__(self) -> None:
        check_template("template", self.template)
        check_template("answer", self.answer, [""])

    def numbered(self, rows: Sequence[Row]) -> list[tuple[int, dict[str, Any]]]:
        """One example for each question, by the number of its row.

        Raises:
            DataError: A question has no answer, or one that is not in its paragraph.
        """
        every = [(number, asked) for number, row in enumerate(rows, 1) for asked in _questions(row, number)]
        return [(number, self._example(asked, number)) for number, asked in every]

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The same without the numbers."""
        return [found for _, found in self.numbered(rows)]

    def _example(self, row: Row, number: int) -> dict[str, Any]:
        answers = _answers(row, number)
        texts = [str(answer["text"]) for answer in answers]
        for text in texts if self.extractive else ():
            if text not in str(value(row, "context", number)):
                raise DataError(
                    f"row {number}: the answer {text!r} to {row.get('question')!r} is not in its paragraph; "
                    "fix or drop it, or set `task.extractive` to false"
                )
        start = answers[0].get("answer_start")
        told = {} if start is None else {"answer_start": start}
        prompt = filled(self.template, row, number)
        return example({"context": row.get("context")}, prompt, texts, self.answer, **told)

    def check(self, train: Sequence[Row], evaluated: Sequence[Numbered]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """The score of each answer."""
        score = SCORES[self.score]
        return [score(said, right) for said, right in zip(completions, references, strict=True)]


def _questions(row: Row, number: int) -> Sequence[Row]:
    """The questions of a paragraph, each with its paragraph, or the row itself if it is one question."""
    asked = row.get("qas")
    if asked is None:
        return [row]
    if not isinstance(asked, list) or not all(isinstance(question, Mapping) for question in asked):
        raise DataError(
            f"row {number}: column 'qas' is {asked!r:.60}; expected a list of objects with question and answers; "
            "fix or drop the row"
        )
    paragraph = {"context": row["context"]} if "context" in row else {}
    return [paragraph | dict(question) for question in asked]


def _answers(row: Row, number: int) -> Sequence[Row]:
    """The right answers to a question, at least one, each with its `text` and perhaps its `answer_start`."""
    column = "answer" if row.get("answers") is None else "answers"
    given = row.get(column)
    if column == "answer":
        given = [] if given is None else [{"text": given, "answer_start": row.get("answer_start")}]
    listed = _listed(given)
    if listed is None or not all(isinstance(one.get("text"), str) and one["text"].strip() for one in listed):
        raise DataError(
            f"row {number}: column '{column}' is {row[column]!r:.60}; expected a text that is not empty as `answer`, "
            "or `answers`, a list of such texts or of objects with `text` and `answer_start`; fix or drop the row"
        )
    if not listed:
        raise DataError(f"row {number}: the question {row.get('question')!r} has no answer; expected at least one")
    return listed


def _listed(given: Any) -> list[Row] | None:
    """Answers as a list of objects, whichever form they have; None if it is none of those that are known."""
    if isinstance(given, list):
        return [one if isinstance(one, Mapping) else {"text": one} for one in given]
    # The `datasets` library has SQuAD with a list for each column.
    if not isinstance(given, Mapping) or not all(isinstance(values, list) for values in given.values()):
        return None
    if len({len(values) for values in given.values()}) > 1:
        return None
    return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]


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

    def __post_init__(self) -> None:
        check_template("template", self.template, ["story", "question"])
        check_template("answer", self.answer, [""])
        if self.sentences is not None and self.sentences < 1:
            raise ConfigError(f"sentences: got {self.sentences}, expected an integer >= 1, or null for all")

    def numbered(self, rows: Sequence[Row]) -> list[tuple[int, dict[str, Any]]]:
        """One example for each question, by the number of its line; raises `DataError` for a line that is neither."""
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
                found.append((number, self._example(story, question.strip(), rest.split("\t")[0], number)))
            else:
                story.append(line.strip())
        return found

    def examples(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The same without the numbers."""
        return [found for _, found in self.numbered(rows)]

    def _example(self, story: Sequence[str], question: str, answer: str, number: int) -> dict[str, Any]:
        if not answer.strip():
            raise DataError(
                f"row {number}: the question {question!r} has no answer; expected one after a tab, as in bAbI"
            )
        told = list(story if self.sentences is None else story[-self.sentences :])
        prompt = filled(self.template, {"story": " ".join(told), "question": question}, number)
        return example({"context": " ".join(told)}, prompt, [answer], self.answer)

    def check(self, train: Sequence[Row], evaluated: Sequence[Numbered]) -> None:
        """Nothing to compare."""

    def reward(self, completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
        """1 where the answer, but for white space around it, is right."""
        return [float(said.strip() == right[0]) for said, right in zip(completions, references, strict=True)]
