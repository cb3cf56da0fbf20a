"""What each scope copies, what it shares, and what it costs."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.learning.sync import NoTarget, Periodic
from tokenq.learning.target import Adapter, Full, HeadOnly, LastLayers, Target, TargetConfig
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.nets.loading import Lora, with_adapter
from tokenq.nets.q_heads import QHeads
from tokenq.types import Batch, Episode

Tiny = Callable[..., PreTrainedModel]
Episodes = Callable[..., list[Episode]]
Recorded = Callable[..., Batch]
Scope = Full | Adapter | LastLayers | HeadOnly

FAMILIES = ["gpt2", "llama", "qwen3", "opt", "gpt_neox", "gemma2", "cohere"]
TIED = {"gpt2", "opt", "gemma2", "cohere"}
V, D, FLOAT = 31, 16, 4


def target_of(network: LanguageQ, scope: Scope) -> Target:
    return Target(network, TargetConfig(Periodic(2), scope), 0)


def shared(network: LanguageQ, target: Target) -> set[str]:
    """Names of the copy's parameters that are the online network's own."""
    ours = {id(p) for p in network.parameters()}
    return {name for name, p in target.network.named_parameters() if id(p) in ours}


def shift(network: LanguageQ) -> None:
    """One update of every parameter that is trained."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def hidden(network: LanguageQ, batch: Batch) -> torch.Tensor:
    read = {"input_ids": batch.texts.tokens, "attention_mask": batch.texts.attention, "use_cache": False}
    return network.causal.base_model(**read).last_hidden_state[batch.texts.attention.bool()]


@pytest.mark.parametrize("scope", [Full(), LastLayers(1), LastLayers(2), HeadOnly()])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_answers_the_same_stays_behind_and_catches_up(
    family: str, scope: Scope, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(family))
    batch = recorded(network, random_episodes(3))
    target = target_of(network, scope)
    start = network(batch).at(batch.actions).detach()
    assert torch.equal(target.network(batch).at(batch.actions), start)
    assert target.gap() == 0.0

    shift(network)
    assert not target.follow(1) and target.gap() > 0.0 and target.lag == 1.0
    moved = network(batch).at(batch.actions).detach()
    lagging = target.network(batch).at(batch.actions).detach()
    assert not torch.allclose(lagging, moved, atol=1e-3)
    assert torch.allclose(lagging, start, atol=1e-5) == isinstance(scope, Full)

    assert target.follow(2) and target.gap() == 0.0 and target.lag == 0.0
    assert torch.equal(target.network(batch).at(batch.actions), moved)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_shares_nothing_and_keeps_a_tied_matrix_tied(family: str, tiny: Tiny) -> None:
    network = LanguageQ(tiny(family), ValueHead(D))
    target = target_of(network, Full())
    assert shared(network, target) == set()
    assert target.bytes == FLOAT * sum(p.numel() for p in network.parameters())
    embedding = target.network.causal.get_input_embeddings().weight
    assert (target.network.readout.weight is embedding) == (family in TIED)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_only_unties_the_matrix_while_hidden_states_stay_equal(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(family))
    batch = recorded(network, random_episodes(3))
    assert (network.readout.weight is network.causal.get_input_embeddings().weight) == (family in TIED)
    target = target_of(network, HeadOnly())
    assert [pair.lagging for pair in target.pairs] == [target.network.readout.weight]
    assert target.pairs[0].online is network.readout.weight
    assert target.bytes == FLOAT * V * D
    shift(network)
    assert torch.equal(hidden(target.network, batch), hidden(network, batch))
    assert target.network.causal.get_input_embeddings().weight is network.causal.get_input_embeddings().weight


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_of_a_model_with_q_heads_these_alone_lag_and_with_every_other_scope_they_do_too(
    family: str, tiny: Tiny, random_episodes: Episodes, recorded: Recorded
) -> None:
    network = LanguageQ(tiny(family), q_heads=QHeads(D, V, 2, True))
    names = {name for name, _ in network.named_parameters() if name.startswith("q_heads.")}
    batch = recorded(LanguageQ(network.model), random_episodes(3))
    target = target_of(network, HeadOnly())
    assert {pair.name for pair in target.pairs} == names
    # Two of norm 2·D, D·2D + 2D and 2D·V + V, one of the same with 1 for V.
    assert target.bytes == FLOAT * (3 * (2 * D + D * 2 * D + 2 * D) + (2 * D + 1) * (2 * V + 1))
    shift(network)
    assert torch.equal(target.network(batch).policy.hidden, network(batch).policy.hidden)
    assert not torch.equal(target.network(batch).state_value, network(batch).state_value)
    for scope in (Full(), LastLayers(1)):
        assert names < {pair.name for pair in target_of(network, scope).pairs}
    assert not any(".0." in pair.name for pair in target_of(network, LastLayers(1)).pairs)


