"""Fresh models of a chosen size: decoder-only Transformers, recurrent, encoder–decoder and encoder.

Weights are drawn from torch's global generator. Each architecture says how its tokenizer frames a text.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tokenq.errors import ConfigError
from tokenq.nets.kv_shifting import ShiftingConfig, ShiftingForCausalLM
from tokenq.nets.recurrent import RecurrentConfig, RecurrentForCausalLM
from tokenq.nets.smoothing import Additive, KneserNey, ModifiedKneserNey
from tokenq.nets.tokenizers import Frame


@dataclass(frozen=True)
class Transformer:
    """A decoder-only Transformer in the style of GPT-2."""

    layers: int = 6
    """Transformer blocks, >= 1."""
    width: int = 144
    """Size of the hidden states, a multiple of `heads`."""
    heads: int = 4
    """Attention heads, >= 1."""
    context: int = 128
    """Longest text in tokens, >= 2."""
    dropout: float = 0.0
    """Share of units that supervised training drops, in [0, 1)."""
    vocabulary: int | None = None
    """Rows of the output matrix, at least one per token of the tokenizer; null: exactly that."""

    frame: ClassVar[Frame] = "bare"
    """Texts stand alone."""

    def __post_init__(self) -> None:
        _check(self.layers, self.width, self.heads, self.dropout, self.context)
        if self.vocabulary is not None and self.vocabulary < 1:
            raise ConfigError(f"vocabulary: got {self.vocabulary}, expected an integer >= 1")

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A model with random weights."""
        size = len(tokenizer)
        if self.vocabulary is not None and self.vocabulary < size:
            raise ConfigError(f"vocabulary: got {self.vocabulary}, expected at least {size}, the tokenizer's size")
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self.vocabulary or size,
                n_positions=self.context,
                n_embd=self.width,
                n_layer=self.layers,
                n_head=self.heads,
                activation_function="gelu_pytorch_tanh",  # the fused form of GPT-2's own
                resid_pdrop=self.dropout,
                embd_pdrop=self.dropout,
                attn_pdrop=self.dropout,
                bos_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )


