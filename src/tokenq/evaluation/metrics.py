"""The metrics of language tasks by name, which of them a task can have, and all of them at once."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import ClassVar, Protocol, runtime_checkable

from tokenq.errors import ConfigError
from tokenq.evaluation.answers import NEEDS, Answers, Need
from tokenq.evaluation.diversity import Distinct, LongestLoop, MeanLength, Repetition
from tokenq.evaluation.intervals import Score
from tokenq.evaluation.labels import F1, Accuracy, Precision, Recall
from tokenq.evaluation.likelihood import KL, Perplexity
from tokenq.evaluation.matching import ExactMatch, TokenF1
from tokenq.evaluation.overlap import BLEU, CHRF, ROUGE
from tokenq.evaluation.similarity import EmbeddingSimilarity


@runtime_checkable
class Metric(Protocol):
    """A figure of the rows of an evaluation."""

    needs: ClassVar[frozenset[Need]]
    """The columns that it reads."""

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The figure over all rows, and its interval at this level; the same rows and seed give the same interval."""


METRICS: dict[str, Metric] = {
    "accuracy": Accuracy(),
    "precision": Precision(),
    "recall": Recall(),
    "f1": F1(),
    "exact_match": ExactMatch(),
    "token_f1": TokenF1(),
    "bleu": BLEU(),
    "bleu_zh": BLEU("zh"),
    "bleu_char": BLEU("char"),
    "chrf": CHRF(),
    "rouge1": ROUGE("1"),
    "rouge2": ROUGE("2"),
    "rougel": ROUGE("L"),
    "rouge1_zh": ROUGE("1", "words"),
    "rouge2_zh": ROUGE("2", "words"),
    "rougel_zh": ROUGE("L", "words"),
    "embedding_similarity": EmbeddingSimilarity(),
    "distinct1": Distinct(1),
    "distinct2": Distinct(2),
    "distinct3": Distinct(3),
    "repetition": Repetition(),
    "longest_loop": LongestLoop(),
    "mean_length": MeanLength(),
    "perplexity": Perplexity(),
    "kl": KL(),
}
"""Name on the command line to metric, at its defaults."""


def fitting(names: Sequence[str], available: Collection[Need]) -> dict[str, Metric]:
    """The metrics of these names, in this order; a ConfigError for a name that is unknown or does not fit the task.

    `available` is what the task's rows will have, as `Answers.available` says it.
    """
    for name in names:
        if name not in METRICS:
            close = get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(METRICS)}"
            raise ConfigError(f"metrics: got {name!r}; {hint}")
        if not METRICS[name].needs <= set(available):
            fit = [other for other, metric in METRICS.items() if metric.needs <= set(available)]
            raise ConfigError(
                f"metrics: got {name!r}, which needs {_listed(METRICS[name].needs)}; this task has "
                f"{_listed(available) or 'none of them'}; metrics that fit: {', '.join(fit) or 'none'}"
            )
    return {name: METRICS[name] for name in names}


def scores(metrics: Mapping[str, Metric], answers: Answers, seed: int = 0, level: float = 0.95) -> dict[str, Score]:
    """Every metric on the same rows."""
    return {name: metric.score(answers, seed, level) for name, metric in metrics.items()}


def _listed(needs: Collection[Need]) -> str:
    return ", ".join(need for need in NEEDS if need in needs)
