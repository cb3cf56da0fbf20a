"""Similarity of meaning by word vectors: where they come from, how good they are, and a metric that uses them."""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32
from tokenizers import Tokenizer

from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.answers import Answers, Embedder, Need, needed
from tokenq.evaluation.intervals import Score, bootstrap, mean_score
from tokenq.scoring.extra import extra
from tokenq.scoring.words import without_punctuation, words

MINIMUM_PAIRS = 20
"""Fewest covered pairs of a gold standard that give a number: the interval of a correlation of 20 is already ±0.45."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """A table of word vectors."""

    rows: dict[str, int]
    """Word to row of the matrix."""
    matrix: Float32[np.ndarray, "W D"]

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
        """The mean vector of the known words of each text, NaN where none is known.

        A word is looked up as it stands, then in lower case, then without punctuation, then (Chinese) by character.
        """
        found = [[row for chunk in text.split() for row in self._lookup(chunk)] for text in texts]
        unknown = np.full(self.matrix.shape[1], np.nan)
        means = [self.matrix[rows].mean(axis=0, dtype=float) if rows else unknown for rows in found]
        return np.array(means).reshape(len(texts), self.matrix.shape[1])

    def _lookup(self, chunk: str) -> list[int]:
        for form in (chunk, chunk.lower(), without_punctuation(chunk.lower())):
            if form in self.rows:
                return [self.rows[form]]
        return [self.rows[word] for word in words(chunk) if word in self.rows]


@dataclass(frozen=True, eq=False)
class ModelVectors:
    """Vectors of a language model's own input embeddings: the mean over the tokens of a text, order ignored."""

    static: Any
    """model2vec's `StaticModel`."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n D"]:
        """The mean embedding of the tokens of each text, unknown ones left out; NaN where none is left."""
        if not texts:
            return np.empty((0, self.static.dim))
        means: np.ndarray = self.static.encode(list(texts), max_length=None, use_multiprocessing=False).astype(float)
        means[~means.any(axis=1)] = np.nan
        return means


def model_vectors(embeddings: Float[np.ndarray, "V D"], tokenizer: Tokenizer) -> ModelVectors:
    """Static vectors of a model's input embeddings and its tokenizer, nothing downloaded (model2vec).

    The matrix may have more rows than the tokenizer has tokens, as padded models do.
    """
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= len(embeddings):
        raise ConfigError(
            f"embeddings: got {len(embeddings)} rows and a tokenizer with token {largest}; expected a row for every "
            "token, so take the tokenizer of this model"
        )
    # The identity tells model2vec that token numbers are row numbers, whatever the size of either.
    static = extra("model2vec").StaticModel(
        vectors=embeddings.astype(np.float32), tokenizer=tokenizer, token_mapping=np.arange(len(embeddings))
    )
    return ModelVectors(static)


def load_vectors(path: Path) -> Vectors:
    """Word vectors from a text file: a word and its numbers in each line, separated by single spaces (GloVe).

    Read line by line into float32. Raises DataError with file and row for a word that is there twice, a row that is
    longer or shorter than the first, and anything that is not a finite number.
    """
    rows: dict[str, int] = {}
    numbers = array("f")
    width = 0
    for row, line in _lines(path):
        word, *fields = line.rstrip(" ").split(" ")
        width = width or len(fields)
        if not word or not fields or len(fields) != width:
            raise DataError(f"{path}, row {row}: got {len(fields)} numbers after {word!r}, expected {max(width, 1)}")
        if word in rows:
            raise DataError(f"{path}, row {row}: got {word!r} again (first in row {rows[word] + 1}); remove one")
        numbers.extend(_numbers(fields, f"{path}, row {row}"))
        rows[word] = row - 1
    if not rows:
        raise DataError(f"{path}: got an empty file, expected a word and its numbers in each line")
    return Vectors(rows, np.frombuffer(numbers, dtype=np.float32).reshape(len(rows), width))


@dataclass(frozen=True)
class GoldAgreement:
    """How well vectors agree with people on the similarity of words."""

    spearman: Score
    """Rank correlation of cosine and human score, in [-1, 1]; `n` is the number of covered pairs."""
    pairs: int
    """Pairs of the gold standard, covered or not."""


def gold_agreement(
    vectors: Embedder, path: Path, minimum: int = MINIMUM_PAIRS, seed: int = 0, level: float = 0.95
) -> GoldAgreement:
    """Spearman's correlation with a gold standard: a TSV file with the columns word1, word2 and score.

    A pair is covered if both words have a vector. Raises DataError below `minimum` covered pairs (>= 2).
    """
    first, second, gold = _gold(path)
    cosines = _cosine(vectors.embed(first), vectors.embed(second))
    covered = ~np.isnan(cosines)
    n = int(covered.sum())
    if n < minimum:
        raise DataError(
            f"{path}: the vectors cover {n} of {len(gold)} pairs, expected at least {minimum}; "
            "take vectors of more words or another gold standard"
        )
    cosines, gold = cosines[covered], gold[covered]

    interval = bootstrap(lambda rows: spearman(cosines[rows], gold[rows]), n, seed, level)
    return GoldAgreement(Score(spearman(cosines, gold), *interval, n), len(covered))


def spearman(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation in [-1, 1], ties at their mean rank; NaN if either side is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else float("nan")


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """Cosine of the mean vectors of prediction and nearest reference, in [-1, 1], averaged over rows.

    A prediction without a known word counts as 0, so that silence gains nothing; a row is left out if no reference of
    it has a known word.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"predictions", "references", "vectors"})

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval."""
        vectors = needed(answers.vectors, "vectors")
        references = needed(answers.references, "references")
        ours = vectors.embed(needed(answers.predictions, "predictions"))
        theirs = vectors.embed([text for row in references for text in row])
        row = np.repeat(np.arange(len(references)), [len(texts) for texts in references])
        known = ~np.isnan(theirs).any(axis=1)
        cosines = np.nan_to_num(_cosine(ours[row], theirs))
        best = np.full(len(references), -np.inf)
        np.maximum.at(best, row[known], cosines[known])
        return mean_score(np.where(np.isinf(best), np.nan, best), seed, level)


def _ranks(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def _cosine(a: Float[np.ndarray, "n D"], b: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n"]:
    """Cosine of each pair of rows; NaN where one has no direction."""
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: np.ndarray = np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 0)
    return cosine


def _gold(path: Path) -> tuple[list[str], list[str], Float[np.ndarray, "n"]]:
    lines = [(row, line.split("\t")) for row, line in _lines(path)]
    if not lines or lines[0][1] != ["word1", "word2", "score"]:
        raise DataError(f"{path}, row 1: expected the tab-separated columns word1, word2, score")
    for row, fields in lines[1:]:
        if len(fields) != 3:
            raise DataError(f"{path}, row {row}: got {len(fields)} columns, expected 3, separated by tabs")
    gold = [_number(fields[2], f"{path}, row {row}, column score") for row, fields in lines[1:]]
    return [fields[0] for _, fields in lines[1:]], [fields[1] for _, fields in lines[1:]], np.array(gold)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Rows from 1 and their text; only line feeds end a line, since words may hold other separators."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            try:
                yield row, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, row {row}: not UTF-8 ({error.reason}); convert the file") from error


def _numbers(fields: list[str], where: str) -> "array[float]":
    try:
        values = array("f", map(float, fields))
    except ValueError:
        values = array("f")
    if len(values) < len(fields) or not all(map(math.isfinite, values)):
        # Looked at one by one only now, to name the column: large files have 10^8 numbers.
        for column, field in enumerate(fields, start=2):
            _number(field, f"{where}, column {column}")
        raise DataError(f"{where}: got a number too large for float32, expected at most 3.4e38")
    return values


def _number(field: str, where: str) -> float:
    try:
        value = float(field)
    except ValueError as error:
        raise DataError(f"{where}: got {field!r}, expected a number") from error
    if not math.isfinite(value):
        raise DataError(f"{where}: got {field!r}, expected a finite number")
    return value
