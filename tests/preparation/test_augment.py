"""Augmentation: what copies look like, and that labels come along."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.augment import Aids, Augment, BackTranslation, Dropout, Swap, marked
from tokenq.preparation.records import Record
from tokenq.preparation.synonyms import Synonyms, read_vectors

Records = Callable[..., list[Record]]
VECTORS = "good 1 0\ngreat 0.9 0.1\nfine 0.8 0.6\nbad -1 0\nalone 0 1\n"


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    (tmp_path / "vectors.txt").write_text(VECTORS)
    return str(tmp_path / "vectors.txt")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b,", "我", "dog"]), min_size=1), st.floats(0.05, 0.95), st.integers(0, 99))
def test_dropout_leaves_words_in_order_and_at_least_one(words: list[str], probability: float, seed: int) -> None:
    (left,) = Dropout(probability).apply([" ".join(words)], rng(seed))
    rest = iter(words)
    assert left and all(word in rest for word in left.split())


def test_dropout_drops_as_many_as_it_says() -> None:
    (left,) = Dropout(0.2).apply([" ".join(["word"] * 5000)], rng())
    assert abs(len(left.split()) - 4000) < 5 * (5000 * 0.2 * 0.8) ** 0.5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 999).map(str), min_size=1, unique=True), st.integers(0, 99))
def test_swap_moves_words_by_one_place(words: list[str], seed: int) -> None:
    (text,) = Swap(0.5).apply(["  ".join(words)], rng(seed))
    swapped = text.split("  ")
    assert sorted(swapped) == sorted(words)
    assert all(abs(swapped.index(word) - i) <= 1 for i, word in enumerate(words))


def test_swap_in_chinese_and_at_the_end() -> None:
    assert Swap(0.999).apply(["我有狗", "a b c"], rng()) == ["有我狗", "b a c"]


def test_synonyms_are_near_keep_their_case_and_their_punctuation(vectors: str) -> None:
    step = Synonyms(vectors, probability=1.0, k=1, threshold=0.9)
    # The cosine of good and great is 0.994, that of good and fine 0.8; alone has no neighbour above 0.6.
    assert step.apply(["Good, (GOOD) bad alone unknown  good!"], step.neighbours(), rng()) == [
        "Great, (GREAT) bad alone unknown  great!"
    ]
    both = Synonyms(vectors, probability=1.0, k=2, threshold=0.7)
    drawn = Counter(both.apply(["good"] * 400, both.neighbours(), rng()))
    assert drawn.keys() == {"great", "fine"} and min(drawn.values()) > 150
    assert both.neighbours().of("good") == ["great", "fine"]


def test_malformed_vectors_are_named(tmp_path: Path) -> None:
    for content, message in (
        ("a 1 2\nb 1\n", "row 2: has 1 numbers, expected 2"),
        ("a 1 2\nb 1 x\n", "row 2: could not convert"),
        ("", "is empty"),
    ):
        (tmp_path / "v.txt").write_text(content)
        with pytest.raises(DataError, match=message):
            read_vectors(tmp_path / "v.txt")
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "w.txt")


def test_copies_carry_labels_and_say_how_they_were_made(records: Records, vectors: str) -> None:
    rows = records({"text": "a good dog", "label": 1}, {"text": "bad", "label": 0})
    step = Augment(
        swap=Swap(0.999), synonyms=Synonyms(vectors, probability=1.0, k=1), back_translation=BackTranslation("x", "y")
    )
    aids = Aids(step.synonyms.neighbours(), (lambda texts: [text[::-1] for text in texts], lambda texts: texts))
    copies = step.apply(rows, "text", 0, aids)
    assert [(record.row, dict(record.values)) for record in copies.records] == [
        (1, {"text": "good a dog", "label": 1, "augmented": "swap"}),
        (1, {"text": "a great dog", "label": 1, "augmented": "synonyms"}),
        (1, {"text": "god doog a", "label": 1, "augmented": "back_translation"}),
        (2, {"text": "dab", "label": 0, "augmented": "back_translation"}),
    ]
    assert copies.nothing_new == {"swap": 1, "synonyms": 1}
    assert [record.values["augmented"] for record in marked(rows)] == [None, None]
    with pytest.raises(DataError, match="data row 1: has a column 'augmented'"):
        marked(marked(rows))


def test_a_kind_draws_the_same_whatever_else_is_on(records: Records) -> None:
    rows = records("one two three four five six seven eight nine ten")
    alone = Augment(copies=2, swap=Swap(0.3)).apply(rows, "text", 5, Aids())
    beside = Augment(copies=2, swap=Swap(0.3), dropout=Dropout(0.3)).apply(rows, "text", 5, Aids())
    swaps = [copy.text("text") for copy in beside.records if copy.values["augmented"] == "swap"]
    assert len(swaps) == 2 and swaps == [copy.text("text") for copy in alone.records]


def test_translators_that_answer_wrongly() -> None:
    def fails(texts: list[str]) -> list[str]:
        raise RuntimeError("no\nmemory")

    step = BackTranslation("x", "y")
    for way, message in (
        (fails, "augment.back_translation.forward: raised RuntimeError: no memory"),
        (lambda texts: texts[1:], "got 1 items, expected a list of 2 texts"),
        (lambda texts: "ab", "got str, expected a list"),
        (lambda texts: [1, 2], "expected a list of 2 texts"),
    ):
        with pytest.raises(ConfigError, match=message):
            step.apply(["a", "b"], way, list)


def test_real_vectors(shared_data: Path) -> None:
    step = Synonyms(str(shared_data / "glove_twitter_25d" / "glove_twitter_25d.txt"), probability=1.0, k=3)
    neighbours = step.neighbours()
    assert "sunday" in neighbours.of("saturday") and neighbours.of("zzzzqq") == []
    (text,) = step.apply(["Saturday was good."], neighbours, rng())
    assert text != "Saturday was good." and text.endswith(".") and text[0].isupper()
