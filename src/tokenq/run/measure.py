"""Metrics of a model on the rows of an evaluation: what it says, and how probable it finds what should be said.

A row with a `prompt` lets the model speak, and `references` beside it say what is right. A row with a `completion` or
with `messages` lets it judge those; any other row with a `text` lets it judge all of the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.rollout import Exploration, Writer, kl_to_reference
from tokenq.envs.examples import Numbered
from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.answers import NEEDS, Answers, Need
from tokenq.evaluation.intervals import Score, with_intervals
from tokenq.evaluation.metrics import Metric, fitting, scores
from tokenq.evaluation.similarity import load_vectors, model_vectors
from tokenq.nets.encoder import QNetwork
from tokenq.nets.reference import Reference, log_probabilities
from tokenq.replay.codecs import Codec, Joint
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows
from tokenq.run.data import SCORES
from tokenq.types import Episode

BATCH = 64

Rows = Sequence[Numbered]
Judged = Literal["text", "answer"]
"""What of a row a model can find probable or not: a whole text, or an answer given what came before."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is measured on which rows, and on which prompts among them: none if the rows have no prompt.

    `labels` are the classes of a classification, empty for other tasks; `vectors` is a file of word vectors, None for
    the model's own embeddings.
    """

    metrics: Sequence[str]
    rows: Rows
    prompts: Rows
    source: str
    labels: Sequence[str]
    max_completion_length: int
    vectors: str | None
    seed: int

    def check(self) -> None:
        """See that every metric can be computed, before anything is.

        Raises:
            ConfigError: A metric is unknown, or needs what these rows do not have.
            DataError: A row lacks what the others have and a metric needs.
        """
        needs = _needs(self._metrics)
        if "references" in needs:
            _check_references(self.rows, self.source, self.labels)
        if "log_probabilities" in needs:
            judged(self.rows, self.source)

    @property
    def _metrics(self) -> dict[str, Metric]:
        fitting(self.metrics, NEEDS)  # refuses what is no metric at all
        try:
            return fitting(self.metrics, self._available)
        except ConfigError as error:
            _, row = self.rows[0]
            raise ConfigError(f"{error} ({self.source} has the columns {', '.join(row)})") from error

    @property
    def _available(self) -> frozenset[Need]:
        there: set[Need] = set()
        if self.prompts:
            there |= {"predictions", "kl"}
        if self.prompts and any("references" in row for _, row in self.rows):
            there |= {"references", "vectors"}
            there |= {"labels"} if self.labels else set()
        if any(_judged(row) is not None for _, row in self.rows):
            there |= {"log_probabilities"}
        return frozenset(there)

    def of(self, writer: Writer, reference: Reference) -> tuple[dict[str, float], dict[str, str]]:
        """Figures with 95 % intervals (`name`, `name_low`, `name_high`), and the signatures of those that have one."""
        metrics = self._metrics
        judging = {name: metric for name, metric in metrics.items() if "log_probabilities" in metric.needs}
        speaking = {name: metric for name, metric in metrics.items() if name not in judging}
        if speaking:
            self._check_prompts(writer)
        found: dict[str, Score] = {}
        if judging:
            episodes = judged_episodes(self.rows, self.source, writer.codec, writer.context)
            found |= scores(judging, Answers(log_probabilities=log_probabilities(writer.network, episodes)), self.seed)
        if speaking:
            found |= scores(speaking, self._spoken(writer, reference, _needs(speaking)), self.seed)
        figures = with_intervals({name: found[name] for name in metrics})
        return figures, {name: score.signature for name in metrics if (score := found[name]).signature}

    def _check_prompts(self, writer: Writer) -> None:
        """Raise `DataError`, with file and row, for a prompt that is none or that leaves no room to answer."""
        rows, numbers = [row for _, row in self.prompts], [number for number, _ in self.prompts]
        prompts_from_rows(rows, writer.codec, self.source, writer.context, self.max_completion_length, numbers)

    def _spoken(self, writer: Writer, reference: Reference, needs: frozenset[Need]) -> Answers:
        return Answers(
            predictions=self._said(writer, Greedy())[0] if needs - {"kl"} else None,
            references=[row["references"] for _, row in self.prompts] if "references" in needs else None,
            labels=(self.labels or None) if "labels" in needs else None,
            kl=self._kl(writer, reference) if "kl" in needs else None,
            vectors=self._vectors(writer) if "vectors" in needs else None,
        )

    def _said(self, writer: Writer, exploration: Exploration) -> tuple[list[str], list[Episode]]:
        """One completion of every prompt, as text and as an episode without rewards."""
        texts: list[str] = []
        episodes: list[Episode] = []
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for start in range(0, len(self.prompts), BATCH):
                rows = [row for _, row in self.prompts[start : start + BATCH]]
                prompts = [writer.prompt(row, self.max_completion_length) for row in rows]
                decided = writer.complete(prompts, exploration, self.max_completion_length, 0)
                for prompt, tokens in zip(prompts, decided, strict=True):
                    texts.append(writer.codec.text(prompt, tokens).strip())
                    episodes.append(
                        Episode(
                            tokens=np.array([*prompt.tokens, *tokens]),
                            decisions=np.arange(len(prompt.tokens), len(prompt.tokens) + len(tokens)),
                            rewards=np.zeros(len(tokens)),
                            terminated=True,
                            source=np.array(prompt.source, dtype=np.int64),
                        )
                    )
        return texts, episodes

    def _kl(self, writer: Writer, reference: Reference) -> Float[np.ndarray, "n"]:
        return np.array(kl_to_reference(writer.network, reference.record(self._said(writer, Boltzmann())[1])))

    def _vectors(self, writer: Writer) -> Any:
        codec: Any = writer.codec
        return (
            own_vectors(writer.network, codec.tokenizer) if self.vectors is None else load_vectors(Path(self.vectors))
        )


def own_vectors(network: QNetwork, tokenizer: Any) -> Any:
    """The word vectors that a model's own input embeddings are."""
    embeddings: Any = network.causal.get_input_embeddings()
    return model_vectors(embeddings.weight.detach().float().cpu().numpy(), tokenizer.backend_tokenizer)


