"""N-gram language models over token ids: additive and interpolated Kneser-Ney smoothing, in numpy.

Every smoothing here interpolates. For an n-gram of context c and token w, where c' is c without its first token,

    p(w | c) = own(c, w) + rest(c) * p(w | c'),        down to 1 / V below the empty context,

and a strategy says what `own` and `rest` are. Kept is p of every n-gram seen and `rest` of every context seen, so that
any other p is the p of its longest n-gram seen times the `rest` of the longer contexts: the form of an ARPA file.

A text begins with one begin symbol, which has the id V, is never predicted and has nothing before it; it ends with the
end token, an ordinary token. Unknown words are the tokenizer's matter: its unk id is a token like any other.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tokenq.errors import ConfigError, DataError
from tokenq.nets.smoothing import Grams, Smoothing

FORMAT = 1
TENSORS, HEADER = "ngram.safetensors", "ngram.json"

_ARRAYS = ("keys", "log_probability", "log_backoff")

Text = Sequence[int] | Int[np.ndarray, "_"]
"""Token ids below V, without begin symbol."""


@dataclass(frozen=True, eq=False)
class Level:
    """All n-grams of one length m that were seen; the number of an n-gram is its place in `keys`.

    `keys` are the number of the context (an (m-1)-gram, 0 for the empty one) times V + 1 plus the token, in increasing
    order: so no key outgrows 64 bits, whatever the order. `log_probability` belongs to the n-grams and `log_backoff`,
    the logarithm of `rest`, to the contexts: one number for each (m-1)-gram. Natural logarithms.
    """

    keys: Int[np.ndarray, "N"]
    log_probability: Float[np.ndarray, "N"]
    log_backoff: Float[np.ndarray, "C"]

    def find(self, keys: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The number of each n-gram by its key, -1 for those never seen."""
        places = np.searchsorted(self.keys, keys)
        seen = places < len(self.keys)
        seen[seen] = self.keys[places[seen]] == keys[seen]
        return np.where(seen, places, -1)


@dataclass(frozen=True, eq=False)
class NGram:
    """An n-gram language model.

    `levels[m - 1]` holds the m-grams, `end` is the id that closes a text, `smoothing` is kept for the record.
    """

    vocabulary: int
    end: int
    smoothing: str
    levels: tuple[Level, ...]

    @classmethod
    def estimate(cls, texts: Iterable[Text], order: int, vocabulary: int, smoothing: Smoothing, end: int) -> "NGram":
        """Count all n-grams of 1 to `order` tokens and smooth them.

        Args:
            texts: At least one text; one that does not close with `end` already is closed with it. Counting sorts, so
                time is n log n, and memory about 100 bytes a token.
            order: Length of the longest n-gram, >= 1; a token is predicted from the `order` - 1 before it.
            vocabulary: Number V of tokens; ids are 0..V - 1.
            smoothing: How probability goes to what was not seen.
            end: The id that closes a text.

        Raises:
            ConfigError: `order`, `vocabulary` or `end` out of range.
            DataError: No text, an id outside the vocabulary, or too little text to estimate discounts from.
        """
        if order < 1 or vocabulary < 1:
            raise ConfigError(f"order, vocabulary: got {order}, {vocabulary}, expected integers >= 1")
        if not 0 <= end < vocabulary:
            raise ConfigError(f"end: got {end}, expected an id in 0..{vocabulary - 1}")
        counted = _counted(_stream(texts, vocabulary, end), order, vocabulary)
        probability = np.array([1 / vocabulary])  # of the suffix that is left below a unigram: nothing
        levels = []
        for grams, keys, suffixes in counted:
            predicted = keys % (vocabulary + 1) < vocabulary  # all but the begin symbol
            own = np.zeros(len(keys))
            own[predicted], rest = smoothing.shares(grams.chosen(predicted))
            probability = own + rest[grams.contexts] * probability[suffixes]
            probability[~predicted] = 0.0
            with np.errstate(divide="ignore"):
                levels.append(Level(keys, np.log(probability), np.log(rest)))
        return cls(vocabulary, end, repr(smoothing), tuple(levels))

    @property
    def order(self) -> int:
        """Length of the longest n-gram."""
        return len(self.levels)

    def log_probabilities(self, tokens: Text) -> Float[np.ndarray, "n"]:
        """Natural logarithm of the probability of every token of one text, given those before it; all finite.

        The end token is scored where the text has one, and not added. Time is n · order · log(n-grams).

        Raises:
            DataError: An id outside the vocabulary.
        """
        return self._scores(np.append(self.vocabulary, _checked(tokens, self.vocabulary, "the text")))[1:]

    def perplexity(self, texts: Iterable[Text]) -> float:
        """Exp of the mean negative log-probability per token, the end token that closes each text counted as one.

        Raises:
            DataError: No text, or an id outside the vocabulary.
        """
        stream = _stream(texts, self.vocabulary, self.end)
        return math.exp(-float(self._scores(stream)[stream < self.vocabulary].mean()))

    def distribution(self, context: Text) -> Float[np.ndarray, "V"]:
        """The probability of every token after `context`, which is all of the text so far.

        Raises:
            DataError: An id outside the vocabulary.
        """
        text = np.append(self.vocabulary, _checked(context, self.vocabulary, "the context"))
        walk = self._walk(text[max(len(text) - self.order + 1, 0) :])
        probability = np.full(self.vocabulary, 1 / self.vocabulary)
        place = 0
        for level in self.levels:
            probability *= np.exp(level.log_backoff[place])
            first, last = np.searchsorted(level.keys, np.array([place, place + 1]) * (self.vocabulary + 1))
            tokens = level.keys[first:last] % (self.vocabulary + 1)
            predicted = tokens < self.vocabulary
            probability[tokens[predicted]] = np.exp(level.log_probability[first:last][predicted])
            _, places = next(walk)
            if len(places) == 0 or (place := int(places[-1])) < 0:
                break  # a context that was never seen leaves all to the next shorter one
        return probability

    def sample(self, prefix: Text, length: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
        """At most `length` tokens drawn after `prefix`; an end token is kept, and nothing is drawn after it.

        Raises:
            DataError: An id outside the vocabulary.
        """
        text: list[int] = _checked(prefix, self.vocabulary, "the prefix").tolist()
        start = len(text)
        while len(text) < start + length and not (len(text) > start and text[-1] == self.end):
            text.append(int(rng.choice(self.vocabulary, p=self.distribution(text[-self.order :]))))
        return np.array(text[start:], dtype=np.int64)

    def save(self, folder: Path) -> None:
        """Write `ngram.safetensors` and `ngram.json` into a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"{m}.{name}": getattr(level, name) for m, level in enumerate(self.levels, 1) for name in _ARRAYS}
        save_file(arrays, folder / TENSORS)
        header = {"format": FORMAT, "order": self.order, "vocabulary": self.vocabulary, "end": self.end}
        (folder / HEADER).write_text(json.dumps({**header, "smoothing": self.smoothing}, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "NGram":
        """What `save` wrote.

        Raises:
            ConfigError: The folder holds no such model, or one of another format.
        """
        try:
            header = json.loads((folder / HEADER).read_text("utf-8"))
            if header["format"] != FORMAT:
                raise ConfigError(f"n-gram model {folder}: got format {header['format']}, expected {FORMAT}")
            arrays = load_file(folder / TENSORS)
            levels = [Level(*(arrays[f"{m}.{name}"] for name in _ARRAYS)) for m in range(1, header["order"] + 1)]
            return cls(header["vocabulary"], header["end"], header["smoothing"], tuple(levels))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"n-gram model {folder}: expected {HEADER} and {TENSORS} as NGram.save writes them; {reason}"
            ) from error

    def _scores(self, stream: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The log-probability of every token of a stream of texts; -inf at begin symbols."""
        scores = np.full(len(stream), -math.log(self.vocabulary))
        for level, (contexts, places) in zip(self.levels, self._walk(stream), strict=True):
            known, seen = contexts >= 0, places >= 0
            scores[known] += level.log_backoff[contexts[known]]
            scores[seen] = level.log_probability[places[seen]]
        return scores

    def _walk(self, stream: Int[np.ndarray, "n"]) -> Iterator[tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]]:
        """For each length m the numbers of the (m-1)-gram before and of the m-gram up to each position, -1: unseen.

        No n-gram with a begin symbol after its first place was ever counted, so none reaches into the text before.
        """
        contexts = np.zeros(len(stream), np.int64)
        for level in self.levels:
            places = level.find(contexts * (self.vocabulary + 1) + stream)
            yield contexts, places
            contexts = np.append(-1, places)[: len(stream)]


