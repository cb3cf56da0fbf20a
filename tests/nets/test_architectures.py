"""Fresh models of a chosen size, and what a masked language model becomes for a task."""

from typing import Any

import pytest
import torch

from tokenq.errors import ConfigError
from tokenq.nets.architectures import (
    Encoder,
    EncoderDecoder,
    Recurrent,
    RotaryTransformer,
    ShiftingTransformer,
    Transformer,
)
from tokenq.nets.encoder import EncoderQ
from tokenq.nets.families import is_masked_model, with_decisions
from tokenq.nets.loading import end_tokens, load_model, q_network, save_model
from tokenq.nets.tokenizers import Words

SIZE: dict[str, Any] = {"layers": 1, "width": 16}
KINDS: list[Any] = [
    Transformer(**SIZE, heads=2),
    Recurrent("gru", **SIZE),
    EncoderDecoder(**SIZE, heads=2),
    Encoder(**SIZE, heads=2),
    RotaryTransformer(**SIZE, heads=2),
    ShiftingTransformer(**SIZE, heads=2),
]


def made(kind: Any) -> tuple[Any, Any]:
    tokenizer = Words().train(["a few words to learn"], kind.frame, sentinels=False)
    torch.manual_seed(0)
    return kind.build(tokenizer), tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_model_is_drawn_from_the_seed_and_reads_back(kind: Any, tmp_path: Any) -> None:
    (model, tokenizer), (again, _) = made(kind), made(kind)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.state_dict().items())
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    save_model(model, tokenizer, tmp_path)
    loaded = load_model(str(tmp_path))
    assert type(loaded) is type(model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.state_dict().items())
    if not is_masked_model(model):
        assert q_network(model).factored and end_tokens(model, tokenizer) == [tokenizer.eos_token_id]


@pytest.mark.parametrize("labels", [["a", "b", "c"], []])
def test_an_encoder_decides_once_it_has_a_task(labels: list[str], tmp_path: Any) -> None:
    model, tokenizer = made(KINDS[3])
    decider = with_decisions(model, labels)
    network = q_network(decider)
    assert isinstance(network, EncoderQ) and network.decisions == (1 if labels else 2)
    body, original = decider.base_model.state_dict(), model.base_model.state_dict()
    assert all(torch.equal(body[name], tensor) for name, tensor in original.items())
    if labels:
        assert decider.config.id2label == {0: "a", 1: "b", 2: "c"}
    save_model(decider, tokenizer, tmp_path)
    assert type(load_model(str(tmp_path))) is type(decider)


def test_with_rotary_positions_only_distances_count() -> None:
    model, _ = made(RotaryTransformer(layers=2, width=16, heads=2))
    tokens, places = torch.tensor([[1, 2, 3, 4]]), torch.arange(4)[None]
    here, there = (model.eval()(tokens, position_ids=places + start).logits for start in (0, 100))
    assert torch.allclose(here, there, atol=1e-5)


def test_sizes_out_of_range() -> None:
    for change, message in [
        ({"width": 15}, "a multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Transformer(**({"heads": 4} | change))
    with pytest.raises(ConfigError, match=r"width: got 12, expected an even multiple of heads \(4\)"):
        RotaryTransformer(width=12, heads=4)
    with pytest.raises(ConfigError, match="vocabulary: got 3, expected at least"):
        made(Transformer(**SIZE, heads=2, vocabulary=3))
