"""Metrics of a model on the rows of an evaluation: what it says, and how probable it finds what should be said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.rollout import Exploration, Writer, kl_to_reference
from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.answers import Answers, Need
from tokenq.evaluation.metrics import fitting, scores
from tokenq.evaluation.similarity import load_vectors, model_vectors
from tokenq.nets.reference import Reference, log_probabilities
from tokenq.replay.codecs import Joint
from tokenq.replay.offline import episodes_from_rows
from tokenq.types import Episode

BATCH = 64

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is measured on which rows: those of a task, with `references`, or plain texts, with `text`.

    `labels` are the classes of a classification, empty for other tasks; `vectors` is a file of word vectors, None for
    the model's own embeddings.
    """

    metrics: Sequence[str]
    rows: Rows
    source: str
    labels: Sequence[str]
    max_completion_length: int
    vectors: str | None
    seed: int

    def check(self) -> None:
        """Raise `ConfigError` for a metric that is unknown or does not fit these rows."""
        fitting(self.metrics, self._available)

    @property
    def _is_text(self) -> bool:
        return "references" not in self.rows[0]

    @property
    def _available(self) -> frozenset[Need]:
        if self._is_text:
            return frozenset({"log_probabilities"})
        there: set[Need] = {"predictions", "references", "log_probabilities", "kl", "vectors"}
        return frozenset(there | {"labels"} if self.labels else there)

    def of(self, writer: Writer, reference: Reference) -> tuple[dict[str, float], dict[str, str]]:
        """Figures with 95 % intervals (`name`, `name_low`, `name_high`), and the signatures of those that have one."""
        metrics = fitting(self.metrics, self._available)
        needs = frozenset[Need]().union(*(metric.needs for metric in metrics.values()))
        found = scores(metrics, self._answers(writer, reference, needs), self.seed)
        figures = {
            f"{name}{end}": value
            for name, score in found.items()
            for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
        }
        return figures, {name: score.signature for name, score in found.items() if score.signature}

    def _answers(self, writer: Writer, reference: Reference, needs: frozenset[Need]) -> Answers:
        if self._is_text:
            return Answers(log_probabilities=_of_texts(writer, self.rows, self.source))
        spoken = needs & {"predictions", "references", "labels", "vectors"}
        return Answers(
            predictions=self._said(writer, Greedy())[0] if spoken else None,
            references=[row["references"] for row in self.rows],
            labels=self.labels or None,
            log_probabilities=self._of_references(writer) if "log_probabilities" in needs else None,
            kl=self._kl(writer, reference) if "kl" in needs else None,
            vectors=self._vectors(writer) if "vectors" in needs else None,
        )

    def _said(self, writer: Writer, exploration: Exploration) -> tuple[list[str], list[Episode]]:
        """One completion of every row, as text and as an episode without rewards."""
        texts: list[str] = []
        episodes: list[Episode] = []
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for start in range(0, len(self.rows), BATCH):
                prompts = [writer.prompt(row, self.max_completion_length) for row in self.rows[start : start + BATCH]]
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

    def _of_references(self, writer: Writer) -> list[Float[np.ndarray, "_"]]:
        rows = [{**row, "reward": 0.0} for row in self.rows]
        episodes = episodes_from_rows(rows, writer.codec, self.source, writer.context)
        return log_probabilities(writer.network, episodes)

    def _kl(self, writer: Writer, reference: Reference) -> Float[np.ndarray, "n"]:
        return np.array(kl_to_reference(writer.network, reference.record(self._said(writer, Boltzmann())[1])))

    def _vectors(self, writer: Writer) -> Any:
        if self.vectors is not None:
            return load_vectors(Path(self.vectors))
        embeddings: Any = writer.network.causal.get_input_embeddings()
        codec: Any = writer.codec
        return model_vectors(embeddings.weight.detach().float().cpu().numpy(), codec.tokenizer.backend_tokenizer)


def _of_texts(writer: Writer, rows: Rows, source: str) -> list[Float[np.ndarray, "_"]]:
    """Log-probabilities of every token of whole texts but the first, in pieces of the model's context."""
    if not isinstance(writer.codec, Joint):
        raise ConfigError("metrics: got perplexity of plain texts, expected a decoder-only or recurrent language model")
    tokenizer = writer.codec.tokenizer
    episodes = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("text"), str):
            raise DataError(f"{source} row {number}: no text; expected a column text, or a task with references")
        tokens = [*tokenizer(row["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        size = writer.context or len(tokens)
        for start in range(0, len(tokens), size):
            piece = np.array(tokens[start : start + size])
            if len(piece) > 1:
                episodes.append(Episode(piece, np.arange(1, len(piece)), np.zeros(len(piece) - 1), terminated=True))
    if not episodes:
        raise DataError(f"{source}: all texts are empty; expected at least one to measure on")
    return log_probabilities(writer.network, episodes)
