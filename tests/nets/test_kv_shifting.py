"""Transformers with shifted keys and values: on paper, against GPT-NeoX, with padding and a cache, and elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from tokenq.nets.architectures import ShiftingTransformer
from tokenq.nets.kv_shifting import shift
from tokenq.nets.loading import character_tokenizer, save_model

Elsewhere = Callable[[Path], tuple[torch.Tensor, str]]
SHORT, LONG = [5, 3, 1], [2, 7, 1, 8, 2, 8, 1]


def make(characters: str = "abcdefgh", **changes: Any) -> Any:
    torch.manual_seed(0)
    architecture = ShiftingTransformer(**({"layers": 2, "width": 16, "heads": 2} | changes))
    model: Any = architecture.build(character_tokenizer(characters)).eval()
    with torch.no_grad():
        for layer in model.gpt_neox.layers:
            layer.attention.value_shift += torch.tensor([0.3, 0.8])  # so that there is something to get wrong
    return model


def test_a_share_of_the_token_before() -> None:
    x = torch.tensor([2.0, 4.0, 10.0]).reshape(1, 1, 3, 1).expand(2, 3, 3, 1)
    shares = torch.tensor([0.0, 1.0, 0.25])
    shifted = shift(x, shares, None)[0, :, :, 0]
    assert torch.equal(shifted, torch.tensor([[2.0, 4.0, 10.0], [0.0, 2.0, 4.0], [1.5, 3.5, 8.5]]))
    anew = shift(x, shares, torch.tensor([[False, True], [True, True]]))[..., 0]
    assert torch.equal(anew[0, :, 1:], torch.tensor([[4.0, 10.0], [0.0, 4.0], [3.0, 8.5]]))
    assert torch.equal(anew[1], shifted)


def test_without_a_shift_it_is_gpt_neox() -> None:
    model = make()
    for layer in model.gpt_neox.layers:
        torch.nn.init.zeros_(layer.attention.key_shift)
        torch.nn.init.zeros_(layer.attention.value_shift)
    plain = GPTNeoXForCausalLM(model.config).eval()
    unknown = plain.load_state_dict(model.state_dict(), strict=False)
    assert not unknown.missing_keys and {key.rpartition(".")[2] for key in unknown.unexpected_keys} == {
        "key_shift",
        "value_shift",
    }
    tokens = torch.tensor([LONG])
    assert torch.allclose(model(tokens).logits, plain(tokens).logits, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(attention: str, side: str) -> None:
    model = make()
    model.set_attn_implementation(attention)
    gap = [0] * (len(LONG) - len(SHORT))
    row, seen = (gap + SHORT, slice(len(gap), None)) if side == "left" else (SHORT + gap, slice(len(SHORT)))
    mask = torch.ones(2, len(LONG), dtype=torch.long)
    mask[0] = 0
    mask[0, seen] = 1
    together = model(torch.tensor([row, LONG]), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    assert torch.allclose(together.logits[0, seen], model(torch.tensor([SHORT])).logits[0], atol=1e-5)
    assert torch.allclose(together.logits[1], model(torch.tensor([LONG])).logits[0], atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_texts_do_not_see_each_other(attention: str) -> None:
    model = make()
    model.set_attn_implementation(attention)
    places = torch.tensor([[*range(len(SHORT)), *range(len(LONG))]])
    packed = model(torch.tensor([SHORT + LONG]), position_ids=places, use_cache=False).logits[0]
    assert torch.allclose(packed[: len(SHORT)], model(torch.tensor([SHORT])).logits[0], atol=1e-5)
    assert torch.allclose(packed[len(SHORT) :], model(torch.tensor([LONG])).logits[0], atol=1e-5)


def test_a_way_to_attend_without_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="flex_attention"):
        make().set_attn_implementation("flex_attention")


def test_a_cache_changes_nothing() -> None:
    model = make()
    mask = torch.tensor([[0] * 4 + [1] * 3, [1] * 7])
    prompts = {"input_ids": torch.tensor([[0] * 4 + SHORT, LONG]), "attention_mask": mask}
    settings = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    kept, anew = (model.generate(**prompts, **settings, use_cache=cache) for cache in (True, False))
    assert torch.equal(kept.sequences, anew.sequences)
    assert torch.allclose(torch.stack(kept.logits), torch.stack(anew.logits), atol=1e-5)
    beams = [model.generate(**prompts, max_new_tokens=6, num_beams=3, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*beams)


def test_a_fresh_head_writes_what_it_reads() -> None:
    model, width = make(), 16
    for layer in model.gpt_neox.layers:
        joint = layer.attention.query_key_value.weight.view(2, 3, width // 2, width)
        assert torch.equal(joint[:, 0], joint[:, 1]) and not torch.equal(joint[:, 0], joint[:, 2])
        assert torch.equal(layer.attention.dense.weight, joint[:, 2].reshape(width, width).T)
        assert layer.attention.key_shift.tolist() == [0.0, 1.0]


def test_a_fresh_layer_finds_what_followed_the_last_time() -> None:
    """One layer, no training: the head with the shifted key looks at the token behind the same word."""
    model = make(characters="abcdefghijklmnop", layers=1, width=256)
    model.set_attn_implementation("eager")
    tokens = torch.tensor([[3, 9, 12, 1, 7, 12]])
    weights = model(tokens, output_attentions=True).attentions[0][0]  # [H, Q, K]
    assert weights[1, -1].argmax() == 3  # token 1, which followed the first 12
    assert set(weights[0, -1].topk(2).indices.tolist()) == {2, 5}  # the other head sees both 12 themselves


def test_a_checkpoint_loads_where_tokenq_is_not_installed(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model, tokenizer, folder = make("abc"), character_tokenizer("abc"), tmp_path / "model"
    save_model(model, tokenizer, folder)
    logits, texts = elsewhere(folder)
    assert torch.equal(logits, model(torch.arange(5).unsqueeze(0)).logits)
    prompts = tokenizer(["ab", "cabc"], padding=True, padding_side="left", return_tensors="pt")
    written = model.generate(**prompts, max_new_tokens=4, do_sample=False)
    assert texts == "|".join(tokenizer.batch_decode(written, skip_special_tokens=True))
