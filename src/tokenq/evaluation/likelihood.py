"""Metrics of probabilities: how well a model predicts a text, and how far it went from the reference model."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from tokenq.evaluation.answers import Answers, Need, needed
from tokenq.evaluation.intervals import Score, mean_score, pooled_score


@dataclass(frozen=True)
class Perplexity:
    """exp(−mean log-probability of a token), >= 1; long texts count for more. A row without tokens is left out."""

    needs: ClassVar[frozenset[Need]] = frozenset({"log_probabilities"})

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The perplexity with its interval over texts; NaN if no row has a token."""
        rows = [row for row in needed(answers.log_probabilities, "log_probabilities") if len(row)]
        table = np.array([[-float(row.sum(dtype=float)), len(row)] for row in rows]).reshape(-1, 2)
        return pooled_score(table, _perplexity, seed, level)


def _perplexity(sums: Float[np.ndarray, "2"]) -> float:
    negative, tokens = sums
    return float(np.exp(negative / tokens)) if tokens else float("nan")


@dataclass(frozen=True)
class KL:
    """KL divergence from the reference model per text, in nats; estimates from samples may be below 0."""

    needs: ClassVar[frozenset[Need]] = frozenset({"kl"})

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean over texts with its interval."""
        return mean_score(needed(answers.kl, "kl"), seed, level)
