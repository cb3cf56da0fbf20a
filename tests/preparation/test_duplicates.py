"""Duplicates: against a brute-force reference, and what becomes of groups."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tokenq.errors import ConfigError
from tokenq.preparation.against import Against
from tokenq.preparation.duplicates import MISSED, Exact, Near, jaccard
from tokenq.preparation.records import Record
from tokenq.preparation.words import shingles

Records = Callable[..., list[Record]]


def noisy_copies(seed: int, groups: int = 40, words: int = 60) -> list[str]:
    """Texts of random words, each with three copies in which 0 to 6 words are others."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(groups):
        original = rng.integers(5000, size=words)
        for changes in (0, *rng.integers(0, 7, size=3)):
            copy = original.copy()
            copy[rng.choice(words, size=changes, replace=False)] = rng.integers(5000, size=changes)
            texts.append(" ".join(f"w{word}" for word in copy))
    return [texts[i] for i in rng.permutation(len(texts))]


def test_shingles_by_hand() -> None:
    assert shingles("The dog, the DOG barks", 2) == {"the dog", "dog the", "dog barks"}
    assert shingles("狗在叫", 2) == {"狗 在", "在 叫"}
    assert shingles("one", 3) == {"one"} and shingles("!?", 3) == {"!?"}
    assert jaccard(shingles("a b c d", 2), shingles("a b c e", 2)) == 0.5


def test_exact_duplicates_differ_in_case_and_space_at_most(records: Records) -> None:
    outcome = Exact().apply(records("A dog.", "a  dog.", "a dog", "\uff21 dog.\n"), ["text"])
    assert [record.row for record in outcome.kept] == [1, 3]
    assert [(note.record.row, note.detail) for note in outcome.removed] == [(2, "of data row 1"), (4, "of data row 1")]


def test_two_translations_of_one_sentence_are_no_duplicates(records: Records) -> None:
    rows = records(
        {"en": "Hi there", "de": "Hallo"}, {"en": "Hi there", "de": "Guten Tag"}, {"en": "hi there", "de": "HALLO"}
    )
    for step in (lambda: Exact().apply(rows, ["en", "de"]), lambda: Near().apply(rows, ["en", "de"], 0)):
        assert [record.row for record in step().kept] == [1, 2]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_near_duplicates_are_those_of_the_slow_way(records: Records, threshold: float) -> None:
    texts = noisy_copies(seed=int(10 * threshold))
    sets = [shingles(text, 3) for text in texts]
    kept: list[int] = []
    for i in range(len(texts)):
        if all(jaccard(sets[i], sets[j]) < threshold for j in kept):
            kept.append(i)
    outcome = Near(threshold=threshold).apply(records(*texts), ["text"], seed=0)
    assert [record.row - 1 for record in outcome.kept] == kept
    assert len(kept) < len(texts)  # there was something to find


def test_near_duplicates_in_chinese(records: Records) -> None:
    first, second = "酒店的房间很干净、服务员也很热情、下次还会住。", "酒店的房间很干净、服务员也很热情、下次再来住。"
    outcome = Near(threshold=0.6).apply(records(first, second, "早餐不好吃、房间太小、再也不来了。"), ["text"], 0)
    assert [record.row for record in outcome.kept] == [1, 3]
    # 20 characters each make 18 shingles of three, of which 还会 and 再来 spoil three: 15 / 21.
    assert outcome.removed[0].detail == "of data row 1, similarity 0.71"


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_keep_the_promise_about_misses(threshold: float) -> None:
    near = Near(threshold=threshold)
    rows = near.permutations // near.bands
    assert (1 - threshold**rows) ** near.bands <= MISSED
    wider = near.bands // 2
    assert wider == 0 or (1 - threshold ** (near.permutations // wider)) ** wider > MISSED


def test_against_other_files(records: Records) -> None:
    ours = records("The quick brown fox jumps over a lazy dog today", "Something else entirely here", "short one")
    theirs = {"test": records("the quick brown fox jumps over a lazy dog, today!", "Short  ONE", file="test")}
    outcome = Against(["test"]).apply(ours, theirs, ["text"], 0)
    assert [record.row for record in outcome.kept] == [2]
    assert [(note.reason, note.detail) for note in outcome.removed] == [
        ("also in test", "as test row 1"),
        ("also in test", "as test row 2"),
    ]
    assert len(Against(["test"], near=None).apply(ours, theirs, ["text"], 0).removed) == 1


def test_one_side_of_a_translation_is_enough_to_leak(records: Records) -> None:
    ours = records({"en": "a dog", "de": "ein Hund"}, {"en": "a cat", "de": "eine Katze"})
    theirs = records({"en": "one dog", "de": "Ein Hund"}, file="test")
    assert len(Against(["test"]).apply(ours, {"test": theirs}, ["en", "de"], 0).kept) == 1


def test_settings_that_cannot_be() -> None:
    for wrong in ({"threshold": 0.0}, {"threshold": 1.1}, {"threshold": 0.01}, {"size": 0}, {"permutations": 100}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Near(**wrong)
    with pytest.raises(ConfigError, match="files: got none"):
        Against([])


def test_the_order_of_a_group_decides_who_stays(records: Records) -> None:
    texts = ["a b c d e f g h i j", "a b c d e f g h i k", "z b c d e f g h i k"]
    # Neighbours in this chain are alike (7 of 9 shingles), its ends are not (6 of 10).
    near = Near(threshold=0.7)
    for order in itertools.permutations(range(3)):
        kept = [order[record.row - 1] for record in near.apply(records(*(texts[i] for i in order)), ["text"], 0).kept]
        assert kept == ([1] if order[0] == 1 else [i for i in order if i != 1])
