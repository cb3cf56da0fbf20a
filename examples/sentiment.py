"""A reward function for English text: how positive it sounds to a classifier fitted on labelled sentences.

The classifier is a scikit-learn pipeline (counts of words and word pairs, logistic regression), fitted when the reward
is loaded; its accuracy on held-out sentences is printed, because a reward is only worth what its judge is worth.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


class Sentiment:
    """Probability that a completion is positive, in [0, 1].

    `data` is a folder with `train.jsonl` and `dev.jsonl`, rows of `text` and `label` (1 positive, 0 negative).
    """

    def __init__(self, data: str) -> None:
        texts, labels = _read(Path(data) / "train.jsonl")
        self.pipeline = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
        self.pipeline.fit(texts, labels)
        self.accuracy = float(self.pipeline.score(*_read(Path(data) / "dev.jsonl")))
        print(f"sentiment reward: held-out accuracy {self.accuracy:.3f}", file=sys.stderr)

    def __call__(self, completions: Sequence[str], **_: Any) -> list[float]:
        """One probability for each completion."""
        return self.pipeline.predict_proba([text.lower() for text in completions])[:, 1].tolist()


def _read(path: Path) -> tuple[list[str], list[int]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]
