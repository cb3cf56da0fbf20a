"""Fresh episodes: prompts in order, completions from the behaviour policy, scores from the reward functions."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.acting.baseline import leave_one_out
from tokenq.acting.rewards import TABLE_COLUMNS, Rewards, Scores, TrainerState
from tokenq.errors import DataError, Diverged
from tokenq.nets.encoder import QNetwork
from tokenq.nets.reference import Reference, log_probabilities
from tokenq.replay.codecs import Codec, Prompt
from tokenq.types import Episode

Row = Mapping[str, Any]
"""A row of the data: `prompt` (text or messages) and whatever else the reward functions want to see."""


@runtime_checkable
class Exploration(Protocol):
    """From logits to what is drawn from."""

    def log_probabilities(self, logits: Float[Tensor, "B V"], update: int) -> Float[Tensor, "B V"]:
        """Log-probabilities to draw the next token from."""


class Writer:
    """Turns rows into prompts and prompts into completions, with one model and its codec.

    `context` is the longest text that the model can read, in tokens (None: unlimited).
    """

    def __init__(self, network: QNetwork, codec: Codec, context: int | None) -> None:
        self.network = network
        self.codec = codec
        self.context = context

    def prompt(self, row: Row, max_completion_length: int) -> Prompt:
        """The prompt of a row as tokens; raises `DataError` if no room is left for a completion."""
        prompt = self.codec.prompt(row)
        prompt.fits(self.context, max_completion_length)
        return prompt

    def complete(
        self, prompts: Sequence[Prompt], exploration: Exploration, max_completion_length: int, update: int
    ) -> list[list[int]]:
        """One completion for each prompt, as tokens."""

        def policy(logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
            if not (logits < math.inf).all():  # false for NaN as well; minus infinity is a way to forbid a token
                raise Diverged("the model answers NaN or infinity and cannot write; lower learning_rate")
            return exploration.log_probabilities(logits, update)

        tokens, sources = [prompt.tokens for prompt in prompts], [prompt.source for prompt in prompts]
        return self.network.complete(tokens, sources, policy, max_completion_length, self.codec.ends)


@dataclass(frozen=True, eq=False)
class Completions:
    """Scored completions: what people read, what the log counts, and the episodes for the replay."""

    prompts: list[Prompt]
    tokens: list[list[int]]
    texts: list[str]
    scores: Scores
    ended: list[bool]

    def episodes(self, returns: Float[np.ndarray, "M"], bootstrap_truncated: bool) -> list[Episode]:
        """Episodes whose return sits on the last decision; one that nobody rated (NaN) has no rated decision at all.

        A completion cut at its longest length was scored as it stands, so it ends there, unless `bootstrap_truncated`
        asks for the value of what might have followed.
        """
        return [
            Episode(
                tokens=np.array([*prompt.tokens, *tokens]),
                decisions=np.arange(len(prompt.tokens), len(prompt.tokens) + len(tokens)),
                rewards=np.array([total if math.isnan(total) else 0.0] * (len(tokens) - 1) + [total]),
                terminated=ended or not bootstrap_truncated,
                columns={"prompt": prompt.row["prompt"], "completion": text},
                source=np.array(prompt.source, dtype=np.int64),
            )
            for prompt, tokens, text, total, ended in zip(
                self.prompts, self.tokens, self.texts, returns, self.ended, strict=True
            )
        ]

    def metrics(self) -> dict[str, float]:
        """TRL's metric names."""
        lengths = [len(tokens) for tokens in self.tokens]
        rated = self.scores.total[~np.isnan(self.scores.total)]
        return {
            "reward": float(rated.mean()) if len(rated) else math.nan,
            "reward_std": float(rated.std()) if len(rated) else math.nan,
            "completions/mean_length": float(np.mean(lengths)),
            "completions/clipped_ratio": 1 - float(np.mean(self.ended)),
            **self.scores.metrics,
        }

    def table(self) -> dict[str, list[Any]]:
        """The columns of the completions table, which reads back as scored data: `reward` is the weighted sum."""
        prompts = [prompt.row["prompt"] for prompt in self.prompts]
        answers = _answers(self.prompts, self.texts)
        if len({isinstance(prompt, str) for prompt in prompts}) > 1:  # a column has one type
            prompts = [prompt if isinstance(prompt, str) else json.dumps(prompt) for prompt in prompts]
            answers = self.texts
        # A function that is called like a column of the table gives way, so that nothing it said is lost.
        parts = {f"rewards/{n}" if n in TABLE_COLUMNS else n: part for n, part in self.scores.parts.items()}
        return {
            "prompt": prompts,
            "completion": answers,
            **parts,
            **self.scores.extras,
            "reward": [None if math.isnan(total) else total for total in self.scores.total.tolist()],
            "terminated": self.ended,
        }


