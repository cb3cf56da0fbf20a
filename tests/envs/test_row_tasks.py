"""Tasks on rows of data: what becomes of a row, what is rewarded, and which rows are refused."""

from pathlib import Path
from typing import Any

import pytest

from tokenq.envs.classification import Classification
from tokenq.envs.questions import Babi, QuestionAnswering
from tokenq.envs.translation import Translation
from tokenq.errors import ConfigError, DataError
from tokenq.replay.rows import read_rows

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
    train, held_out = task.examples([{"text": "x", "label": 0}]), task.examples([{"text": "y", "label": 1}])
    task.check(train, train)
    with pytest.raises(DataError, match="row 1: has the label 'b', which no training row has"):
        task.check(train, held_out)


def test_labels_must_differ_and_columns_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"names: got .*, expected at least two different"):
        Classification(["a", "a"])
    with pytest.raises(DataError, match="row 1: no column 'text'; expected one among sentence, label"):
        Classification(["a", "b"]).examples([{"sentence": "x", "label": 0}])


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
