"""Answers to questions: exact match and token F1 over a set, the best over the references of each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokenq.evaluation.answers import Answers, Need, needed
from tokenq.evaluation.intervals import Score, mean_score
from tokenq.scoring.matching import exact_match, token_f1

NEEDS: frozenset[Need] = frozenset({"predictions", "references"})


@dataclass(frozen=True)
class ExactMatch:
    """Share of predictions that are one of the references, in [0, 1]."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The share with its interval."""
        rows = zip(needed(answers.predictions, "predictions"), needed(answers.references, "references"), strict=True)
        return mean_score(np.array([exact_match(*row) for row in rows]), seed, level)


@dataclass(frozen=True)
class TokenF1:
    """Overlap of words with the nearest reference, in [0, 1], averaged over rows."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval."""
        rows = zip(needed(answers.predictions, "predictions"), needed(answers.references, "references"), strict=True)
        return mean_score(np.array([token_f1(*row) for row in rows]), seed, level)
