"""Metrics of a model's texts alone: how varied they are, how much they repeat, how long they are.

Words are those of `words.words`: cut at white space, Chinese by character, case kept.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokenq.errors import ConfigError
from tokenq.evaluation.answers import Answers, Need, needed
from tokenq.evaluation.intervals import Score, jackknife_interval, mean_score
from tokenq.scoring.words import words

NEEDS: frozenset[Need] = frozenset({"predictions"})


@dataclass(frozen=True)
class Distinct:
    """Different n-grams of the whole corpus over all its n-grams, in (0, 1] (Li et al. 2016, distinct-n).

    It falls as the corpus grows, so compare only corpora of the same size. The interval is the jackknife's.
    """

    n: int = 2
    """Words of an n-gram, >= 1."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def __post_init__(self) -> None:
        _check(self.n)

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The share with its interval; texts of fewer than n words are left out. `seed` is not used."""
        texts = [Counter(grams) for text in _texts(answers) if (grams := _grams(words(text), self.n))]
        if not texts:
            return Score(float("nan"), float("nan"), float("nan"), 0)
        texts_with: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            texts_with.update(text.keys())
        totals = np.array([text.total() for text in texts])
        own = np.array([sum(texts_with[gram] == 1 for gram in text) for text in texts])
        value = len(texts_with) / int(totals.sum())
        if len(texts) == 1:
            return Score(value, float("nan"), float("nan"), 1)
        left_out = (len(texts_with) - own) / (totals.sum() - totals)
        low, high = jackknife_interval(value, left_out, level)
        return Score(value, max(low, 0.0), min(high, 1.0), len(texts))


@dataclass(frozen=True)
class Repetition:
    """Share of a text's n-grams that stood in it before, in [0, 1), averaged over texts."""

    n: int = 4
    """Words of an n-gram, >= 1."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def __post_init__(self) -> None:
        _check(self.n)

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval; texts of fewer than n words are left out."""
        shares = []
        for text in _texts(answers):
            grams = _grams(words(text), self.n)
            shares.append(1 - len(set(grams)) / len(grams) if grams else float("nan"))
        return mean_score(np.array(shares), seed, level)


@dataclass(frozen=True)
class LongestLoop:
    """Words in a text's longest loop: the same phrase twice or more in a row, 0 without one. The mean over texts."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval."""
        return mean_score(np.array([float(longest_loop(text)) for text in _texts(answers)]), seed, level)


@dataclass(frozen=True)
class MeanLength:
    """Words of a text, averaged over texts; an empty text has none."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval."""
        return mean_score(np.array([float(len(words(text))) for text in _texts(answers)]), seed, level)


def longest_loop(text: str) -> int:
    """Words in the longest stretch made of one phrase twice or more in a row; its last copy may be cut off.

    "no no no" has 3, "so it is so it is so it" has 8, "to be or not to be" has 0.
    """
    number: dict[str, int] = {}
    tokens = np.array([number.setdefault(word, len(number)) for word in words(text)], dtype=int)
    longest = 0
    for period in range(1, len(tokens) // 2 + 1):
        same = _longest_run(tokens[period:] == tokens[:-period])
        if same >= period:
            longest = max(longest, same + period)
    return longest


def _longest_run(flags: np.ndarray) -> int:
    """Length of the longest stretch of true entries."""
    ends = np.flatnonzero(np.concatenate([[True], ~flags, [True]]))
    return int(np.diff(ends).max()) - 1


def _texts(answers: Answers) -> list[str]:
    return list(needed(answers.predictions, "predictions"))


def _grams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _check(n: int) -> None:
    if n < 1:
        raise ConfigError(f"n: got {n}, expected an integer >= 1")
