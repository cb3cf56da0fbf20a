"""Supervised learning: losses against those of transformers, learning by heart, validation and early stopping."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from tokenq.config.supervised import PretrainConfig
from tokenq.errors import ConfigError
from tokenq.nets.families import with_decisions
from tokenq.nets.language import LanguageQ
from tokenq.nets.likelihood import next_token_loss
from tokenq.nets.pretext import Causal, Masked, SpanCorruption
from tokenq.nets.tokenizers import Words
from tokenq.ops.schedules import Decay
from tokenq.run.corpus import tokens_of
from tokenq.run.stage import Stage
from tokenq.run.supervise import pretext, pretrain_model
from tokenq.supervised import EarlyStopping, Fit, SupervisedLearner, mean_loss

Tiny = Callable[..., PreTrainedModel]


def masked(vocabulary: int) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForMaskedLM(BertConfig(vocab_size=vocabulary, hidden_dropout_prob=0.0, **sizes))


def encoder_decoder(vocabulary: int) -> PreTrainedModel:
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32, "dropout": 0.0}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    special = {"pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": 3}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocabulary, **sizes, **special))


MODELS = {Masked: masked, SpanCorruption: encoder_decoder}
TEXTS = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 1, 2, 3]]


def losses(learner: SupervisedLearner) -> list[float]:
    return [learner.step().loss for _ in range(learner.settings.updates)]


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "cohere"])
def test_loss_is_that_of_transformers_with_padding_ignored(family: str, tiny: Tiny) -> None:
    network = LanguageQ(tiny(family))
    loss = next_token_loss(network, [torch.tensor(text) for text in TEXTS])
    total, count = 0.0, 0
    for text in TEXTS:
        tokens = torch.tensor([text])
        alone = network.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        total, count = total + float(alone.detach()) * (len(text) - 1), count + len(text) - 1
    assert float(loss.detach()) == pytest.approx(total / count, abs=1e-5)


def test_repeated_texts_are_learned_by_heart_and_the_seed_decides(tiny: Tiny) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = tiny()
        loss = Causal().loss(model, [[1, 2, 3, 4], [5, 6, 7]], Words().train(["a"], "bare", False))
        runs.append(losses(SupervisedLearner(model, loss, 2, Fit(60, 4, 0.02), seed)))
    assert runs[0] == runs[1] != runs[2] and len(runs[0]) == 60
    assert runs[0][0] > 2.0 and runs[0][-1] < 0.1


def test_only_what_requires_a_gradient_changes_and_dropout_acts_in_updates_alone(tiny: Tiny) -> None:
    model = tiny()
    model.requires_grad_(False)
    model.transformer.ln_f.weight.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = []

    def loss(chosen: list[int], generator: torch.Generator) -> torch.Tensor:
        modes.append(model.training)
        return next_token_loss(LanguageQ(model).train(), [torch.tensor(TEXTS[i]) for i in chosen])

    losses(SupervisedLearner(model, loss, 3, Fit(3, 2, 0.01), 0))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"transformer.ln_f.weight"}
    assert modes == [True] * 3 and not model.training


def test_the_rate_falls_as_it_is_told() -> None:
    # Under a constant gradient AdamW moves by its learning rate: the way after two of four updates tells the decay.
    ways: dict[Decay, float] = {"constant": 2.0, "linear": 1.75, "cosine": 1.0 + (1 + 0.5**0.5) / 2}
    for decay, way in ways.items():
        model = nn.Linear(1, 1, bias=False)
        start = model.weight.item()
        settings = Fit(4, 1, 0.01, weight_decay=0.0, decay=decay)
        learner = SupervisedLearner(model, lambda chosen, generator, net=model: net.weight.sum(), 1, settings, seed=0)
        learner.step(), learner.step()
        assert start - model.weight.item() == pytest.approx(0.01 * way, rel=1e-4)


def test_muon_turns_matrices_of_layers_by_equal_amounts_in_all_directions_and_leaves_the_rest_to_adamw(
    tiny: Tiny,
) -> None:
    model = tiny("gpt2")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = Causal().loss(model, [[1, 2, 3, 4], [5, 6, 7]], Words().train(["a"], "bare", False))
    settings = Fit(1, 8, 0.01, weight_decay=0.0, decay="constant", optim="muon")
    SupervisedLearner(model, loss, 2, settings, seed=0).step()
    moved = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    turned = moved["transformer.h.0.mlp.c_fc.weight"]
    sizes = torch.linalg.svdvals(turned) / (0.01 * 0.2 * max(turned.shape) ** 0.5)
    assert len(sizes) == min(turned.shape) and sizes[:4].min() > 0.5 and sizes.max() < 1.4
    embedding = moved["transformer.wte.weight"]
    assert embedding.abs().max() == pytest.approx(0.01, rel=0.01), "the first step of AdamW"


def test_muon_needs_layers() -> None:
    with pytest.raises(ConfigError, match="optim: got muon, but no matrix of a layer is trained; expected adamw"):
        SupervisedLearner(
            nn.Linear(2, 2), lambda chosen, generator: torch.zeros(()), 1, Fit(1, 1, 0.1, optim="muon"), 0
        )


def test_the_mean_loss_weighs_every_example_alike() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0])
    assert mean_loss(lambda chosen, _: values[list(chosen)].mean(), 5, batch_size=2) == pytest.approx(4.0)


def test_early_stopping_keeps_the_best_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    stopping = EarlyStopping(model, patience=2)
    stops = []
    for update, loss in enumerate([3.0, 1.0, 2.0, 1.0], start=1):
        with torch.no_grad():
            model.weight.fill_(update)
        stops.append(stopping.observe(update, loss))
    assert stops == [False, False, False, True]
    assert (stopping.best, stopping.best_update) == (1.0, 2)
    stopping.keep_best()
    assert float(model.weight.detach()) == 2.0
    assert not any(EarlyStopping(model, None).observe(i, 1.0) for i in range(9))


@pytest.mark.parametrize("objective", [Masked(0.3), SpanCorruption(0.3)])
def test_pretexts_are_learned_and_repeat_themselves_for_a_seed(objective: Masked | SpanCorruption) -> None:
    texts = ["one two three four five six", "six five four three two one"]
    tokenizer = Words().train(texts, "ended", sentinels=True)
    tokens = [tokenizer(text)["input_ids"] for text in texts]
    torch.manual_seed(0)
    model = MODELS[type(objective)](len(tokenizer)).eval()
    loss = objective.loss(model, tokens, tokenizer)
    first = mean_loss(loss, 2, 2)
    assert mean_loss(loss, 2, 2) == first
    found = losses(SupervisedLearner(model, loss, 2, Fit(80, 4, 0.01), seed=0))
    assert sum(found[-10:]) < 0.5 * sum(found[:10])
    assert mean_loss(loss, 2, 2) < first


SUITED: list[tuple[Callable[[int], PreTrainedModel], type]] = [
    (masked, Masked),
    (encoder_decoder, SpanCorruption),
    (lambda vocabulary: GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=16, n_layer=1, n_head=2)), Causal),
]


@pytest.mark.parametrize(("make", "kind"), SUITED)
def test_a_given_model_is_pretrained_on_what_suits_its_class_and_on_nothing_else(
    make: Callable[[int], PreTrainedModel], kind: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the architecture of a fresh model would be: here that of a decoder-only Transformer."""
    texts = ["one two three four", "four three two one"]
    tokenizer = Words().train(texts, "ended", sentinels=True)
    model = make(len(tokenizer))
    assert type(pretext(PretrainConfig(), model)) is kind
    stage = Stage("pretraining", "pretrain", tmp_path, logging_steps=1, save_steps=9)
    pretrain_model(model, tokenizer, tokens_of(texts, tokenizer), [], PretrainConfig(max_steps=2), 0, stage)
    assert "pretraining done" in capsys.readouterr().err
    for other in (Causal(), Masked(0.2), SpanCorruption(0.2)):
        config = PretrainConfig(max_steps=1, objective=other)
        if type(other) is kind:
            assert pretext(config, model) == other
            continue
        with pytest.raises(ConfigError, match=rf"pretrain.objective: got \w+ for {type(model).__name__}, expected "):
            pretrain_model(model, tokenizer, tokens_of(texts, tokenizer), [], config, 0, stage)


def test_what_predicts_no_tokens_is_not_pretrained() -> None:
    with pytest.raises(ConfigError, match="pretrain: got BertForSequenceClassification, which predicts no tokens"):
        pretext(PretrainConfig(), with_decisions(masked(9), ["no", "yes"]))