@dataclass(frozen=True)
class RotaryTransformer:
    """A decoder-only Transformer with rotary positions, in the style of GPT-NeoX (Su et al. 2021, arXiv 2104.09864).

    What it attends to depends on how far back it stands and not on where, which small data teach sooner.
    """

    layers: int = 4
    """Transformer blocks, >= 1."""
    width: int = 144
    """Size of the hidden states, an even multiple of `heads`."""
    heads: int = 4
    """Attention heads, >= 1."""
    context: int = 512
    """Longest text in tokens, >= 2; costs nothing until it is used."""
    dropout: float = 0.0
    """Share of units that supervised training drops, in [0, 1)."""

    frame: ClassVar[Frame] = "bare"
    """Texts stand alone."""
    classes: ClassVar[Any] = (GPTNeoXConfig, GPTNeoXForCausalLM)
    """Those of its configuration and of the model."""

    def __post_init__(self) -> None:
        _check(self.layers, self.width, self.heads, self.dropout, self.context)
        if self.width // self.heads % 2:
            raise ConfigError(f"width: got {self.width}, expected an even multiple of heads ({self.heads})")

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A model with random weights."""
        config, model = self.classes
        built: PreTrainedModel = model(
            config(
                vocab_size=len(tokenizer),
                hidden_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=4 * self.width,
                max_position_embeddings=self.context,
                rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
                use_parallel_residual=False,
                hidden_act="gelu_pytorch_tanh",
                hidden_dropout=self.dropout,
                attention_dropout=self.dropout,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        return built


@dataclass(frozen=True)
class ShiftingTransformer(RotaryTransformer):
    """A rotary Transformer whose heads may read the key or value of the token before (`kv_shifting`).

    What followed a word the last time it finds with one layer instead of two, and learns to find many times sooner.
    """

    classes: ClassVar[Any] = (ShiftingConfig, ShiftingForCausalLM)


@dataclass(frozen=True)
class Recurrent:
    """A recurrent language model: Elman network, LSTM or GRU."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Kind of layer."""
    layers: int = 2
    """Layers, >= 1."""
    width: int = 256
    """Size of the hidden states, >= 1."""
    dropout: float = 0.0
    """Share of units that supervised training drops, in [0, 1)."""

    frame: ClassVar[Frame] = "bare"
    """Texts stand alone."""

    def __post_init__(self) -> None:
        _check(self.layers, self.width, 1, self.dropout, 2)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A model with random weights."""
        return RecurrentForCausalLM(
            RecurrentConfig(
                vocab_size=len(tokenizer),
                cell=self.cell,
                num_hidden_layers=self.layers,
                hidden_size=self.width,
                dropout=self.dropout,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )


@dataclass(frozen=True)
class EncoderDecoder:
    """An encoder–decoder Transformer in the style of BART."""

    layers: int = 3
    """Transformer blocks of the encoder, and as many of the decoder, >= 1."""
    width: int = 144
    """Size of the hidden states, a multiple of `heads`."""
    heads: int = 4
    """Attention heads, >= 1."""
    context: int = 128
    """Longest source and longest target in tokens, >= 2."""
    dropout: float = 0.0
    """Share of units that supervised training drops, in [0, 1)."""

    frame: ClassVar[Frame] = "ended"
    """The encoder's texts have an end."""

    def __post_init__(self) -> None:
        _check(self.layers, self.width, self.heads, self.dropout, self.context)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A model with random weights."""
        return BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=self.context,
                d_model=self.width,
                encoder_layers=self.layers,
                decoder_layers=self.layers,
                encoder_attention_heads=self.heads,
                decoder_attention_heads=self.heads,
                encoder_ffn_dim=4 * self.width,
                decoder_ffn_dim=4 * self.width,
                dropout=self.dropout,
                attention_dropout=self.dropout,
                activation_dropout=0.0,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.eos_token_id,
                forced_eos_token_id=None,
            )
        )


@dataclass(frozen=True)
class Encoder:
    """An encoder Transformer in the style of BERT, for labels or for spans of a text."""

    layers: int = 3
    """Transformer blocks, >= 1."""
    width: int = 144
    """Size of the hidden states, a multiple of `heads`."""
    heads: int = 4
    """Attention heads, >= 1."""
    context: int = 256
    """Longest text in tokens, >= 2."""
    dropout: float = 0.0
    """Share of units that supervised training drops, in [0, 1)."""

    frame: ClassVar[Frame] = "enclosed"
    """Texts have a beginning and an end."""

    def __post_init__(self) -> None:
        _check(self.layers, self.width, self.heads, self.dropout, self.context)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A masked language model with random weights; `with_decisions` makes it decide."""
        return BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=4 * self.width,
                max_position_embeddings=self.context,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
                type_vocab_size=1,
                pad_token_id=tokenizer.pad_token_id,
            )
        )


@dataclass(frozen=True)
class NGramModel:
    """A counted language model: no gradient, no network; `tokenq pretrain` alone makes it."""

    order: int = 5
    """Length of the longest n-gram in tokens, >= 1."""
    smoothing: Additive | KneserNey | ModifiedKneserNey = field(default_factory=KneserNey)
    """How probability goes to what was not seen."""

    tag: ClassVar[str] = "ngram"
    frame: ClassVar[Frame] = "bare"
    """Texts stand alone."""

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ConfigError(f"order: got {self.order}, expected an integer >= 1")

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Not this one."""
        raise ConfigError(
            "architecture: got ngram, which has no gradient to train with; it is for tokenq pretrain alone"
        )


def _check(layers: int, width: int, heads: int, dropout: float, context: int) -> None:
    sizes = (("layers", layers, 1), ("width", width, 1), ("heads", heads, 1), ("context", context, 2))
    for name, value, least in sizes:
        if value < least:
            raise ConfigError(f"{name}: got {value}, expected an integer >= {least}")
    if width % heads:
        raise ConfigError(f"width: got {width}, expected a multiple of heads ({heads})")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout: got {dropout}, expected a number in [0, 1)")
