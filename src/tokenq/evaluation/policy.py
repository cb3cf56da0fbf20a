"""How good a policy is: sampled and greedy completions of the evaluation prompts, scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.games import Games
from tokenq.acting.rewards import Rewards, TrainerState
from tokenq.acting.rollout import Completions, Row, Writer, kl_to_reference, write_and_score
from tokenq.evaluation.intervals import mean_with_interval
from tokenq.nets.reference import Reference
from tokenq.types import Episode

BATCH = 128


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures, and what they were taken from."""

    metrics: dict[str, float]
    completions: Completions | Games
    episodes: list[Episode]


@dataclass(frozen=True)
class Evaluator:
    """Scores a policy on fixed prompts with random numbers of its own, so that training does not notice.

    `samples` completions are drawn at `exploration`, going round the prompts; each prompt also gets one greedy
    completion, of at most `samples` prompts.
    """

    writer: Writer
    rewards: Rewards
    reference: Reference
    prompts: Sequence[Row]
    exploration: Boltzmann
    samples: int
    max_completion_length: int
    seed: int

    def evaluate(self) -> Evaluation:
        """Mean rewards with 95 % bootstrap intervals over completions, KL to the reference, and mean length."""
        rows = [self.prompts[i % len(self.prompts)] for i in range(self.samples)]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            sampled = self._complete(rows, self.exploration)
            greedy = self._complete(rows[: len(self.prompts)], Greedy())
        episodes = self.reference.record([e for part in sampled for e in part.episodes(part.scores.total, False)])
        kl = np.array(kl_to_reference(self.writer.network, episodes))
        return Evaluation(
            metrics={
                **mean_with_interval("reward", _totals(sampled)),
                **mean_with_interval("greedy_reward", _totals(greedy)),
                "kl": float(kl.mean()),
                "mean_length": float(np.mean([len(tokens) for part in sampled for tokens in part.tokens])),
            },
            completions=sampled[0],
            episodes=episodes,
        )

    def _complete(self, rows: Sequence[Row], exploration: Boltzmann | Greedy) -> list[Completions]:
        prompts = [self.writer.prompt(row, self.max_completion_length) for row in rows]
        parts = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
        state = TrainerState(0, 0)
        length = self.max_completion_length
        return [write_and_score(self.writer, part, self.rewards, exploration, length, state) for part in parts]


def _totals(parts: Sequence[Completions]) -> np.ndarray:
    totals: np.ndarray = np.concatenate([part.scores.total for part in parts])
    rated: np.ndarray = totals[~np.isnan(totals)]
    return rated
