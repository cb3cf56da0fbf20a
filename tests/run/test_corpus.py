"""What the supervised stages read: stored tokens in the place of texts."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from tokenq.config.supervised import PretrainConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import DataError
from tokenq.nets.tokenizers import Words
from tokenq.run.corpus import pretraining_tokens, tokens_of
from tokenq.run.given import Given

TEXTS = ["one two", "two three one"]


@pytest.fixture
def framed() -> Any:
    """A tokenizer that puts one token before every text and one behind it."""
    tokenizer: Any = Words().train(TEXTS, "bare", False)
    around = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer.pad_token, tokenizer.eos_token)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{around[0][0]} $A {around[1][0]}", special_tokens=around
    )
    return tokenizer


@pytest.fixture
def stored(framed: Any) -> list[dict[str, Any]]:
    return [{"text": text, "input_ids": framed(text)["input_ids"]} for text in TEXTS]


@pytest.fixture
def read(framed: Any, jsonl: Callable[..., str]) -> Callable[..., list[list[int]]]:
    def tokens(rows: list[dict[str, Any]]) -> list[list[int]]:
        config = TrainConfig(pretrain=PretrainConfig(dataset=jsonl(rows)))
        return pretraining_tokens(config, Given(), framed)

    return tokens


def test_stored_tokens_are_those_of_the_text_alone(framed: Any, stored: list[dict[str, Any]], read: Any) -> None:
    plain = tokens_of(TEXTS, framed)
    assert [len(row["input_ids"]) for row in stored] == [len(own) + 2 for own in plain]
    assert read(stored) == plain
    cut = [row | {"input_ids": [*row["input_ids"][:2], row["input_ids"][-1]]} for row in stored]
    assert read(cut) == [own[:1] for own in plain]


def test_tokens_of_one_side_alone_are_not_taken_for_the_text(
    framed: Any, stored: list[dict[str, Any]], read: Any
) -> None:
    sides = [row | {"input_ids": [0], "labels": [1]} for row in stored]
    assert read(sides) == tokens_of(TEXTS, framed)
    pairs = [{"prompt": text, "completion": " yes", "input_ids": [0]} for text in TEXTS]
    assert read(pairs) == tokens_of([f"{text} yes" for text in TEXTS], framed)


def test_tokens_of_another_tokenizer_are_refused_with_the_row(stored: list[dict[str, Any]], read: Any) -> None:
    with pytest.raises(DataError, match="row 2: its input_ids are not those of the run's tokenizer"):
        read([stored[0], stored[1] | {"input_ids": stored[0]["input_ids"]}])
    with pytest.raises(DataError, match="row 21: got token 99, expected tokens below"):
        read([stored[0]] * 20 + [{"text": "two", "input_ids": [0, 99, 1]}])
