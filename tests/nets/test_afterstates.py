"""Afterstates: what is judged is the text with the token in it, while learning and while writing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import log_softmax
from transformers import (
    AutoModelForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from tokenq.acting.explore import Greedy
from tokenq.errors import ConfigError
from tokenq.learning.values import ActionValues, HeadedValues
from tokenq.nets import afterstates as module
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.heads import Q_HEADS, load_q_heads
from tokenq.nets.kv_shifting import ShiftingForCausalLM
from tokenq.nets.language import LanguageQ, trunk
from tokenq.nets.loading import character_tokenizer, q_network, save_network
from tokenq.nets.prior_guided import PriorGuided
from tokenq.nets.q_heads import Guided
from tokenq.nets.recurrent import RecurrentForCausalLM
from tokenq.types import Batch, Episode

Tiny = Callable[..., PreTrainedModel]
Episodes = Callable[..., list[Any]]
Recorded = Callable[..., Batch]
BETA, TRIED = 4.0, 3
NEVER = [30]
NO_SOURCE: list[list[int]] = []


def head_that_speaks(ahead: int = 0, beta: float = BETA, top_k: int = TRIED, min_p: float = 0.0) -> Afterstates:
    torch.manual_seed(5)
    head = Afterstates(16, ahead, beta, top_k, min_p)
    torch.nn.init.normal_(head.worth.outer.weight)
    for step in head.ahead:
        torch.nn.init.normal_(step.weight, std=0.3)
    return head


def greedy(logits: torch.Tensor) -> torch.Tensor:
    return Greedy().log_probabilities(logits, 0)


@torch.no_grad()
def by_hand(model: PreTrainedModel, head: Afterstates, tokens: list[int]) -> torch.Tensor:
    """log π_β + β·V of the text with each of the likeliest tokens behind it, normalised; one pass for each."""
    logits = model(torch.tensor([tokens])).logits[0, -1]
    found = torch.full_like(logits, -torch.inf)
    for token in logits.topk(head.top_k).indices.tolist():
        read = {"input_ids": torch.tensor([[*tokens, token]]), "attention_mask": torch.ones(1, len(tokens) + 1).long()}
        found[token] = logits[token] + head.beta * head.value(trunk(model, read)[0, -1])
    return log_softmax(found, -1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_the_policy_that_writes_is_that_of_the_formula(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    network = LanguageQ(tiny(family), q_heads=head_that_speaks())
    episodes = random_episodes(4)
    batch = recorded(LanguageQ(network.model), episodes)
    found = network(batch)
    assert isinstance(found, Guided) and isinstance(found, ActionValues) and isinstance(found, HeadedValues)
    candidates = torch.arange(31).expand(*batch.valid.shape, 31)
    answered = found.among(candidates)
    for b, episode in enumerate(episodes):
        for n, place in enumerate(episode.states):
            expected = by_hand(network.causal, network.q_heads, episode.tokens[: place + 1].tolist())
            assert torch.allclose(answered[b, n].exp(), expected.exp(), atol=1e-5)
            assert int(found.maximum[1][b, n]) == int(expected.argmax())
    after = batch.valid[:, 1:]
    assert torch.equal(found.following.maximum[1][after], found.maximum[1][:, 1:][after])


def test_a_taken_token_is_judged_where_it_stands(tiny: Tiny, random_episodes: Episodes, recorded: Recorded) -> None:
    network = LanguageQ(tiny("llama"), q_heads=head_that_speaks())
    episodes = random_episodes(4)
    batch = recorded(LanguageQ(network.model), episodes)
    taken = network(batch).heads[0].at(batch.actions)
    for b, episode in enumerate(episodes):
        tokens = torch.tensor(episode.tokens)[None]
        hidden = trunk(network.causal, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[0]
        expected = network.q_heads.value(hidden[torch.tensor(episode.decisions)])
        assert torch.allclose(taken[b, : len(expected)], expected, atol=1e-5)
        assert (taken[b, len(expected) :] == 0).all()
    taken.sum().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert "q_heads.worth.outer.weight" in moved and any("mlp" in name for name in moved)


def test_where_a_text_fills_the_context_nothing_is_tried(tiny: Tiny, recorded: Recorded) -> None:
    """GPT-2 has no place for a ninth token here, and guidance then says what the model does."""
    network = LanguageQ(tiny("gpt2", max_position_embeddings=8), q_heads=head_that_speaks(top_k=31))
    whole = Episode(np.arange(1, 9), np.arange(3, 8), np.zeros(5), terminated=False)
    alone = LanguageQ(network.model)
    batch = recorded(alone, [whole])
    candidates = torch.arange(31).expand(1, 6, 31)
    found, model = network(batch).among(candidates), alone(batch)
    expected = model.among(candidates) - model.logsumexp[..., None]
    assert torch.allclose(found[:, -1], expected[:, -1], atol=1e-5)
    assert not torch.allclose(found[:, -2], expected[:, -2], atol=0.1)


def test_what_the_model_finds_too_improbable_is_not_written(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny("llama"), q_heads=head_that_speaks(min_p=0.7))
    batch = recorded(LanguageQ(network.model), random_episodes(4))
    found, model = network(batch), LanguageQ(network.model)(batch)
    for answers, plain in ((found, model), (found.following, model.following)):
        best = plain.maximum[0] + math.log(0.7)
        candidates = torch.arange(31).expand(*best.shape, 31)
        cut = answers.among(candidates) == -torch.inf
        valid = batch.valid[:, -best.shape[1] :]
        below = plain.among(candidates) < best[..., None]
        assert cut[valid][below[valid]].all() and not cut[valid].all(-1).any()
        assert (~cut[valid]).sum(-1).float().mean() < TRIED
    prompt = [1, 2, 3, 4]
    (written,) = LanguageQ(network.model, q_heads=network.q_heads).complete([prompt], NO_SOURCE, greedy, 5, NEVER)
    for n, token in enumerate(written):
        with torch.no_grad():
            p = network.causal(torch.tensor([[*prompt, *written[:n]]])).logits[0, -1].softmax(-1)
        assert p[token] >= 0.7 * p.max() - 1e-5


def test_half_precision_foresees(tiny: Tiny, random_episodes: Episodes, recorded: Recorded) -> None:
    network = LanguageQ(tiny("llama").bfloat16(), q_heads=head_that_speaks(ahead=2))
    batch = recorded(LanguageQ(network.model), random_episodes(2))
    for head in network(batch).ahead:
        assert head.log_probability(batch.actions, 0).isfinite().all()
        assert head.log_probability(batch.actions, 2).isfinite().all()


def test_other_tokens_than_those_in_the_text_and_values_of_all_are_refused(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(), q_heads=head_that_speaks())
    batch = recorded(LanguageQ(network.model), random_episodes(2))
    judge = network(batch).heads[0]
    with pytest.raises(ConfigError, match="do not follow their state"):
        judge.at((batch.actions + 1) % 31)
    with pytest.raises(ConfigError, match="use heads"):
        judge.log_probability(batch.actions, 0)


def test_heads_that_foresee_start_as_the_model_and_then_have_a_matrix_each(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    model = tiny("llama")
    fresh = LanguageQ(model, q_heads=Afterstates(16, ahead=2, beta=100.0, top_k=TRIED))
    batch = recorded(LanguageQ(model), random_episodes(3))
    found, plain = fresh(batch), LanguageQ(model)(batch)
    assert (found.heads[0].at(batch.actions) == 0).all()
    for head in found.ahead:
        assert torch.allclose(head.at(batch.actions), plain.at(batch.actions), atol=1e-5)
    network = LanguageQ(model, q_heads=head_that_speaks(ahead=2))
    hidden = network.hidden_states(batch.texts)
    for step, head in zip(network.q_heads.ahead, network(batch).ahead, strict=True):
        logits = step(hidden)[:, :-1] @ network.readout.weight.T
        expected = logits.gather(-1, batch.actions[..., None])[..., 0]
        assert torch.allclose(head.at(batch.actions)[batch.decided], expected[batch.decided], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox"])
def test_padded_prompts_and_the_cache_give_the_best_token_of_every_step(family: str, tiny: Tiny) -> None:
    """GPT-2 and OPT count places from the start of a text, which padding on the left moves."""
    model, head = tiny(family).eval(), head_that_speaks()
    prompts = [[5], [1, 2, 3, 4, 5, 6], [7, 8, 9]]
    written = LanguageQ(model, q_heads=head).complete(prompts, NO_SOURCE, greedy, 5, NEVER)
    for prompt, tokens in zip(prompts, written, strict=True):
        for n, token in enumerate(tokens):
            found = by_hand(model, head, [*prompt, *tokens[:n]])
            assert float(found.max() - found[token]) < 1e-3
    assert written != LanguageQ(model).complete(prompts, NO_SOURCE, greedy, 5, NEVER)


@pytest.mark.parametrize("model_class", [ShiftingForCausalLM, RecurrentForCausalLM])
def test_our_own_models_are_guided_with_a_cache_and_without(model_class: type[PreTrainedModel]) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "eos_token_id": 0, "pad_token_id": 0}
    if model_class is ShiftingForCausalLM:
        sizes |= {"num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3}
    model, head = model_class(model_class.config_class(**sizes)).eval(), head_that_speaks()
    prompts = [[5], [1, 2, 3, 4], [7, 8]]
    written = LanguageQ(model, q_heads=head).complete(prompts, NO_SOURCE, greedy, 4, NEVER)
    for prompt, tokens in zip(prompts, written, strict=True):
        for n, token in enumerate(tokens):
            found = by_hand(model, head, [*prompt, *tokens[:n]])
            assert float(found.max() - found[token]) < 1e-3


@pytest.mark.parametrize("kind", ["mamba", "lfm2"])
def test_states_that_are_no_keys_and_values_are_copied_as_well(kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "initializer_range": 0.3}
    sizes |= {"tie_word_embeddings": False, **dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"), 0)}
    if kind == "mamba":
        model: PreTrainedModel = MambaForCausalLM(MambaConfig(**sizes, state_size=4))
    else:
        attends = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
        model = Lfm2ForCausalLM(Lfm2Config(**sizes, **attends, layer_types=["conv", "full_attention"]))
    head, prompts = head_that_speaks(), [[5, 6], [1, 2, 3, 4]]
    written = LanguageQ(model.eval(), q_heads=head).complete(prompts, NO_SOURCE, greedy, 4, NEVER)
    for prompt, tokens in zip(prompts, written, strict=True):
        for n, token in enumerate(tokens):
            found = by_hand(model, head, [*prompt, *tokens[:n]])
            assert float(found.max() - found[token]) < 1e-3


def test_a_token_is_tried_on_a_copy_of_the_cache(tiny: Tiny) -> None:
    read: list[tuple[int, ...]] = []
    model = tiny("llama").eval()
    network = LanguageQ(model, q_heads=head_that_speaks())
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, args, asked: read.append(tuple(asked["input_ids"].shape)), with_kwargs=True
    )
    network.complete([[1, 2, 3], [4, 5, 6]], NO_SOURCE, greedy, 3, NEVER)
    hook.remove()
    assert read == [(2, 3), (6, 1), (2, 1), (6, 1), (2, 1), (6, 1)]


def test_with_transformers_alone(tiny: Tiny) -> None:
    model, head = tiny("llama").eval(), head_that_speaks()
    (expected,) = LanguageQ(model, q_heads=head).complete([[1, 2, 3]], NO_SOURCE, greedy, 6, NEVER)
    with PriorGuided(model, head) as processor:
        text = model.generate(
            torch.tensor([[1, 2, 3]]), logits_processor=[processor], max_new_tokens=6, do_sample=False, eos_token_id=30
        )
    assert text[0, 3:].tolist() == expected


def test_a_decoder_that_reads_an_encoder_is_guided(encoder_decoder: PreTrainedModel) -> None:
    model = encoder_decoder
    head, sources = head_that_speaks(), [[7, 8, 9, 10], [3, 4]]
    written = LanguageQ(model, q_heads=head).complete([[0], [0]], sources, greedy, 3, NEVER)
    for source, tokens in zip(sources, written, strict=True):
        read = {"input_ids": torch.tensor([source]), "attention_mask": torch.ones(1, len(source)).long()}
        for n, token in enumerate(tokens):
            before = [0, *tokens[:n]]
            with torch.no_grad():
                logits = model(**read, decoder_input_ids=torch.tensor([before])).logits[0, -1]
            found = {}
            for tried in logits.topk(TRIED).indices.tolist():
                text = torch.tensor([[*before, tried]])
                decoder = {"decoder_input_ids": text, "decoder_attention_mask": torch.ones_like(text)}
                with torch.no_grad():
                    found[tried] = float(logits[tried] + BETA * head.value(trunk(model, read | decoder)[0, -1]))
            assert max(found.values()) - found[token] < 1e-3


def test_what_is_saved_is_a_plain_model_and_the_same_head(
    tiny: Tiny, tmp_path: Any, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny("llama"), q_heads=head_that_speaks(ahead=2))
    save_network(network, character_tokenizer("abc"), tmp_path)
    again = LanguageQ(AutoModelForCausalLM.from_pretrained(tmp_path), q_heads=load_q_heads(tmp_path, BETA, TRIED))
    batch = recorded(LanguageQ(network.model), random_episodes(3))
    assert torch.equal(again(batch).at(batch.actions), network(batch).at(batch.actions))
    assert set(load_file(tmp_path / Q_HEADS)) == set(network.q_heads.state_dict())


def test_models_that_write_nothing_or_cap_their_logits_are_refused(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    capped = LanguageQ(tiny("gemma2"), q_heads=head_that_speaks())
    with pytest.raises(ConfigError, match="use heads"):
        capped(recorded(LanguageQ(capped.model), random_episodes(2)))
    with pytest.raises(ConfigError, match="are capped"):
        q_network(tiny("gemma2"), q_heads=head_that_speaks())
    with pytest.raises(ConfigError, match="writes no text"):
        q_network(_classifier(), q_heads=head_that_speaks())


def _classifier() -> PreTrainedModel:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(vocab_size=31, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
