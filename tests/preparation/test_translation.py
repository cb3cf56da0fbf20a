"""Back-translation through a model: the greedy translation, whole or not at all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from tokenq.errors import ConfigError
from tokenq.nets.loading import character_tokenizer
from tokenq.preparation.translation import ModelTranslator, Request

SYMBOLS = "abcdefgh "
END, PAD = len(SYMBOLS), len(SYMBOLS) + 1
IDS: dict[str, Any] = {"vocab_size": PAD + 1, "eos_token_id": END, "pad_token_id": PAD}
TEXTS = ["abc", "", "hgf edc", "  ", "a" * 17, "b", "dead beef", "cab"]


def bart() -> Any:
    torch.manual_seed(1)
    own: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    heads: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "init_std": 0.5}
    starts: dict[str, Any] = {"bos_token_id": END, "decoder_start_token_id": END, "forced_eos_token_id": END}
    model = BartForConditionalGeneration(BartConfig(**IDS, **own, **heads, **starts, max_position_embeddings=16))
    model.final_logits_bias[0, END] = 3.0  # random models hardly ever end by themselves
    return model.eval()


def t5() -> Any:
    torch.manual_seed(4)
    own: dict[str, Any] = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "initializer_factor": 8.0,
    }
    starts: dict[str, Any] = {"decoder_start_token_id": PAD}
    return T5ForConditionalGeneration(T5Config(**IDS, **own, **starts)).eval()


@torch.no_grad()
def by_hand(model: Any, tokenizer: Any, text: str, limit: int) -> str:
    """Token by token and text by text, without padding; nothing if it does not end before the limit."""
    source = torch.tensor([tokenizer(text)["input_ids"]])
    said = [model.config.decoder_start_token_id]
    while len(said) < limit:
        logits = model(input_ids=source, decoder_input_ids=torch.tensor([said])).logits[0, -1]
        said.append(int(logits.argmax()))
        if said[-1] == END:
            return str(tokenizer.decode(said[1:], skip_special_tokens=True)).strip()
    return ""


@pytest.mark.parametrize("make", [bart, t5])
def test_greedy_and_to_the_end_or_not_at_all(make: Callable[[], Any]) -> None:
    model, tokenizer = make(), character_tokenizer(SYMBOLS)
    translator = ModelTranslator(model, tokenizer, frozenset({END}), 16, Request(max_new_tokens=8))
    found = translator(TEXTS)
    expected = [by_hand(model, tokenizer, t, 8) if t.strip() and len(t) <= 16 else "" for t in TEXTS]
    assert found == expected
    assert any(found) and any(not said for said, text in zip(found, TEXTS, strict=True) if 0 < len(text.strip()) <= 16)
    assert translator(["", " "]) == ["", ""]
    prefixed = ModelTranslator(model, tokenizer, frozenset({END}), 16, Request("ha ", 8))
    assert prefixed(["abc"]) == translator(["ha abc"])


@pytest.mark.parametrize(
    "args", [{"beams": 4}, {"max_new_tokens": 1}, {"max_new_tokens": 2.5}, {"max_new_tokens": True}, {"prefix": 3}]
)
def test_what_a_model_cannot_be_asked(args: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected prefix \(a text\) and max_new_tokens \(an integer >= 2\)"):
        Request.of(args)