def write_and_score(
    writer: Writer,
    prompts: Sequence[Prompt],
    rewards: Rewards,
    exploration: Exploration,
    max_completion_length: int,
    state: TrainerState,
) -> Completions:
    """Complete prompts and score the completions; each is one reward call."""
    tokens = writer.complete(prompts, exploration, max_completion_length, state.global_step)
    texts = [writer.codec.text(prompt, part) for prompt, part in zip(prompts, tokens, strict=True)]
    answers = _answers(prompts, texts)
    names = dict.fromkeys(name for prompt in prompts for name in prompt.row)
    columns = {name: [prompt.row.get(name) for prompt in prompts] for name in names}
    scores = rewards([prompt.row["prompt"] for prompt in prompts], answers, tokens, columns, state)
    return Completions(list(prompts), tokens, texts, scores, [writer.codec.ended(part) for part in tokens])


def _answers(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Any]:
    """Completions as TRL has them: a text after a text, a message after messages."""
    return [
        text if isinstance(prompt.row["prompt"], str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]


@dataclass
class PromptOrder:
    """Prompts in a shuffled order, epoch after epoch; `cursor` counts all prompts ever taken and is its whole state."""

    rows: Sequence[Row]
    seed: int
    cursor: int = field(default=0)

    def take(self, n: int, repeats: int) -> list[Row]:
        """The next n rows, where each prompt comes `repeats` times in a row."""
        groups = [[self._next()] * repeats for _ in range(math.ceil(n / repeats))]
        return [row for group in groups for row in group][:n]

    def _next(self) -> Row:
        epoch, position = divmod(self.cursor, len(self.rows))
        self.cursor += 1
        return self.rows[_permutation(self.seed, epoch, len(self.rows))[position]]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(n).tolist()
    return order


class Rollout:
    """Writes and scores fresh episodes, with the reference's record attached.

    Its whole state is the position in the prompt order and the count of reward calls. If a reward function fails, both
    and torch's random numbers go back to where they were, so that a resumed run asks the same question again.
    """

    def __init__(
        self,
        writer: Writer,
        order: PromptOrder,
        rewards: Rewards,
        exploration: Exploration,
        reference: Reference,
        settings: "RolloutSettings",
    ) -> None:
        self.writer = writer
        self.order = order
        self.rewards = rewards
        self.exploration = exploration
        self.reference = reference
        self.settings = settings
        self.reward_calls = 0
        self.metrics: dict[str, float] = {}
        self.completions: Completions | None = None

    def __call__(self, update: int) -> list[Episode]:
        """Fresh episodes for the replay."""
        settings = self.settings
        with repeatable(self):
            rows = self.order.take(settings.completions, settings.num_generations)
            prompts = [self.writer.prompt(row, settings.max_completion_length) for row in rows]
            done = write_and_score(
                self.writer,
                prompts,
                self.rewards,
                self.exploration,
                settings.max_completion_length,
                TrainerState(update, settings.max_steps),
            )
        self.reward_calls += len(rows)
        self.completions = done
        returns = done.scores.total
        if settings.relative:
            returns = leave_one_out(returns, settings.num_generations)
        episodes = self.reference.record(done.episodes(returns, settings.bootstrap_truncated))
        self.metrics = done.metrics() | {
            "kl": float(np.mean(kl_to_reference(self.writer.network, episodes))),
            "reward_calls": self.reward_calls,
        }
        return episodes


@runtime_checkable
class Acting(Protocol):
    """What writes fresh episodes: its state is how far it is in its order, and what it has counted."""

    order: PromptOrder
    reward_calls: int
    metrics: dict[str, float]


@contextmanager
def repeatable(acting: Acting) -> Iterator[None]:
    """If the block raises, everything goes back to where it was, so that the same prompts are asked again."""
    cursor, calls, metrics = acting.order.cursor, acting.reward_calls, acting.metrics
    random, on_devices = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    try:
        yield
    except BaseException:
        acting.order.cursor, acting.reward_calls, acting.metrics = cursor, calls, metrics
        torch.set_rng_state(random)
        torch.cuda.set_rng_state_all(on_devices)
        raise


@dataclass(frozen=True)
class RolloutSettings:
    """How many completions a rollout writes, how long they may be, and what being cut off means.

    `relative` returns are counted from the mean of the prompt's other completions.
    """

    completions: int
    num_generations: int
    max_completion_length: int
    max_steps: int
    bootstrap_truncated: bool
    relative: bool = False


def kl_to_reference(network: QNetwork, episodes: Sequence[Episode]) -> list[float]:
    """Σ log π/π_ref over each episode's decisions, in nats; its mean over fresh episodes estimates KL(π ‖ π_ref)."""
    ratios = []
    for log, episode in zip(log_probabilities(network, episodes), episodes, strict=True):
        record = episode.record
        if record is None:
            raise DataError("an episode has no reference record; compute it first")
        ratios.append(float((log - (record.logit - record.logsumexp[:-1])).sum()))
    return ratios
