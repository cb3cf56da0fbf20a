"""Tokenizers from text: what they keep, how they frame, and that they are the same in a saved folder."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tokenq.errors import ConfigError, DataError
from tokenq.nets.tokenizers import BPE, Characters, Unigram, WordPiece, Words

TEXTS = ["the cat sat on the mat", "the dog sat on the log"] * 30 + ["春眠不觉晓", "处处闻啼鸟"] * 9
KINDS: list[Any] = [Characters(), Words(), BPE(500), WordPiece(200), Unigram(200)]


@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back_and_a_saved_tokenizer_is_the_same(kind: Any, tmp_path: Path) -> None:
    tokenizer = kind.train(TEXTS, "bare", False)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.mask_token) == ("<pad>", "</s>", "<mask>")
    texts = ["the cat sat on the log"] if isinstance(kind, Words) else ["the cat sat on the log", "春眠不觉晓"]
    for text in texts:
        said = tokenizer.decode(tokenizer(text)["input_ids"])
        # WordPiece puts spaces between the Chinese characters that it cut apart.
        assert said.replace(" ", "") == text.replace(" ", "") if isinstance(kind, WordPiece) else said == text
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"] and len(again) == len(tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_frames(kind: Any) -> None:
    bare, ended, enclosed = (kind.train(TEXTS, frame, True) for frame in ("bare", "ended", "enclosed"))
    plain = bare("the cat")["input_ids"]
    start, end = bare.bos_token_id, bare.eos_token_id
    assert ended("the cat")["input_ids"] == [*plain, end]
    assert enclosed("the cat")["input_ids"] == [start, *plain, end]
    pair = enclosed("the cat", "the cat")
    assert pair["input_ids"] == [start, *plain, end, *plain, end]
    assert pair.sequence_ids() == [None, *[0] * len(plain), None, *[1] * len(plain), None]
    assert bare.convert_tokens_to_ids("<extra_7>") not in (None, bare.unk_token_id)
    assert kind.train(TEXTS, "bare", False).convert_tokens_to_ids("<extra_7>") in (None, bare.unk_token_id)


def test_frequent_words_alone_and_what_is_out_of_range() -> None:
    tokenizer = Words(vocabulary=7).train(["a a a b b c"], "bare", False)
    assert len(tokenizer) == 7 and tokenizer("a b c")["input_ids"] == [5, 6, tokenizer.unk_token_id]
    assert Words(lowercase=True).train(["A b"], "bare", False)("a B")["input_ids"] == [5, 6]
    with pytest.raises(ConfigError, match="vocabulary: got 10, expected an integer >= 500"):
        BPE(10)
    with pytest.raises(DataError, match="got no text to learn from"):
        Characters().train(["", ""], "bare", False)
