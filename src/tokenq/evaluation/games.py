"""How good a policy is at a game: sampled and greedy games, as they are played while learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.games import Games, Player, game_seeds
from tokenq.acting.rollout import Exploration, Row, kl_to_reference
from tokenq.evaluation.intervals import mean_with_interval
from tokenq.evaluation.policy import Evaluation
from tokenq.nets.reference import Reference


@dataclass(frozen=True)
class GameEvaluator:
    """Plays `samples` games at `exploration` and as many greedily, each kind from the same starts and seeds.

    Games go round the `starts`. Random numbers are its own, so that training does not notice.
    """

    player: Player
    reference: Reference
    starts: Sequence[Row]
    exploration: Boltzmann
    samples: int
    seed: int

    def evaluate(self) -> Evaluation:
        """Mean undiscounted returns with 95 % bootstrap intervals over games, KL to the reference, turns in a game.

        A game that failed is counted and has no return; raises `DataError` if all games of a kind failed.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            sampled, greedy = self._play(self.exploration), self._play(Greedy())
        episodes = self.reference.record(sampled.episodes())
        kl = kl_to_reference(self.player.writer.network, episodes)
        counted = {name: value for name, value in sampled.metrics().items() if not name.startswith("reward")}
        return Evaluation(
            metrics={
                **mean_with_interval("reward", sampled.returns),
                **mean_with_interval("greedy_reward", greedy.returns),
                "kl": float(np.mean(kl)),
                **counted,
                "greedy_failed": float(greedy.failed),
            },
            completions=sampled,
            episodes=episodes,
        )

    def _play(self, exploration: Exploration) -> Games:
        rows = [self.starts[i % len(self.starts)] for i in range(self.samples)]
        return Games(self.player.play(rows, game_seeds(self.seed, 0, self.samples), exploration, 0))