def test_heads_that_foresee_are_no_layers_of_the_model(tiny: Tiny) -> None:
    network = LanguageQ(tiny("gpt2"), q_heads=Afterstates(D, ahead=5))
    heads = {name for name, _ in network.named_parameters() if name.startswith("q_heads.")}
    for k in (1, 2):
        copied = {pair.name for pair in target_of(network, LastLayers(k)).pairs}
        assert heads < copied and any("ln_f" in name for name in copied)
        assert {name.split(".")[3] for name in copied if ".h." in name} == {"1", "0"} - ({"0"} if k == 1 else set())
    with pytest.raises(ConfigError, match="at most 2"):
        target_of(network, LastLayers(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layers_share_everything_below(family: str, tiny: Tiny) -> None:
    network = LanguageQ(tiny(family), ValueHead(D))
    target = target_of(network, LastLayers(1))
    below = shared(network, target)
    copied = {pair.name for pair in target.pairs}
    assert any(".0." in name for name in below) and not any(".0." in name for name in copied)
    assert any(".1." in name for name in copied) and not any(".1." in name for name in below)
    assert any("norm" in name or "ln_f" in name for name in copied if ".1." not in name), "the final norm lags"
    assert {name for name in copied if name.startswith("value_head.")} == {
        name for name, _ in network.named_parameters() if name.startswith("value_head.")
    }
    assert target.network.readout.weight is not network.readout.weight
    assert not any("emb" in name or "wte" in name or "wpe" in name for name in copied)


def test_adapter_scope_copies_the_adapter_alone(tiny: Tiny, random_episodes: Episodes, recorded: Recorded) -> None:
    model = with_adapter(tiny("llama"), Lora(r=3, alpha=8, target_modules=["q_proj", "v_proj"]))
    network = LanguageQ(model)
    target = target_of(network, Adapter())
    # Two layers; q maps 16 to 16 and v 16 to 8; A is [3, 16], B [out, 3].
    assert target.bytes == FLOAT * 2 * (3 * 16 + 16 * 3 + 3 * 16 + 8 * 3)
    assert {"lora_A" in pair.name or "lora_B" in pair.name for pair in target.pairs} == {True}
    headed = LanguageQ(model, q_heads=QHeads(D, V, 1, False))
    assert len(target_of(headed, Adapter()).pairs) == len(target.pairs) + 6
    batch = recorded(network, random_episodes(2))
    start = target.network(batch).at(batch.actions)
    shift(network)
    assert torch.equal(target.network(batch).at(batch.actions), start)
    assert not torch.allclose(network(batch).at(batch.actions), start, atol=1e-3)


def test_adapter_scope_needs_an_adapter_and_last_layers_need_layers(tiny: Tiny) -> None:
    network = LanguageQ(tiny())
    with pytest.raises(ConfigError, match="set use_peft to true"):
        target_of(network, Adapter())
    with pytest.raises(ConfigError, match="k: got 3 layers to lag, expected at most 2"):
        target_of(network, LastLayers(3))


def test_without_a_target_the_online_network_is_its_own(tiny: Tiny) -> None:
    network = LanguageQ(tiny())
    target = Target(network, TargetConfig(NoTarget()), 0)
    assert target.network is network
    assert (target.bytes, target.lag, target.gap(), target.follow(1)) == (0, 0.0, 0.0, False)


@pytest.mark.parametrize("scope", [Full(), LastLayers(1), HeadOnly()])
def test_lagging_parameters_need_no_gradient_and_shared_ones_still_do(scope: Scope, tiny: Tiny) -> None:
    network = LanguageQ(tiny())
    target = target_of(network, scope)
    assert not any(pair.lagging.requires_grad for pair in target.pairs)
    assert all(p.requires_grad for p in network.parameters())
