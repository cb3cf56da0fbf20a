"""Splitting: sizes, labels, and above all nothing that stands in two parts."""

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.duplicates import Near, jaccard
from tokenq.preparation.records import Record
from tokenq.preparation.split import Split
from tokenq.preparation.words import plain_key, shingles

Records = Callable[..., list[Record]]


def different(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in rng.integers(10_000, size=12)) for _ in range(n)]


def test_sizes_are_those_asked_for_and_order_is_kept(records: Records) -> None:
    rows = records(*different(200))
    parts = Split(valid=0.1, test=0.25).apply(rows, ["text"], 0)
    assert {part: len(found) for part, found in parts.records.items()} == {"train": 130, "valid": 20, "test": 50}
    assert (parts.groups, parts.largest) == (200, 1)
    for found in parts.records.values():
        assert [record.row for record in found] == sorted(record.row for record in found)
    everything = sorted(record.row for found in parts.records.values() for record in found)
    assert everything == list(range(1, 201))


def test_a_share_of_zero_is_no_part(records: Records) -> None:
    assert Split(valid=0.0, test=0.5).apply(records(*different(4)), ["text"], 0).records.keys() == {"train", "test"}
    assert Split(valid=0.0, test=0.0).apply(records(*different(4)), ["text"], 0).records.keys() == {"train"}


def test_the_seed_decides(records: Records) -> None:
    rows = records(*different(60))

    def rows_of_test(seed: int) -> list[int]:
        return [record.row for record in Split(test=0.2).apply(rows, ["text"], seed).records["test"]]

    assert rows_of_test(1) == rows_of_test(1) != rows_of_test(2)


def test_nothing_exact_or_near_is_in_two_parts(records: Records) -> None:
    rng = np.random.default_rng(3)
    texts = different(60)
    # A chain of copies, each with one word changed: its ends are not alike, but nothing may cut it.
    for text in texts[:30]:
        words = text.split()
        for _ in range(3):
            words[rng.integers(len(words))] = f"w{rng.integers(10_000)}"
            texts.append(" ".join(words))
        texts.append(text.upper())
    rows = records(*(texts[i] for i in rng.permutation(len(texts))))
    near = Near(threshold=0.5)
    parts = Split(valid=0.2, test=0.2, near=near).apply(rows, ["text"], 0).records
    compared = 0
    for ours, theirs in itertools.combinations(parts.values(), 2):
        for a, b in itertools.product(ours, theirs):
            assert plain_key(a.text("text")) != plain_key(b.text("text"))
            assert jaccard(shingles(a.text("text"), 3), shingles(b.text("text"), 3)) < near.threshold
            compared += 1
    assert compared > 1000
    # Without the ties the same rows do leak, so the test above could fail.
    loose = Split(valid=0.2, test=0.2, near=None).apply(rows, ["text"], 0).records
    assert any(
        jaccard(shingles(a.text("text"), 3), shingles(b.text("text"), 3)) >= near.threshold
        for a, b in itertools.product(loose["train"], loose["test"])
    )


def test_one_side_of_a_translation_ties(records: Records) -> None:
    rows = records(*({"en": f"sentence {i // 2} of many", "de": f"Satz {i} von vielen"} for i in range(40)))
    parts = Split(valid=0.2, test=0.2).apply(rows, ["en", "de"], 0)
    assert parts.largest == 2
    sources = [{record.text("en") for record in found} for found in parts.records.values()]
    assert all(not a & b for a, b in itertools.combinations(sources, 2))


@settings(max_examples=25, deadline=None)
@given(
    titles=st.lists(st.integers(0, 12), min_size=40, max_size=80),
    seed=st.integers(0, 1000),
)
def test_groups_stay_together(titles: list[int], seed: int) -> None:
    rows = [Record({"text": f"t{i}", "title": title}, "data", i + 1) for i, title in enumerate(titles)]
    try:
        parts = Split(valid=0.2, test=0.2, group="title", near=None).apply(rows, ["text"], seed).records
    except DataError as error:
        assert "got no row" in str(error)
        return
    found = [{record.values["title"] for record in part} for part in parts.values()]
    assert sum(map(len, found)) == len(set(titles))


def test_stratified_parts_have_the_same_mixture(records: Records) -> None:
    labels = ["common"] * 140 + ["rare"] * 60
    rows = records(*({"text": text, "label": label} for text, label in zip(different(200), labels, strict=True)))
    parts = Split(valid=0.1, test=0.1, stratify="label").apply(rows, ["text"], 0).records
    mixtures = {part: Counter(record.values["label"] for record in found) for part, found in parts.items()}
    assert mixtures == {
        "train": {"common": 112, "rare": 48},
        "valid": {"common": 14, "rare": 6},
        "test": {"common": 14, "rare": 6},
    }


def test_a_label_that_training_never_sees(records: Records) -> None:
    rows = records(*({"text": f"t{i}", "label": "y" if i == 9 else "x", "title": int(i >= 6)} for i in range(10)))
    # The group of six goes to train, and with it no y.
    with pytest.raises(DataError, match=r"data row 10: column 'label' is \"y\" and the row fell to valid"):
        Split(valid=0.4, test=0.0, group="title", stratify="label", near=None).apply(rows, ["text"], 0)


def test_what_cannot_be_split(records: Records) -> None:
    with pytest.raises(DataError, match="valid got no row: 4 rows are tied into 1 groups, the largest of 4"):
        Split(near=None).apply(records(*["same"] * 4), ["text"], 0)
    with pytest.raises(DataError, match="data row 2: column 'label' is null"):
        Split(stratify="label").check(records({"text": "a", "label": 1}, {"text": "b", "label": None}))
    with pytest.raises(DataError, match="data row 1: column 'title' is not there, only text"):
        Split(group="title").check(records("a"))
    for wrong in ({"valid": -0.1}, {"test": 1.0}, {"valid": 0.5, "test": 0.5}):
        with pytest.raises(ConfigError, match="expected a"):
            Split(**wrong)
