"""Q heads: where they start, whom their gradient reaches, and the policy that they make with the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tokenq.errors import CheckpointError
from tokenq.learning.values import ActionValues, HeadedValues, TokenValues
from tokenq.nets.action_values import Dense
from tokenq.nets.heads import Q_HEADS, load_q_heads, q_heads
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import character_tokenizer, save_network
from tokenq.nets.q_heads import Guided, QHeads
from tokenq.ops import readout
from tokenq.types import Batch

Tiny = Callable[..., PreTrainedModel]
Episodes = Callable[..., list[Any]]
Recorded = Callable[..., Batch]
BETA = 2.0


def heads_that_speak(count: int = 2, value: bool = True, beta: float = BETA, top_k: int = 0) -> QHeads:
    torch.manual_seed(5)
    heads = QHeads(16, 31, count, value, beta, top_k)
    for head in [*heads.q.values(), *([heads.value] if value else [])]:
        torch.nn.init.normal_(head.outer.weight, std=0.3)
        torch.nn.init.normal_(head.outer.bias)
    return heads


@pytest.fixture(params=[1, 2**22], ids=["chunked", "whole"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "CHUNK", request.param)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_fresh_heads_answer_zero_and_leave_the_policy_alone(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    model = tiny(family)
    alone, network = LanguageQ(model), LanguageQ(model, q_heads=q_heads(model, 2, True, 100.0, 0))
    batch = recorded(alone, random_episodes(4))
    found, plain = network(batch), alone(batch)
    assert isinstance(found, Guided) and isinstance(found, ActionValues) and isinstance(found, HeadedValues)
    assert isinstance(found.policy, TokenValues) and found.policy.choices == 31
    assert not isinstance(plain, HeadedValues)
    assert all((head.at(batch.actions) == 0).all() for head in found.heads)
    assert found.state_value is not None and (found.state_value == 0).all()
    expected = plain.at(batch.actions) - plain.logsumexp[:, :-1]
    assert torch.allclose(found.at(batch.actions)[batch.decided], expected[batch.decided], atol=1e-5)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_answers_are_those_of_prior_times_exponential_of_the_least_value(
    family: str, top_k: int, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    """Gemma 2 caps its logits, so that its own answers are dense."""
    network = LanguageQ(tiny(family), q_heads=heads_that_speak(top_k=top_k))
    batch = recorded(LanguageQ(network.model), random_episodes(5))
    found = network(batch)
    texts, rows = batch.texts, torch.arange(5).unsqueeze(1)
    read = network.model(input_ids=texts.tokens, attention_mask=texts.attention, output_hidden_states=True)
    logits, hidden = read.logits[rows, texts.states].detach(), read.hidden_states[-1][rows, texts.states]
    q = [head.outer(head.activated(hidden)).detach() for head in network.q_heads.q.values()]
    if top_k:
        logits = logits.where(logits >= logits.topk(top_k).values[..., -1:], -torch.inf)
    expected = Dense((logits.log_softmax(-1) + BETA * torch.minimum(*q)).log_softmax(-1))

    valid, candidates = batch.valid, torch.randint(31, (*batch.valid.shape, 4))
    near = {"atol": 1e-4, "rtol": 1e-4}
    decided = batch.decided
    assert torch.allclose(found.at(batch.actions)[decided], expected.at(batch.actions)[decided], **near)
    assert torch.allclose(found.log_probability(batch.actions, 1)[decided], found.at(batch.actions)[decided])
    assert torch.allclose(found.among(candidates)[valid], expected.among(candidates)[valid], **near)
    assert torch.allclose(found.entropy[valid], expected.entropy[valid], **near)
    assert torch.allclose(found.soft_maximum(0.5)[valid], expected.soft_maximum(0.5)[valid], **near)
    assert torch.equal(found.logsumexp, torch.zeros(valid.shape))
    for ours, theirs in zip((*found.maximum, *found.top(2)), (*expected.maximum, *expected.top(2)), strict=True):
        assert torch.allclose(ours[valid].float(), theirs[valid].float(), **near)
    after, later = valid[:, 1:], found.following
    assert torch.equal(later.maximum[1][after], found.maximum[1][:, 1:][after])
    assert later.state_value is not None and torch.equal(later.state_value, found.state_value[:, 1:])
    assert not found.at(batch.actions).requires_grad


def test_the_gradient_of_every_question_reaches_what_it_should(
    tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny("llama"), q_heads=heads_that_speak())
    batch = recorded(LanguageQ(network.model), random_episodes(3))

    def reached(question: Callable[[Any], torch.Tensor]) -> set[str]:
        network.zero_grad()
        question(network(batch))[:, :1].sum().backward()
        moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        return {name.rpartition(".")[0] for name in moved if name.endswith("outer.weight") or "lm_head" in name} | (
            {"trunk"} if any("mlp" in name for name in moved) else set()
        )

    actions = batch.actions
    assert reached(lambda found: found.heads[0].at(actions)) == {"q_heads.q.first.outer", "trunk"}
    assert reached(lambda found: found.heads[1].log_probability(actions, 2)) == {"q_heads.q.second.outer", "trunk"}
    assert reached(lambda found: found.state_value) == {"q_heads.value.outer", "trunk"}
    assert reached(lambda found: found.policy.log_probability(actions, 2)) == {"model.lm_head", "trunk"}


@pytest.mark.parametrize(("count", "value"), [(1, False), (2, True)])
def test_what_is_saved_is_a_plain_model_and_the_same_heads(
    count: int, value: bool, tiny: Tiny, tmp_path: Any, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny("llama"), q_heads=heads_that_speak(count, value))
    save_network(network, character_tokenizer("abc"), tmp_path)
    again = LanguageQ(AutoModelForCausalLM.from_pretrained(tmp_path), q_heads=load_q_heads(tmp_path, BETA))
    batch = recorded(LanguageQ(network.model), random_episodes(3))
    assert torch.equal(again(batch).at(batch.actions), network(batch).at(batch.actions))
    assert set(load_file(tmp_path / Q_HEADS)) == set(network.q_heads.state_dict())
    assert not any("q_heads" in name for name in load_file(tmp_path / "model.safetensors"))


def test_a_folder_without_heads_is_refused(tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"q_heads\.safetensors"):
        load_q_heads(tmp_path, 1.0)
