"""What a language model is pretrained on: the next token, masked tokens, or spans that were cut out.

Each gives a loss, in nats per predicted token, of some texts of a corpus, which are named by their numbers; what is
corrupted is drawn from the generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from tokenq.errors import ConfigError
from tokenq.nets.encoder import is_encoder
from tokenq.nets.families import is_masked_model
from tokenq.nets.language import LanguageQ, plain
from tokenq.nets.likelihood import IGNORED, masked_loss, next_token_loss
from tokenq.nets.tokenizers import SENTINELS, T5_SENTINELS, sentinel_ids
from tokenq.ops.corruption import corrupt_spans, mask_tokens

Corpus = Sequence[Sequence[int]]
Loss = Callable[[Sequence[int], torch.Generator], Tensor]


@dataclass(frozen=True)
class Causal:
    """Every token from those before it: decoder-only and recurrent models."""

    noise: float = 0.0
    """Share of tokens that may have been drawn blindly, in [0, 1): what the model learns is the rest."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 1:
            raise ConfigError(f"noise: got {self.noise}, expected a number in [0, 1)")

    def loss(self, model: nn.Module, texts: Corpus, tokenizer: PreTrainedTokenizerBase) -> Loss:
        """The loss of some of the texts."""
        network = LanguageQ(model)

        def of(chosen: Sequence[int], generator: torch.Generator) -> Tensor:
            return next_token_loss(network, [torch.tensor(texts[i]) for i in chosen], self.noise)

        return of


@dataclass(frozen=True)
class Masked:
    """Tokens that were masked (Devlin et al. 2019): encoders."""

    probability: float = 0.15
    """Share of tokens to find, in (0, 1)."""

    def __post_init__(self) -> None:
        _probability(self.probability)

    def loss(self, model: nn.Module, texts: Corpus, tokenizer: PreTrainedTokenizerBase) -> Loss:
        """The loss of some of the texts."""
        if tokenizer.mask_token_id is None:
            raise ConfigError("objective: got masked, but the tokenizer has no mask token; set mask_token")
        mask, special = int(tokenizer.mask_token_id), torch.tensor(tokenizer.all_special_ids)

        def of(chosen: Sequence[int], generator: torch.Generator) -> Tensor:
            originals = [torch.tensor(texts[i]) for i in chosen]
            corrupted, labels = [], []
            for tokens in originals:
                maskable = ~torch.isin(tokens, special)
                seen, wanted = mask_tokens(tokens, maskable, self.probability, mask, len(tokenizer), generator)
                corrupted.append(seen)
                labels.append(tokens.masked_fill(~wanted, IGNORED))
            if not any((label != IGNORED).any() for label in labels):
                labels[0] = originals[0].clone()  # a batch of a few tokens may escape; its first text is asked then
            return masked_loss(model, corrupted, labels)

        return of


@dataclass(frozen=True)
class SpanCorruption:
    """Spans that were cut out and replaced by sentinels (Raffel et al. 2020): encoder–decoders."""

    probability: float = 0.15
    """Share of tokens that are cut out, in (0, 1)."""
    mean_length: float = 3.0
    """Mean length of a span in tokens, >= 1."""

    def __post_init__(self) -> None:
        _probability(self.probability)
        if self.mean_length < 1:
            raise ConfigError(f"mean_length: got {self.mean_length}, expected a number >= 1")

    def loss(self, model: nn.Module, texts: Corpus, tokenizer: PreTrainedTokenizerBase) -> Loss:
        """The loss of some of the texts."""
        sentinels = sentinel_ids(tokenizer)
        if not sentinels:
            raise ConfigError(
                "pretrain.objective: got span_corruption with a tokenizer that has no sentinels, expected tokens such "
                f"as {SENTINELS[0]} or {T5_SENTINELS[0]}; add them to the tokenizer and resize the model's embeddings, "
                "or leave pretraining out"
            )
        end = tokenizer.eos_token_id

        def of(chosen: Sequence[int], generator: torch.Generator) -> Tensor:
            pairs = [
                corrupt_spans(torch.tensor(texts[i]), self.probability, self.mean_length, sentinels, generator)
                for i in chosen
            ]
            sources = [torch.tensor(source) for source, _ in pairs]
            targets = [torch.tensor([*target, end]) for _, target in pairs]
            heard = pad_sequence([torch.ones_like(source) for source in sources], batch_first=True)
            labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
            device = next(model.parameters()).device
            read = pad_sequence(sources, batch_first=True)
            loss: Tensor = model(
                input_ids=read.to(device), attention_mask=heard.to(device), labels=labels.to(device)
            ).loss
            return loss

        return of


def suited(model: nn.Module) -> Causal | Masked | SpanCorruption:
    """What a model of this class is pretrained on; raises `ConfigError` for a classifier or a reader of spans."""
    causal = plain(model)
    if is_encoder(causal):
        raise ConfigError(
            f"pretrain: got {type(causal).__name__}, which predicts no tokens; expected a language model; "
            "name the one it was made from, or set pretrain.max_steps to 0"
        )
    if is_masked_model(causal):
        return Masked()
    return SpanCorruption() if causal.config.is_encoder_decoder else Causal()


def _probability(value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"probability: got {value}, expected a number in (0, 1)")
