"""Checkpoints as other people save them: their tokenizers, their classes, the lengths that they can read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    XLMConfig,
    XLMModel,
)

from tokenq.errors import ConfigError
from tokenq.nets.families import with_decisions
from tokenq.nets.heads import value_head
from tokenq.nets.language import LanguageQ, context_length
from tokenq.nets.loading import (
    Lora,
    character_tokenizer,
    checked_tokenizer,
    load_model,
    load_tokenizer,
    q_network,
    with_adapter,
)
from tokenq.nets.pretext import SpanCorruption
from tokenq.nets.recurrent import RecurrentConfig, RecurrentForCausalLM
from tokenq.replay.codecs import Labelled
from tokenq.types import Batch, Episode

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s"]
SIZE: dict[str, Any] = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = SIZE | {"intermediate_size": 32, "max_position_embeddings": 32}
ROBERTA = BERT | {"max_position_embeddings": 34, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
DISTILBERT = {"vocab_size": 10, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}


def test_a_tokenizer_of_bert_ends_with_its_separator(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    stock = BertTokenizer(str(tmp_path / "vocab.txt"))
    assert stock.eos_token is None
    framed = stock("a good film")["input_ids"]
    stock.save_pretrained(tmp_path / "model")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("[SEP]", "[PAD]")
    prompt = Labelled(tokenizer, ["no", "yes"]).prompt({"prompt": "a good film"})
    assert prompt.source == framed == [2, 5, 6, 8, 3]
    bare = PreTrainedTokenizerFast(tokenizer_object=character_tokenizer("ab").backend_tokenizer, pad_token="<pad>")
    with pytest.raises(ConfigError, match="the tokenizer of mine has no end token; set eos_token"):
        checked_tokenizer(bare, "mine")


SAVED: dict[str, tuple[Callable[[], PreTrainedModel], type]] = {
    "bert": (lambda: BertModel(BertConfig(**BERT)), BertForMaskedLM),
    "roberta": (lambda: RobertaModel(RobertaConfig(**ROBERTA)), RobertaForMaskedLM),
    "distilbert": (lambda: DistilBertModel(DistilBertConfig(**DISTILBERT)), DistilBertForMaskedLM),
    "causal bert": (lambda: BertLMHeadModel(BertConfig(**BERT, is_decoder=True)), BertLMHeadModel),
    "gpt2": (lambda: GPT2Model(GPT2Config(vocab_size=10, n_embd=16, n_layer=1, n_head=2)), GPT2LMHeadModel),
}


@pytest.mark.parametrize("unnamed", [False, True])
@pytest.mark.parametrize("name", SAVED)
def test_which_class_a_checkpoint_is_read_as(name: str, unnamed: bool, tmp_path: Path) -> None:
    make, expected = SAVED[name]
    model = make()
    model.save_pretrained(tmp_path)
    if unnamed:
        model.config.architectures = None
        model.config.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert type(loaded) is expected
    body, read = model.base_model.state_dict(), loaded.base_model.state_dict()
    assert all(torch.equal(read[key], tensor) for key, tensor in body.items() if key in read)


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    XLMModel(XLMConfig(vocab_size=10, emb_dim=16, n_layers=1, n_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a xlm with the architectures XLMModel; expected a causal or masked"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_what_only_fills_masks_decides_nothing_without_a_task(name: str, tmp_path: Path) -> None:
    SAVED[name][0]().save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    with pytest.raises(ConfigError, match=r"ForMaskedLM, which fills masks and decides nothing; .* task"):
        q_network(model)
    assert q_network(with_decisions(model, ["no", "yes"])).decisions == 1


def test_roberta_counts_its_positions_from_behind_padding() -> None:
    model = RobertaForMaskedLM(RobertaConfig(**ROBERTA)).eval()
    longest = context_length(model)
    assert longest == 32 == context_length(BertForMaskedLM(BertConfig(**BERT)))
    assert model(torch.full((1, longest), 5)).logits.shape == (1, 32, 10)
    with pytest.raises(RuntimeError, match="out of bounds"):
        model(torch.full((1, longest + 1), 5))


NARROW: dict[str, Callable[[dict[str, Any]], PreTrainedModel]] = {
    "opt": lambda size: OPTForCausalLM(
        OPTConfig(**size, word_embed_proj_dim=8, ffn_dim=32, num_attention_heads=2, max_position_embeddings=32)
    ),
    "recurrent": lambda size: RecurrentForCausalLM(RecurrentConfig(**size, embedding_size=8)),
}


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("name", NARROW)
def test_a_value_head_is_as_wide_as_what_the_output_matrix_reads(
    name: str, factored: bool, random_episodes: Callable[..., list[Episode]], recorded: Callable[..., Batch]
) -> None:
    model = NARROW[name]({"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 1})
    head = value_head(model, None)
    torch.nn.init.normal_(head.outer.weight)
    network = LanguageQ(model, head)
    batch = recorded(LanguageQ(model), random_episodes(3))
    network.factored = factored
    value = network(batch).state_value
    assert value is not None and value.abs().max() > 0.1


def test_spans_of_t5_take_its_own_sentinels() -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in "abcdefgh")]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=100)
    config = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **config))
    texts = [tokenizer("abcdefgh")["input_ids"]]
    loss = SpanCorruption(0.3).loss(model, texts, tokenizer)
    assert torch.isfinite(loss([0], torch.Generator().manual_seed(0)))
    with pytest.raises(ConfigError, match=r"no sentinels, expected tokens such as <extra_0> or <extra_id_0>; add them"):
        SpanCorruption().loss(model, texts, character_tokenizer("abc"))


def test_layers_that_take_no_adapter_are_named_with_the_setting() -> None:
    def recurrent(tied: bool) -> PreTrainedModel:
        config = RecurrentConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, tie_word_embeddings=tied)
        return RecurrentForCausalLM(config)

    key, expected = "finetune.scope.target_modules", "expected layers of RecurrentForCausalLM that take an adapter"
    for asked, got in ((None, "null"), (["layers.0"], "layers.0"), (["nothing"], "nothing")):
        with pytest.raises(ConfigError, match=f"{key}: got {got}, {expected}; name some of embeddings, lm_head"):
            with_adapter(recurrent(tied=False), Lora(target_modules=asked), key)
    adapted = with_adapter(recurrent(tied=False), Lora(target_modules=["embeddings", "lm_head"]))
    assert sum(parameter.requires_grad for parameter in adapted.parameters()) == 4
    # Merged, an adapter on one of two tied layers would change the other one as well.
    with pytest.raises(
        ConfigError, match=r"lora_target_modules: got lm_head for .*, no layer of which takes an adapter"
    ):
        with_adapter(recurrent(tied=True), Lora(target_modules=["lm_head"]))
