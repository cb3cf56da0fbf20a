"""Tokenizers from text: characters, words, BPE, WordPiece and Unigram, trained by the `tokenizers` library.

All have the same special tokens, and a hundred sentinels for span corruption. How a text is framed depends on what
reads it: a decoder needs nothing around a text, the encoder of an encoder–decoder an end, a classifier or a reader of
spans a beginning, and an end after each of one or two texts.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tokenq.errors import ConfigError, DataError

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
SENTINELS = tuple(f"<extra_{i}>" for i in range(100))
T5_SENTINELS = tuple(f"<extra_id_{i}>" for i in range(100))

Frame = Literal["bare", "ended", "enclosed"]


@dataclass(frozen=True)
class Characters:
    """One token for each character that the texts hold."""

    def train(self, texts: Iterable[str], frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
        """The tokenizer of some texts."""
        symbols = sorted({symbol for text in _read(texts) for symbol in text})
        vocabulary = {token: i for i, token in enumerate([*_special(sentinels), *symbols])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return _framed(tokenizer, frame, sentinels)


@dataclass(frozen=True)
class Words:
    """One token for each word between white space, the most frequent ones."""

    vocabulary: int | None = None
    """Tokens at most, special ones included; null: every word."""
    min_frequency: int = 1
    """A word that is seen less often is unknown, >= 1."""
    lowercase: bool = False
    """Whether case is dropped."""

    def train(self, texts: Iterable[str], frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
        """The tokenizer of some texts."""
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        if self.lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocabulary or 2**31 - 1,
            min_frequency=self.min_frequency,
            special_tokens=_special(sentinels),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_read(texts), trainer)
        return _framed(tokenizer, frame, sentinels)


@dataclass(frozen=True)
class BPE:
    """Byte-level byte pair encoding (Sennrich et al. 2016; over bytes as in GPT-2): nothing is ever unknown."""

    vocabulary: int = 4096
    """Tokens at most, special ones included, >= 500."""

    def __post_init__(self) -> None:
        _at_least("vocabulary", self.vocabulary, 500)

    def train(self, texts: Iterable[str], frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
        """The tokenizer of some texts."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=_special(sentinels),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_read(texts), trainer)
        return _framed(tokenizer, frame, sentinels)


@dataclass(frozen=True)
class WordPiece:
    """Pieces of words with ## inside of them (Schuster & Nakajima 2012, as in BERT); Chinese goes by characters."""

    vocabulary: int = 4096
    """Tokens at most, special ones included, >= 200."""
    lowercase: bool = True
    """Whether case and accents are dropped."""

    def __post_init__(self) -> None:
        _at_least("vocabulary", self.vocabulary, 200)

    def train(self, texts: Iterable[str], frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
        """The tokenizer of some texts."""
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=self.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocabulary, special_tokens=_special(sentinels), show_progress=False
        )
        tokenizer.train_from_iterator(_read(texts), trainer)
        return _framed(tokenizer, frame, sentinels)


@dataclass(frozen=True)
class Unigram:
    """A unigram model of pieces (Kudo 2018, as in SentencePiece); spaces are part of the pieces."""

    vocabulary: int = 4096
    """Tokens at most, special ones included, >= 200."""

    def __post_init__(self) -> None:
        _at_least("vocabulary", self.vocabulary, 200)

    def train(self, texts: Iterable[str], frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
        """The tokenizer of some texts."""
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocabulary, special_tokens=_special(sentinels), unk_token=UNKNOWN, show_progress=False
        )
        tokenizer.train_from_iterator(_read(texts), trainer)
        # Pieces that are alike probable come in another order each time; numbers must not.
        pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
        first = len(_special(sentinels))
        ordered = pieces[:first] + sorted(pieces[first:], key=lambda piece: (-piece[1], piece[0]))
        tokenizer.model = models.Unigram([tuple(piece) for piece in ordered], unk_id=SPECIAL.index(UNKNOWN))
        return _framed(tokenizer, frame, sentinels)


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The sentinels of a tokenizer in order, called as ours or as T5's; empty if it has none."""
    found = [tokenizer.convert_tokens_to_ids(name) for name in (*SENTINELS, *T5_SENTINELS)]
    return [number for number in found if isinstance(number, int) and number != tokenizer.unk_token_id]


def _read(texts: Iterable[str]) -> Iterator[str]:
    """The texts; raises `DataError` if there are none, which the trainers take for an empty vocabulary."""
    found = False
    for text in texts:
        found = found or bool(text)
        yield text
    if not found:
        raise DataError("tokenizer: got no text to learn from, expected at least one")


def _special(sentinels: bool) -> list[str]:
    return [*SPECIAL, *(SENTINELS if sentinels else ())]


def _framed(tokenizer: Tokenizer, frame: Frame, sentinels: bool) -> PreTrainedTokenizerBase:
    numbers = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    if frame == "ended":
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=numbers)
    elif frame == "enclosed":
        single = f"{START} $A {END}"
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B:1 {END}:1", special_tokens=numbers
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        mask_token=MASK,
        cls_token=START,
        sep_token=END,
        additional_special_tokens=list(SENTINELS) if sentinels else None,
    )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}: got {value}, expected an integer >= {least}")
