"""Metrics of classification: a prediction is right if it is the class, apart from white space around it.

A prediction that is no class of the task is wrong, and no prediction of any class. A ratio without a denominator is 0
(scikit-learn's `zero_division=0`), but a class that occurs neither in the references nor in the predictions is left
out of means, as scikit-learn does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenq.errors import ConfigError
from tokenq.evaluation.answers import Answers, Need, needed
from tokenq.evaluation.intervals import Score, mean_score, pooled_score

NEEDS: frozenset[Need] = frozenset({"predictions", "references", "labels"})

Counts = Float[np.ndarray, "C"]
# From hits, predictions and references of each class to the numerator and denominator of its ratio.
Ratio = Callable[[Counts, Counts, Counts], tuple[Counts, Counts]]


@dataclass(frozen=True)
class Accuracy:
    """Share of rows whose class is right, in [0, 1]."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The share with its interval."""
        predicted, right, _ = _classes(answers)
        return mean_score((predicted == right).astype(float), seed, level)


@dataclass(frozen=True)
class Precision:
    """Share of the predictions of a class that are right, in [0, 1]."""

    label: str | None = None
    """The class; null: the mean over the classes (macro)."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The share with its interval; NaN for a class that never occurs."""
        return _score(answers, self.label, lambda hits, predicted, right: (hits, predicted), seed, level)


@dataclass(frozen=True)
class Recall:
    """Share of the rows of a class that are found, in [0, 1]."""

    label: str | None = None
    """The class; null: the mean over the classes (macro)."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The share with its interval; NaN for a class that never occurs."""
        return _score(answers, self.label, lambda hits, predicted, right: (hits, right), seed, level)


@dataclass(frozen=True)
class F1:
    """Harmonic mean of precision and recall, in [0, 1]."""

    label: str | None = None
    """The class; null: the mean over the classes (macro)."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval; NaN for a class that never occurs."""
        return _score(answers, self.label, lambda hits, predicted, right: (2 * hits, predicted + right), seed, level)


def per_class(answers: Answers, seed: int = 0, level: float = 0.95) -> dict[str, dict[str, Score]]:
    """Precision, recall and F1 of every class, by class and then by name."""
    return {
        label: {
            "precision": Precision(label).score(answers, seed, level),
            "recall": Recall(label).score(answers, seed, level),
            "f1": F1(label).score(answers, seed, level),
        }
        for label in needed(answers.labels, "labels")
    }


def _classes(answers: Answers) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], list[str]]:
    """Predicted and right class of each row, as numbers; -1 for a prediction that is no class."""
    labels = list(needed(answers.labels, "labels"))
    number = {label: i for i, label in enumerate(labels)}
    predicted = [number.get(text.strip(), -1) for text in needed(answers.predictions, "predictions")]
    right = [number[reference] for (reference,) in needed(answers.references, "references")]
    return np.array(predicted), np.array(right), labels


def _score(answers: Answers, label: str | None, ratio: Ratio, seed: int, level: float) -> Score:
    predicted, right, labels = _classes(answers)
    if label is not None and label not in labels:
        raise ConfigError(f"label: got {label!r}, expected one of the classes {labels}")
    is_predicted: Bool[np.ndarray, "n C"] = predicted[:, None] == np.arange(len(labels))
    is_right: Bool[np.ndarray, "n C"] = right[:, None] == np.arange(len(labels))
    table = np.concatenate([is_predicted & is_right, is_predicted, is_right], axis=1).astype(float)
    chosen = slice(None) if label is None else [labels.index(label)]

    def mean(sums: Float[np.ndarray, "k"]) -> float:
        hits, predictions, references = sums.reshape(3, -1)[:, chosen]
        above, below = ratio(hits, predictions, references)
        occurs = predictions + references > 0
        values = np.divide(above, below, out=np.zeros_like(above), where=below > 0)[occurs]
        return float(values.mean()) if occurs.any() else float("nan")

    return pooled_score(table, mean, seed, level)