def judged(rows: Rows, source: str) -> Judged:
    """What of these rows a model can find probable; raises `DataError` for a row unlike the others."""
    kinds = [_judged(row) for _, row in rows]
    expected = next((kind for kind in kinds if kind is not None), None)
    for (number, _), kind in zip(rows, kinds, strict=True):
        if kind is None or kind != expected:
            wanted = {"text": "a text", "answer": "prompt and completion, or messages"}
            told = f"{wanted[expected]}, as in other rows" if expected else " or ".join(wanted.values())
            raise DataError(f"{source} row {number}: nothing to judge; expected {told}; fix or drop the row")
    assert expected is not None
    return expected


def judged_episodes(rows: Rows, source: str, codec: Codec, context: int | None) -> list[Episode]:
    """What a model is asked the probability of, as decisions: every token of an answer, or all of a text but the first.

    A long text comes in pieces of the model's context, each of which has such a first token.
    """
    if judged(rows, source) == "text":
        return _of_texts(rows, source, codec, context)
    unrated = [{name: value for name, value in row.items() if name not in SCORES | {"rejected"}} for _, row in rows]
    numbers = [number for number, _ in rows]
    return episodes_from_rows([row | {"reward": 0.0} for row in unrated], codec, source, context, numbers)


def _of_texts(rows: Rows, source: str, codec: Codec, context: int | None) -> list[Episode]:
    if not isinstance(codec, Joint):
        raise ConfigError("metrics: got perplexity of plain texts, expected a decoder-only or recurrent language model")
    tokenizer = codec.tokenizer
    episodes = []
    for _, row in rows:
        tokens = [*tokenizer(row["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        size = context or len(tokens)
        for start in range(0, len(tokens), size):
            piece = np.array(tokens[start : start + size])
            if len(piece) > 1:
                episodes.append(Episode(piece, np.arange(1, len(piece)), np.zeros(len(piece) - 1), terminated=True))
    if not episodes:
        raise DataError(f"{source}: all texts are empty; expected at least one to measure on")
    return episodes


def _judged(row: Mapping[str, Any]) -> Judged | None:
    if any(row.get(column) is not None for column in ("completion", "completion_ids", "messages")):
        return "answer"
    return "text" if isinstance(row.get("text"), str) else None


def _needs(metrics: Mapping[str, Metric]) -> frozenset[Need]:
    return frozenset[Need]().union(*(metric.needs for metric in metrics.values()))


def _check_references(rows: Rows, source: str, labels: Sequence[str]) -> None:
    for number, row in rows:
        if row.get("references") is None:
            raise DataError(f"{source} row {number}: no references; expected some, as in other rows; fix or drop it")
    try:
        Answers(references=[row["references"] for _, row in rows], labels=labels or None)
    except DataError as error:
        raise DataError(f"{source} {error}") from error
