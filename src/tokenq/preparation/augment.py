"""Augmentation: more training rows, each a changed copy of one that is there."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.records import Record
from tokenq.preparation.synonyms import Neighbours, Synonyms
from tokenq.preparation.words import words_and_spaces

Translate = Callable[[list[str]], Sequence[str]]
MARK = "augmented"
_BATCH = 32


@dataclass(frozen=True)
class Dropout:
    """Leave out words at random (Wei and Zou 2019, random deletion); one word always stays."""

    probability: float = 0.1
    """Probability that a word goes, in (0, 1)."""

    def __post_init__(self) -> None:
        _checked_probability(self.probability)

    def apply(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """One changed copy of each text."""
        return [self._changed(words_and_spaces(text), rng) for text in texts]

    def _changed(self, words: list[tuple[str, str]], rng: np.random.Generator) -> str:
        if not words:
            return ""
        stays = rng.random(len(words)) >= self.probability
        stays[rng.integers(len(words))] |= not stays.any()
        return _joined([word for word, stay in zip(words, stays, strict=True) if stay])


@dataclass(frozen=True)
class Swap:
    """Exchange neighbouring words at random; a word takes part in one exchange at most."""

    probability: float = 0.1
    """Probability that a word is exchanged with the next one, in (0, 1)."""

    def __post_init__(self) -> None:
        _checked_probability(self.probability)

    def apply(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """One changed copy of each text."""
        return [self._changed(words_and_spaces(text), rng) for text in texts]

    def _changed(self, words: list[tuple[str, str]], rng: np.random.Generator) -> str:
        drawn = rng.random(len(words)) < self.probability
        order = list(range(len(words)))
        i = 0
        while i < len(words) - 1:
            if drawn[i]:
                order[i], order[i + 1] = i + 1, i
            i += 2 if drawn[i] else 1
        # The spaces stay where they are, only words move.
        return _joined([(words[j][0], words[i][1]) for i, j in enumerate(order)])


@dataclass(frozen=True)
class BackTranslation:
    """Translate into another language and back again (Sennrich et al. 2016), with models or functions of yours.

    A model is the folder or hub id of an encoder–decoder, or the folder of a finished run. A function takes a list of
    texts and returns as many; a class is made first, with `args` if given, and then called.
    """

    forward: str | dict[str, Any]
    """A model, `module:name`, `file.py:name`, or {path: ..., args: {...}}: from the language of the texts away."""
    backward: str | dict[str, Any]
    """The way back, named likewise."""

    def apply(self, texts: Sequence[str], forward: Translate, backward: Translate) -> list[str]:
        """Each text as it comes back."""
        there = _translated(list(texts), forward, "forward")
        return _translated(there, backward, "backward")


@dataclass(frozen=True, eq=False)
class Aids:
    """What the changes need beside the texts: near words, and the two ways of the back-translation."""

    neighbours: Neighbours | None = None
    translators: tuple[Translate, Translate] | None = None


@dataclass(frozen=True, eq=False)
class Copies:
    """Changed copies, each marked with its kind, and how many of a kind were left out for saying nothing new."""

    records: list[Record]
    nothing_new: Counter[str]


@dataclass(frozen=True)
class Augment:
    """Which changed copies of the training rows are added; every part that is given adds `copies` of each row."""

    copies: int = 1
    """Copies of a row per kind of change, >= 1; back-translation makes one."""
    dropout: Dropout | None = None
    """Copies with words left out; null: none."""
    swap: Swap | None = None
    """Copies with neighbouring words exchanged; null: none."""
    synonyms: Synonyms | None = None
    """Copies with words replaced by near ones; null: none."""
    back_translation: BackTranslation | None = None
    """Copies translated there and back; null: none."""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"copies: got {self.copies}, expected an integer >= 1")

    @property
    def active(self) -> bool:
        """Whether anything is added at all."""
        return any((self.dropout, self.swap, self.synonyms, self.back_translation))

    def apply(self, records: Sequence[Record], column: str, seed: int, aids: Aids) -> Copies:
        """Changed copies of the records, kind by kind and in their order; all other columns are the original's."""
        texts = [record.text(column) for record in records]
        seen = [{text} for text in texts]
        copies: list[Record] = []
        nothing_new: Counter[str] = Counter()
        for kind, changed in self._changed(texts, seed, aids):
            for record, text, known in zip(records, changed, seen, strict=True):
                if not text.strip() or text in known:
                    nothing_new[kind] += 1
                else:
                    copies.append(replace(record, values={**record.values, column: text, MARK: kind}))
                known.add(text)
        return Copies(copies, nothing_new)

    def _changed(self, texts: Sequence[str], seed: int, aids: Aids) -> Iterator[tuple[str, list[str]]]:
        # A stream of random numbers for each kind: switching one on leaves the others as they were.
        if self.dropout is not None:
            rng = np.random.default_rng([seed, 0])
            yield from (("dropout", self.dropout.apply(texts, rng)) for _ in range(self.copies))
        if self.swap is not None:
            rng = np.random.default_rng([seed, 1])
            yield from (("swap", self.swap.apply(texts, rng)) for _ in range(self.copies))
        if self.synonyms is not None and aids.neighbours is not None:
            rng = np.random.default_rng([seed, 2])
            yield from (("synonyms", self.synonyms.apply(texts, aids.neighbours, rng)) for _ in range(self.copies))
        if self.back_translation is not None and aids.translators is not None:
            yield "back_translation", self.back_translation.apply(texts, *aids.translators)


def marked(records: Sequence[Record]) -> list[Record]:
    """The rows with a null in the column that says how a copy was made: they are none."""
    for record in records:
        if MARK in record.values:
            raise DataError(f"{record.place}: has a column '{MARK}', where augment writes its own; rename the column")
    return [replace(record, values={**record.values, MARK: None}) for record in records]


def _joined(words: Sequence[tuple[str, str]]) -> str:
    return "".join(word + space for word, space in words).rstrip()


def _checked_probability(probability: float) -> None:
    if not 0 < probability < 1:
        raise ConfigError(f"probability: got {probability}, expected a number in (0, 1)")


def _translated(texts: list[str], translate: Translate, way: str) -> list[str]:
    found: list[str] = []
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        try:
            answer = translate(batch)
        except Exception as error:
            said = " ".join(str(error).split())
            raise ConfigError(
                f"augment.back_translation.{way}: raised {type(error).__name__}: {said}; mend the translator"
            ) from error
        if (
            not isinstance(answer, list | tuple)
            or len(answer) != len(batch)
            or not all(isinstance(text, str) for text in answer)
        ):
            got = f"{len(answer)} items" if isinstance(answer, list | tuple) else type(answer).__name__
            raise ConfigError(
                f"augment.back_translation.{way}: got {got}, expected a list of {len(batch)} texts; mend the translator"
            )
        found += answer
    return found
