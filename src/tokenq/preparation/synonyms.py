"""Words replaced by near ones, where a file of word vectors says what is near."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.watch import watched
from tokenq.preparation.words import words_and_spaces

# A word may carry punctuation on both sides, which stays.
_CORE = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)


@dataclass(frozen=True)
class Synonyms:
    """Replace words at random by one of their nearest neighbours among word vectors.

    Near is not always the same in meaning: `good` and `bad` are neighbours in most vectors. Look at what comes out
    before using it where single words decide the label.
    """

    vectors: str
    """Text file of vectors as GloVe writes it: a word and its numbers on each line, separated by spaces."""
    probability: float = 0.1
    """Probability that a word with neighbours is replaced, in (0, 1]."""
    k: int = 5
    """Neighbours to choose from, >= 1."""
    threshold: float = 0.7
    """Cosine similarity that a neighbour must reach, in (0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ConfigError(f"probability: got {self.probability}, expected a number in (0, 1]")
        if self.k < 1:
            raise ConfigError(f"k: got {self.k}, expected an integer >= 1")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold: got {self.threshold}, expected a number in (0, 1]")

    def neighbours(self) -> "Neighbours":
        """The near words that the file of vectors gives.

        Raises:
            DataError: the file is missing or malformed.
        """
        return Neighbours(*read_vectors(Path(self.vectors)), self.k, self.threshold)

    def apply(self, texts: Sequence[str], neighbours: "Neighbours", rng: np.random.Generator) -> list[str]:
        """One changed copy of each text."""
        return [self._changed(text, neighbours, rng) for text in watched(texts, "synonyms")]

    def _changed(self, text: str, neighbours: "Neighbours", rng: np.random.Generator) -> str:
        words = words_and_spaces(text)
        drawn = rng.random(len(words)) < self.probability
        changed = []
        for (word, space), replaced in zip(words, drawn, strict=True):
            match = _CORE.match(word)
            assert match is not None
            before, core, after = match.groups()
            near = neighbours.of(core.casefold()) if replaced else []
            if near:
                core = _in_case_of(core, near[rng.integers(len(near))])
            changed.append(f"{before}{core}{after}{space}")
        return "".join(changed).rstrip()


class Neighbours:
    """The nearest words by cosine similarity, looked up once for each word asked for."""

    def __init__(self, words: list[str], vectors: Float[np.ndarray, "V D"], k: int, threshold: float) -> None:
        self._words = words
        self._numbers = {word: i for i, word in enumerate(words)}
        self._unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self._k = k
        self._threshold = threshold
        self._known: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """At most k words at or above the threshold, nearest first; none for a word without a vector."""
        if word not in self._numbers:
            return []
        if word not in self._known:
            own = self._numbers[word]
            cosines = self._unit @ self._unit[own]
            cosines[own] = -np.inf
            nearest = np.argsort(-cosines, kind="stable")[: self._k]
            self._known[word] = [self._words[i] for i in nearest if cosines[i] >= self._threshold]
        return self._known[word]


def read_vectors(path: Path) -> tuple[list[str], Float[np.ndarray, "V D"]]:
    """The words of a GloVe text file and their vectors, in file order.

    Raises:
        DataError: no such file, a line that is not a word and numbers, or lines of different length.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected word vectors as GloVe writes them; check the path")
    words: list[str] = []
    rows: list[Any] = []
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            word, *numbers = line.rstrip().split(" ")
            try:
                row = np.array(numbers, dtype=np.float32)
            except ValueError as error:
                raise DataError(f"{path} row {number}: {error}; expected a word and numbers; fix the line") from error
            if not len(row) or (rows and len(row) != len(rows[0])):
                wanted = len(rows[0]) if rows else "some"
                raise DataError(f"{path} row {number}: has {len(row)} numbers, expected {wanted}; fix the line")
            words.append(word)
            rows.append(row)
    if not rows:
        raise DataError(f"{path}: is empty; expected a word and its numbers on each line")
    return words, np.stack(rows)


def _in_case_of(model: str, word: str) -> str:
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
