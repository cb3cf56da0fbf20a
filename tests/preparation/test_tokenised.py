"""Tokens: every column comes along, and what is cut is counted."""

from collections.abc import Callable

import pytest

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.records import Record
from tokenq.preparation.tokenised import Tokenise, fingerprint, with_one_schema

Records = Callable[..., list[Record]]


def encode(texts: list[str], longest: int | None) -> list[list[int]]:
    """A tokenizer of characters with an end token, which stays when a text is cut."""
    return [[*map(ord, text[: None if longest is None else longest - 1]), 0] for text in texts]


def test_columns_order_and_truncation(records: Records) -> None:
    rows = records({"text": "ab", "n": 1}, {"text": "abcd", "n": None}, {"text": "", "n": 3})
    table = Tokenise("x", max_length=4).apply(rows, ["text"], encode)
    assert table.arrow.to_pydict() == {
        "text": ["ab", "abcd", ""],
        "n": [1, None, 3],
        "input_ids": [[97, 98, 0], [97, 98, 99, 0], [0]],
    }
    assert (table.tokens, table.longest, table.truncated) == (8, 5, 1)
    assert Tokenise("x").apply(rows, ["text"], encode).truncated == 0


def test_more_rows_than_a_batch(records: Records) -> None:
    rows = records(*(str(i) for i in range(2500)))
    ids = Tokenise("x").apply(rows, ["text"], encode).arrow.column("input_ids").to_pylist()
    assert ids == [[*map(ord, str(i)), 0] for i in range(2500)]


def test_translations_become_labels(records: Records) -> None:
    table = Tokenise("x").apply(records({"en": "a", "de": "bc"}), ["en", "de"], encode)
    assert table.arrow.to_pylist() == [{"en": "a", "de": "bc", "input_ids": [97, 0], "labels": [98, 99, 0]}]


def test_parts_get_one_schema_and_a_name_that_only_content_decides(records: Records) -> None:
    step = Tokenise("x")
    train = step.apply(records({"text": "a", "augmented": "swap"}), ["text"], encode)
    valid = step.apply(records({"text": "b", "augmented": None}), ["text"], encode)
    parts = with_one_schema({"train": train, "valid": valid})
    assert parts["train"].schema == parts["valid"].schema
    assert parts["valid"].to_pylist() == [{"text": "b", "augmented": None, "input_ids": [98, 0]}]
    assert fingerprint(parts["valid"]) != fingerprint(parts["train"])
    assert fingerprint(parts["valid"]) == fingerprint(with_one_schema({"train": train, "valid": valid})["valid"])


def test_what_cannot_become_a_table(records: Records) -> None:
    with pytest.raises(DataError, match="has a column 'input_ids', where tokens are written"):
        Tokenise("x").apply(records({"text": "a", "input_ids": [1]}), ["text"], encode)
    with pytest.raises(DataError, match="column 'n'"):
        Tokenise("x").apply(records({"text": "a", "n": 1}, {"text": "a", "n": "one"}), ["text"], encode)
    tables = [Tokenise("x").apply(records({"text": "a", "n": n}), ["text"], encode) for n in (1, "one")]
    with pytest.raises(DataError, match="give all values of a column one type"):
        with_one_schema(dict(zip(("train", "valid"), tables, strict=True)))
    with pytest.raises(ConfigError, match="max_length: got 0"):
        Tokenise("x", max_length=0)
