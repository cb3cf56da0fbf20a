"""Causal language models of several families as Q-functions."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from tokenq.nets.action_values import Dense, Factored
from tokenq.nets.language import LanguageQ, ValueHead, is_factored
from tokenq.nets.loading import Lora, with_adapter, with_peft_config
from tokenq.types import Batch, Episode

Tiny = Callable[..., PreTrainedModel]
Episodes = Callable[..., list[Episode]]
Recorded = Callable[..., Batch]

PLAIN = ["gpt2", "llama", "qwen3", "opt", "gpt_neox"]
CAPPED_OR_SCALED = ["gemma2", "cohere"]


@pytest.mark.parametrize("family", PLAIN + CAPPED_OR_SCALED)
def test_answers_agree_with_the_logits_of_the_model(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(family))
    batch = recorded(network, random_episodes(4))
    values = network(batch)
    assert isinstance(values, Factored if family in PLAIN else Dense)
    logits = network.model(input_ids=batch.texts.tokens, attention_mask=batch.texts.attention).logits
    logits = logits[torch.arange(4).unsqueeze(1), batch.texts.states]
    taken = logits[:, :-1].gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    states = torch.cat([batch.decided[:, :1], batch.decided], dim=1)
    assert torch.allclose(values.at(batch.actions)[batch.decided], taken[batch.decided], atol=1e-4)
    assert torch.allclose(values.logsumexp[states], logits.logsumexp(-1)[states], atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.3])
@pytest.mark.parametrize("family", CAPPED_OR_SCALED)
def test_a_cap_or_a_factor_is_found_however_small_the_logits_are(family: str, scale: float, tiny: Tiny) -> None:
    assert not is_factored(tiny(family, initializer_range=scale).eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", PLAIN)
def test_plain_models_are_factored_in_every_precision(family: str, dtype: torch.dtype, tiny: Tiny) -> None:
    assert is_factored(tiny(family).to(dtype).eval())


def test_trying_a_model_out_leaves_no_hook_behind(tiny: Tiny) -> None:
    model = tiny().eval()
    tokens = torch.arange(5).unsqueeze(0)
    before = model(tokens).logits
    assert is_factored(model)
    assert torch.equal(model(tokens).logits, before)


def test_an_adapter_on_the_output_layer_is_not_factored(tiny: Tiny) -> None:
    """Its own contribution starts at zero, so that numbers alone would not show it."""
    inner = with_adapter(tiny("llama"), Lora(r=2, alpha=4, target_modules=["q_proj"]))
    outer = with_peft_config(tiny("llama"), LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    assert LanguageQ(inner).factored and not LanguageQ(outer).factored


def test_dropout_is_always_off(tiny: Tiny, random_episodes: Episodes, recorded: Recorded) -> None:
    network = LanguageQ(tiny("gpt2", resid_pdrop=0.9, embd_pdrop=0.9).train())
    batch = recorded(network, random_episodes(2))
    assert torch.equal(network(batch).at(batch.actions), network(batch).at(batch.actions))


@pytest.mark.parametrize("family", ["gpt2", "cohere"])
def test_value_head_starts_at_zero_and_its_gradient_stays_in_it(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(family), ValueHead(16))
    batch = recorded(network, random_episodes(3))
    value = network(batch).state_value
    assert value is not None and (value == 0).all()
    value.sum().backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched == {"value_head.outer.weight", "value_head.outer.bias"}
    assert all(p.grad is None for p in network.model.parameters())


def test_value_head_reads_the_last_hidden_state_with_and_without_factoring(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    head = ValueHead(16)
    torch.nn.init.normal_(head.outer.weight)
    network = LanguageQ(tiny("llama"), head)
    batch = recorded(network, random_episodes(3))
    factored = network(batch)
    network.factored = False
    dense = network(batch)
    assert isinstance(dense, Dense) and dense.state_value is not None and factored.state_value is not None
    assert torch.allclose(dense.state_value, factored.state_value, atol=1e-5)
    assert factored.state_value.abs().max() > 0.1
