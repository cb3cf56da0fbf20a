"""Tasks on rows of data: what becomes of a row, what is rewarded, and which rows are refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from tokenq.envs.classification import Classification
from tokenq.envs.questions import Babi, QuestionAnswering
from tokenq.envs.translation import Translation
from tokenq.errors import ConfigError, DataError
from tokenq.replay.rows import read_rows
from tokenq.scoring.overlap import sentence_chrf

PARAGRAPH = "The Panthers gave up just 308 points. Kawann Short led the team in sacks with 11."
LINES = [
    "1 Mary moved to the bathroom.",
    "2 John went to the hallway.",
    "3 Where is Mary? \tbathroom\t1",
    "4 Mary went to the garden.",
    "5 Where is Mary?\tgarden\t4",
    "1 Sandra took the milk.",
    "2 Where is Sandra?\tkitchen\t1",
]


def test_a_label_is_a_name_or_its_place() -> None:
    task = Classification(["negative", "positive"], template="{text} =", answer=" {}")
    good, bad = task.examples([{"text": "fun", "label": 1, "id": 7}, {"text": "dull", "label": "negative"}])
    assert good == {"text": "fun", "id": 7, "prompt": "fun =", "completion": " positive", "references": ["positive"]}
    assert bad["references"] == ["negative"]
    assert task.reward(completions=[" positive\n", "neg", ""], references=[["positive"], ["negative"], ["x"]]) == [
        1,
        0,
        0,
    ]


@pytest.mark.parametrize("label", [2, -1, "neutral", True])
def test_an_unknown_label_is_named_with_its_row(label: Any) -> None:
    with pytest.raises(DataError, match=f"row 2: column 'label' is {label!r}; expected one of negative, positive"):
        Classification(["negative", "positive"]).examples([{"text": "a", "label": 0}, {"text": "b", "label": label}])


def test_a_label_that_training_never_saw_is_named() -> None:
    task = Classification(["a", "b"])
    train = task.examples([{"text": "x", "label": 0}])
    task.check(train, task.numbered([{"text": "y", "label": 0}]))
    with pytest.raises(DataError, match="row 2: has the label 'b', which no training row has"):
        task.check(train, task.numbered([{"text": "y", "label": 0}, {"text": "y", "label": 1}]))


def test_labels_must_differ_and_columns_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"names: got .*, expected at least two different"):
        Classification(["a", "a"])
    with pytest.raises(DataError, match="row 1: no column 'text'; expected one among sentence, label"):
        Classification(["a", "b"]).examples([{"sentence": "x", "label": 0}])


def test_digits_are_a_place_unless_they_are_a_name() -> None:
    task = Classification(["negative", "positive"])
    assert [row["references"] for row in task.examples([{"text": "a", "label": label} for label in ("0", "1", 1)])] == [
        ["negative"],
        ["positive"],
        ["positive"],
    ]
    (stars,) = Classification(["1", "2", "3"]).examples([{"text": "a", "label": "1"}])
    assert stars["references"] == ["1"]
    with pytest.raises(DataError, match="row 1: column 'label' is '2'; expected one of negative, positive or a number"):
        task.examples([{"text": "a", "label": "2"}])


@pytest.mark.parametrize("blank", ["", " \t", None])
def test_an_empty_text_is_no_missing_column(blank: str | None) -> None:
    empty = r"row 2: column '{}' is empty; expected something in it; fill it or drop the row"
    good = {"text": "a", "label": 0, "en": "a", "de": "b"}
    for column in ("text", "label"):
        with pytest.raises(DataError, match=empty.format(column)):
            Classification(["a", "b"]).examples([good, good | {column: blank}])
    for column in ("en", "de"):
        with pytest.raises(DataError, match=empty.format(column)):
            Translation().examples([good, good | {column: blank}])


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (Classification, {"template": "{}"}, "template: got '{}', expected a text with columns of the row in braces"),
        (Classification, {"template": "{text"}, "template: got '{text', expected a text with columns of the row"),
        (Classification, {"template": "text"}, "template: got 'text', expected a text with columns of the row"),
        (Classification, {"template": "{text!r}"}, "template: got '{text!r}', expected"),
        (Classification, {"template": "{text:d}"}, "template: got '{text:d}', expected"),
        (
            Classification,
            {"answer": "{x}"},
            "answer: got '{x}', expected a text with {}; a brace of the text itself is",
        ),
        (Classification, {"answer": "yes"}, "answer: got 'yes', expected a text with {}"),
        (Translation, {"template": "{fr}"}, "template: got '{fr}', expected a text with {} or {en}"),
        (Translation, {"template": "}"}, "template: got '}', expected"),
        (Translation, {"answer": "{de}"}, "answer: got '{de}', expected a text with {}"),
        (QuestionAnswering, {"template": "{}"}, "template: got '{}', expected"),
        (QuestionAnswering, {"answer": "{"}, "answer: got '{', expected a text with {}"),
        (Babi, {"template": "{text}"}, "template: got '{text}', expected a text with {story} or {question}"),
        (Babi, {"answer": ""}, "answer: got '', expected a text with {}"),
        (Babi, {"sentences": 0}, "sentences: got 0, expected an integer >= 1, or null for all"),
        (Babi, {"sentences": -1}, "sentences: got -1, expected an integer >= 1"),
    ],
)
def test_a_setting_that_no_row_could_fit(task: Any, changes: dict[str, Any], message: str) -> None:
    names = {"names": ["a", "b"]} if task is Classification else {}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        task(**names, **changes)


def test_braces_of_a_text_itself_are_written_twice() -> None:
    task = Classification(["a", "b"], template="{{{text}}}", answer="{{{} {}}}")
    (row,) = task.examples([{"text": "{x", "label": 0}])
    assert (row["prompt"], row["completion"]) == ("{{x}", "{a a}")


def test_a_translation_is_scored_against_its_reference() -> None:
    task = Translation(template="en: {} de:", answer=" {}")
    (row,) = task.examples([{"en": "a man", "de": "ein Mann", "fr": "un homme"}])
    assert row == {"prompt": "en: a man de:", "completion": " ein Mann", "references": ["ein Mann"]}
    right, close, wrong = task.reward(["ein Mann", "ein Hund", "xyz"], references=[["ein Mann"]] * 3)
    assert right == pytest.approx(1.0) and right > close > wrong
    assert Translation(score="chrf").reward(["ein Mann"], references=[["ein Mann"]]) == pytest.approx([1.0])
    assert task.metrics == ("bleu", "chrf") and Translation(target="zh").metrics == ("bleu_zh", "chrf")
    with pytest.raises(DataError, match="row 2: no column 'de'"):
        task.examples([{"en": "a", "de": "b"}, {"en": "a"}])


def test_a_translation_may_name_its_source_column() -> None:
    named, unnamed = Translation(template="en: {en} de: "), Translation(template="en: {} de: ")
    rows = [{"en": "a man", "de": "ein Mann"}]
    assert named.examples(rows) == unnamed.examples(rows)


@pytest.mark.parametrize(
    ("target", "tokenize", "metric", "close"),
    [
        ("zh", None, "bleu_zh", True),
        ("zh_CN", None, "bleu_zh", True),
        ("zh", "13a", "bleu", False),
        ("ja", "char", "bleu_char", True),
        ("ja", None, "bleu", False),
    ],
)
def test_reward_and_metric_find_the_same_words(target: str, tokenize: Any, metric: str, close: bool) -> None:
    task = Translation(target=target, tokenize=tokenize)
    assert task.metrics == (metric, "chrf")
    right, near, wrong = task.reward(["我今天去学校", "我今天去公园", "xyz"], references=[["我今天去学校"]] * 3)
    assert right == pytest.approx(1.0) and wrong == 0
    assert (0.3 < near < 1.0) if close else near == 0
    chrf = Translation(target=target, tokenize=tokenize, score="chrf")
    assert chrf.reward(["我今天去公园"], references=[["我今天去学校"]]) == [
        sentence_chrf("我今天去公园", ["我今天去学校"])
    ]


def test_questions_of_a_paragraph_and_single_ones() -> None:
    asked = [{"question": "Who led?", "answers": [{"text": "Kawann Short", "answer_start": 38}, {"text": "Short"}]}]
    nested = {"title": "t", "context": PARAGRAPH, "qas": asked}
    (first,) = QuestionAnswering().examples([nested])
    assert first["prompt"] == f"{PARAGRAPH}\nWho led?\n" and first["references"] == ["Kawann Short", "Short"]
    assert (first["answer_start"], first["context"], first["completion"]) == (38, PARAGRAPH, "Kawann Short")
    (second,) = QuestionAnswering(template="{question}").examples(
        [{"context": PARAGRAPH, "question": "How many?", "answer": "308"}]
    )
    assert second["prompt"] == "How many?" and second["references"] == ["308"]
    assert QuestionAnswering(score="f1").reward(["Short"], references=[["Kawann Short"]]) == pytest.approx([2 / 3])
    assert QuestionAnswering(score="exact_match").reward(["the 308."], references=[["308"]]) == [1.0]


def test_every_form_of_answers() -> None:
    listed = {"text": ["Kawann Short", "Short"], "answer_start": [38, 45]}
    forms: list[tuple[dict[str, Any], list[str], int | None]] = [
        ({"answers": listed}, ["Kawann Short", "Short"], 38),
        ({"answers": {"text": ["308"]}}, ["308"], None),
        ({"answers": [{"text": "308", "answer_start": 26}]}, ["308"], 26),
        ({"answers": ["308", "11"]}, ["308", "11"], None),
        ({"answer": "308"}, ["308"], None),
        ({"answers": None, "answer": "11", "answer_start": 78, "qas": None}, ["11"], 78),
    ]
    for answers, references, start in forms:
        row = {"context": PARAGRAPH, "question": "?"} | answers
        nested = {"context": PARAGRAPH, "qas": [{"question": "?"} | answers]}
        for (found,) in map(QuestionAnswering().examples, ([row], [nested])):
            assert (found["references"], found.get("answer_start")) == (references, start)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": None}, r"the question '\?' has no answer; expected at least one"),
        ({"answers": []}, r"the question '\?' has no answer"),
        ({"answers": {"text": [], "answer_start": []}}, r"the question '\?' has no answer"),
        (
            {"answers": {"text": ["308"], "answer_start": []}},
            "column 'answers' is {'text': .*; expected a text that is",
        ),
        ({"answers": {"text": "308"}}, "column 'answers' is {'text': '308'}; expected a text that is not empty as"),
        ({"answers": "308"}, "column 'answers' is '308'; expected"),
        ({"answers": 308}, "column 'answers' is 308; expected"),
        ({"answers": [None]}, r"column 'answers' is \[None\]; expected"),
        ({"answers": [{"answer_start": 1}]}, r"column 'answers' is \[{'answer_start': 1}\]; expected"),
        ({"answer": " "}, "column 'answer' is ' '; expected a text that is not empty"),
        ({"answer": 308}, "column 'answer' is 308; expected"),
        ({"qas": "who"}, "column 'qas' is 'who'; expected a list of objects with question and answers"),
        ({"qas": ["who"]}, r"column 'qas' is \['who'\]; expected a list of objects"),
        ({"context": None, "answer": "308"}, "column 'context' is empty"),
    ],
)
def test_a_question_that_cannot_be_read_is_named(row: dict[str, Any], message: str) -> None:
    good = {"context": PARAGRAPH, "question": "?", "answer": "308"}
    bad = {"context": PARAGRAPH, "question": "?"} | row
    with pytest.raises(DataError, match=f"^row 2: {message}"):
        QuestionAnswering().examples([good, bad])


def test_examples_know_the_row_that_they_come_from() -> None:
    asked = [{"question": text, "answers": [{"text": "308"}]} for text in ("How many?", "What?")]
    rows = [{"context": PARAGRAPH, "qas": asked}, {"context": PARAGRAPH, "question": "And?", "answer": "11"}]
    assert [number for number, _ in QuestionAnswering().numbered(rows)] == [1, 1, 2]
    assert [number for number, _ in Babi().numbered([{"text": line} for line in LINES])] == [3, 5, 7]


def test_an_answer_that_is_not_in_its_paragraph_is_named() -> None:
    rows = [{"context": PARAGRAPH, "question": "Where?", "answer": "in Paris"}]
    with pytest.raises(DataError, match=r"row 1: the answer 'in Paris' to 'Where\?' is not in its paragraph"):
        QuestionAnswering().examples(rows)
    assert QuestionAnswering(extractive=False).examples(rows)[0]["references"] == ["in Paris"]
    with pytest.raises(DataError, match=r"row 1: the question 'Where\?' has no answer"):
        QuestionAnswering().examples([{"context": PARAGRAPH, "question": "Where?"}])


def test_stories_begin_at_one_and_are_told_up_to_the_question() -> None:
    rows = [{"text": line} for line in LINES]
    told = Babi().examples(rows)
    assert [row["references"] for row in told] == [["bathroom"], ["garden"], ["kitchen"]]
    assert told[0]["prompt"] == "Mary moved to the bathroom. John went to the hallway.\nWhere is Mary?\n"
    assert told[1]["context"].endswith("Mary went to the garden.") and told[2]["context"] == "Sandra took the milk."
    assert Babi(sentences=1).examples(rows)[1]["context"] == "Mary went to the garden."
    assert Babi().reward([" garden", "Garden"], references=[["garden"]] * 2) == [1.0, 0.0]
    with pytest.raises(DataError, match="row 2: got 'no number', expected a number and a sentence"):
        Babi().examples([rows[0], {"text": "no number"}])
    with pytest.raises(DataError, match=r"row 2: the question 'Where\?' has no answer; expected one after a tab"):
        Babi().examples([rows[0], {"text": "2 Where?\t\t1"}])


def test_real_data(shared_data: Path) -> None:
    def read(task: Any, *parts: str) -> list[dict[str, Any]]:
        return task.examples(read_rows(str(shared_data.joinpath(*parts))))

    assert len(read(Babi(), "babi", "en", "qa1_single-supporting-fact_test.txt")) == 1000
    assert len(read(QuestionAnswering(), "xquad", "xquad.en.jsonl")) == 1190
    assert len(read(QuestionAnswering(), "xquad", "xquad.zh.jsonl")) == 1190
    assert len(read(Translation(), "multi30k", "val.{en,de}")) == 1014
    assert len(read(Translation("en", "zh"), "tatoeba_en_zh", "dev.tsv")) == 1093
    topics = ["World", "Sports", "Business", "Technology"]
    assert len(read(Classification(topics), "ag_news", "dev.jsonl")) == 499