def _checked(tokens: Text, vocabulary: int, what: str) -> Int[np.ndarray, "n"]:
    array = np.asarray(tokens, dtype=np.int64)
    if len(wrong := np.flatnonzero((array < 0) | (array >= vocabulary))):
        raise DataError(f"{what} has the id {array[wrong[0]]} at position {wrong[0]}, expected 0..{vocabulary - 1}")
    return array


def _stream(texts: Iterable[Text], vocabulary: int, end: int) -> Int[np.ndarray, "n"]:
    """All texts one after another, each behind a begin symbol and closed."""
    pieces: list[np.ndarray] = []
    for number, text in enumerate(texts):
        tokens = _checked(text, vocabulary, f"text {number}")
        closing = [] if len(tokens) and tokens[-1] == end else [end]
        pieces.append(np.concatenate([[vocabulary], tokens, np.array(closing, np.int64)]))
    if not pieces:
        raise DataError("got no text, expected at least one")
    return np.concatenate(pieces)


def _counted(
    stream: Int[np.ndarray, "n"], order: int, vocabulary: int
) -> list[tuple[Grams, Int[np.ndarray, "_"], Int[np.ndarray, "_"]]]:
    """Of each length the n-grams seen, their keys, and the number of each one's suffix (it without its first token)."""
    contexts = shorter = np.zeros(len(stream), np.int64)
    found = []
    for length in range(1, order + 1):
        # A context is -1 where it would begin before its text does.
        there = np.flatnonzero((contexts >= 0) & ((stream < vocabulary) | (length == 1)))
        keys, first, inverse, counts = np.unique(
            contexts[there] * (vocabulary + 1) + stream[there],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        found.append((keys, counts, shorter[there[first]]))
        shorter = np.full(len(stream), -1)
        shorter[there] = inverse
        contexts = np.append(-1, shorter[:-1])
    counted = []
    for length, (keys, counts, suffixes) in enumerate(found, 1):
        longer = found[length][2] if length < order else np.array([], np.int64)
        continuations = np.bincount(longer, minlength=len(keys))
        number_of_contexts = len(found[length - 2][0]) if length > 1 else 1
        grams = Grams(length, vocabulary, counts, continuations, keys // (vocabulary + 1), number_of_contexts)
        counted.append((grams, keys, suffixes))
    return counted
