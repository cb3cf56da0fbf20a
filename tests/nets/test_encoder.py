"""Encoders that decide over labels or positions, and encoder–decoders: the same questions, the same answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from tokenq.acting.explore import Greedy
from tokenq.learning.values import Head, Logits
from tokenq.nets.encoder import EncoderQ, QNetwork
from tokenq.nets.heads import q_heads
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.nets.loading import q_network
from tokenq.nets.q_heads import Guided
from tokenq.nets.reference import Reference
from tokenq.ops.policies import prior_guided
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.types import Batch, Episode

V, WIDTH, START = 23, 16, 1
SIZES = {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32}
SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
BERT = {"vocab_size": V, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": START}


def bart() -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(vocab_size=V, bos_token_id=START, init_std=0.3, **SIZES, **SPECIAL))


def marian() -> PreTrainedModel:
    return MarianMTModel(MarianConfig(vocab_size=V, init_std=0.3, **SIZES, **SPECIAL))


def t5(**changes: Any) -> PreTrainedModel:
    size = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=V, **size, **SPECIAL, **changes))


def classifier() -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**BERT, num_labels=3, initializer_range=0.5))


def reader() -> PreTrainedModel:
    return BertForQuestionAnswering(BertConfig(**BERT, initializer_range=0.5))


ENCODER_DECODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bart": bart,
    "marian": marian,
    "t5 scaled": t5,
    "t5": lambda: t5(tie_word_embeddings=False),
}
ENCODERS = {"classifier": classifier, "reader": reader}
EVERY = ENCODER_DECODERS | ENCODERS


def network_of(name: str, head: bool = False, seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    return q_network(EVERY[name](), ValueHead(WIDTH) if head else None)


def episodes_of(name: str, seed: int = 0) -> list[Episode]:
    """Three texts of unequal lengths; the numbers that a reader decides lie inside its source."""
    rng = np.random.default_rng(seed)
    lengths = [3, 7, 5]
    if name in ENCODER_DECODERS:
        decided = [rng.integers(3, V, size) for size in (4, 2, 3)]
    elif name == "classifier":
        decided = [rng.integers(0, 3, 1) for _ in lengths]
    else:
        decided = [np.array([n // 2, n - 1]) for n in lengths]
    return [
        Episode(
            np.array([START if name in ENCODER_DECODERS else 0, *actions]),
            np.arange(1, 1 + len(actions)),
            np.append(np.zeros(len(actions) - 1), 1.0),
            terminated=True,
            source=rng.integers(3, V, length),
        )
        for length, actions in zip(lengths, decided, strict=True)
    ]


def batch_of(network: QNetwork, episodes: Sequence[Episode], k: int = 0) -> Batch:
    recorded = Reference(network, plausible=k).record(episodes)
    return collate(Sample(recorded, np.arange(len(recorded)), np.ones(len(recorded), np.float32)), 0)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_log_probabilities_are_those_of_transformers(name: str) -> None:
    network = network_of(name)
    assert isinstance(network, LanguageQ) and network.factored == (name != "t5 scaled")
    batch = batch_of(network, episodes_of(name))
    ours = network(batch).log_probability(batch.actions, samples=0)
    for row, episode in enumerate(episodes_of(name)):
        source, tokens = torch.tensor(episode.source)[None], torch.tensor(episode.tokens)[None]
        logits = network.model(input_ids=source, decoder_input_ids=tokens).logits.log_softmax(-1)
        expected = logits[0, :-1].gather(-1, tokens[0, 1:, None]).squeeze(-1)
        assert torch.allclose(ours[row, : len(expected)], expected, atol=1e-5)


def test_a_classifier_decides_once_over_its_labels() -> None:
    network = network_of("classifier")
    episodes = episodes_of("classifier")
    batch = batch_of(network, episodes)
    values = network(batch)
    for row, episode in enumerate(episodes):
        logits = network.model(input_ids=torch.tensor(episode.source)[None]).logits[0]
        assert torch.allclose(values.values[row, 0], logits, atol=1e-5)
        assert torch.allclose(values.at(batch.actions)[row, 0], logits[int(episode.actions[0])], atol=1e-5)
    assert (values.values[:, 1] == 0).all()


def test_a_reader_never_ends_before_it_starts_or_outside_of_its_source() -> None:
    network = network_of("reader")
    episodes = episodes_of("reader")
    batch = batch_of(network, episodes)
    values = network(batch).values
    for row, episode in enumerate(episodes):
        answer = network.model(input_ids=torch.tensor(episode.source)[None])
        n, start = len(episode.source), int(episode.actions[0])
        assert torch.allclose(values[row, 0, :n], answer.start_logits[0], atol=1e-5)
        assert torch.allclose(values[row, 1, start:n], answer.end_logits[0, start:], atol=1e-5)
        assert (values[row, :2, n:] == -torch.inf).all() and (values[row, 1, :start] == -torch.inf).all()


@pytest.mark.parametrize("values", [Logits(), Head(samples=2)])
@pytest.mark.parametrize("name", EVERY)
def test_values_start_at_exactly_zero_and_padding_changes_nothing(name: str, values: Logits | Head) -> None:
    network = network_of(name, head=isinstance(values, Head))
    batch = batch_of(network, episodes_of(name))
    q = values.q(network(batch), batch)
    assert torch.allclose(q[batch.decided], torch.zeros(int(batch.decided.sum())), atol=2e-6)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.mul_(1.1)
    together = values.q(network(batch), batch).detach()
    reference = q_network(EVERY[name]())
    torch.manual_seed(0)
    reference = q_network(EVERY[name]())
    for row, episode in enumerate(episodes_of(name)):
        alone = collate(Sample(Reference(reference).record([episode]), np.arange(1), np.ones(1, np.float32)), 0)
        assert torch.allclose(values.q(network(alone), alone)[0], together[row, : len(episode.actions)], atol=1e-4)
    assert together[batch.decided].abs().max() > 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_greedy_completions_take_the_best_action_at_every_state(name: str) -> None:
    network = network_of(name)
    sources = [episode.source.tolist() for episode in episodes_of(name)]
    start = [[START if name in ENCODER_DECODERS else 0]] * len(sources)

    def greedy(logits: Tensor) -> Tensor:
        return Greedy().log_probabilities(logits, 0)

    decided = network.complete(start, sources, greedy, 4, [2] if name in ENCODER_DECODERS else [])
    written = [
        Episode(
            np.array([*first, *actions]), np.arange(1, 1 + len(actions)), np.zeros(len(actions)), True, source=source
        )
        for first, actions, source in zip(start, decided, map(np.array, sources), strict=True)
    ]
    batch = batch_of(network, written)
    assert torch.equal(network(batch).maximum[1][:, :-1][batch.decided], batch.actions[batch.decided])
    alone = [
        network.complete([first], [source], greedy, 4, [2] if name in ENCODER_DECODERS else [])[0]
        for first, source in zip(start, sources, strict=True)
    ]
    assert alone == decided


@pytest.mark.parametrize("name", EVERY)
def test_a_lagging_copy_stays_where_it_was(name: str) -> None:
    network = network_of(name)
    batch = batch_of(network, episodes_of(name))
    twin = network.lagging_copy(lambda parameter: True)
    before = twin(batch).at(batch.actions).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    assert torch.equal(twin(batch).at(batch.actions)[batch.decided], before[batch.decided])
    assert not torch.equal(network(batch).at(batch.actions)[batch.decided], before[batch.decided])
    assert not any(parameter.requires_grad for parameter in twin.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_plausible_actions_fill_up_where_there_are_few(name: str) -> None:
    network = network_of(name)
    batch = batch_of(network, episodes_of(name), k=8)
    assert batch.reference.plausible.shape[-1] == 8
    assert torch.isfinite(
        batch.reference.plausible_logit[batch.decided.nonzero()[:, 0], batch.decided.nonzero()[:, 1]]
    ).all()
    if name == "classifier":
        assert (batch.reference.plausible[:, 0, 3:] == batch.reference.plausible[:, 0, :1]).all()
        assert set(batch.reference.plausible[0, 0].tolist()) == {0, 1, 2}


def test_which_network_a_model_is() -> None:
    assert isinstance(network_of("classifier"), EncoderQ) and network_of("classifier").decisions == 1
    assert isinstance(network_of("reader"), EncoderQ) and network_of("reader").decisions == 2
    assert isinstance(network_of("bart"), LanguageQ)


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("name", ENCODERS)
def test_q_heads_guide_what_an_encoder_decides(name: str, top_k: int) -> None:
    torch.manual_seed(0)
    model = EVERY[name]()
    heads = q_heads(model, 2, True, 1.5, top_k)
    network, alone = EncoderQ(model, q_heads=heads), EncoderQ(model)
    batch = batch_of(alone, episodes_of(name))
    fresh = network(batch)
    assert isinstance(fresh, Guided) and all((head.at(batch.actions)[batch.decided] == 0).all() for head in fresh.heads)
    for head in [*heads.q.values(), heads.value]:
        torch.nn.init.normal_(head.outer.weight)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    found = network(batch)
    assert isinstance(found, Guided) and found.state_value is not None
    assert (found.state_value[torch.arange(3), batch.decided.sum(1)] == 0).all(), "all is decided there"
    for row, episode in enumerate(episodes_of(name)):
        answer: Any = model(input_ids=torch.tensor(episode.source)[None], output_hidden_states=True)
        hidden = answer.hidden_states[-1][0]
        start = int(episode.actions[0])
        if name == "classifier":
            asked, places = [answer.logits[0]], [0]
            said = [[head.outer(head.activated(hidden[0]))] for head in heads.q.values()]
        else:
            asked, places = [answer.start_logits[0], answer.end_logits[0, start:]], [0, start]
            both = [head.outer(head.activated(hidden)) for head in heads.q.values()]
            said = [[of_one[:, 0], of_one[start:, 1]] for of_one in both]
        for n, (logits, place) in enumerate(zip(asked, places, strict=True)):
            expected = prior_guided(logits, torch.minimum(said[0][n], said[1][n]), 1.5, top_k)
            action = int(episode.actions[n]) - (0 if n == 0 else start)
            assert float(found.at(batch.actions)[row, n]) == pytest.approx(float(expected[action]), abs=1e-4)
            worth = heads.value.outer(heads.value.activated(hidden[place]))
            assert float(found.state_value[row, n]) == pytest.approx(float(worth), abs=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_guided_encoder_decides_what_its_heads_prefer(name: str) -> None:
    torch.manual_seed(0)
    model = EVERY[name]()
    heads = q_heads(model, 1, False, 50.0, 0)
    torch.nn.init.normal_(heads.q["first"].outer.weight)
    network = EncoderQ(model, q_heads=heads)
    sources = [episode.source.tolist() for episode in episodes_of(name)]
    decided = network.complete([[0]] * 3, sources, lambda logits: Greedy().log_probabilities(logits, 0), 4, [])
    for source, actions in zip(sources, decided, strict=True):
        hidden = model(input_ids=torch.tensor([source]), output_hidden_states=True).hidden_states[-1][0]
        (values,) = heads.values(hidden)
        if name == "classifier":
            assert actions == [int(values[0].argmax())]
        else:
            start = int(values[:, 0].argmax())
            assert actions == [start, start + int(values[start:, 1].argmax())]


def test_a_language_model_with_a_classifiers_head_is_judged_where_it_has_read_everything() -> None:
    torch.manual_seed(0)
    size = {"vocab_size": V, "n_embd": WIDTH, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
    model = GPT2ForSequenceClassification(GPT2Config(num_labels=3, initializer_range=0.5, **size)).eval()
    heads = q_heads(model, 1, True, 1.0, 0)
    for head in (heads.q["first"], heads.value):
        torch.nn.init.normal_(head.outer.weight)
    network = EncoderQ(model, q_heads=heads)
    batch = batch_of(EncoderQ(model), episodes_of("classifier"))
    found = network(batch)
    for row, episode in enumerate(episodes_of("classifier")):
        last = model(input_ids=torch.tensor(episode.source)[None], output_hidden_states=True).hidden_states[-1][0, -1]
        (values,) = heads.values(last)
        assert torch.allclose(found.heads[0].values[row, 0], values, atol=1e-4)
        assert torch.allclose(found.state_value[row, 0], heads.state_value(last), atol=1e-4)
