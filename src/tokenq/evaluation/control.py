"""How good an agent is: the returns of whole greedy episodes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from tokenq.acting.control import act
from tokenq.acting.explore import Greedy
from tokenq.envs.atari import Atari
from tokenq.envs.control import Gymnasium
from tokenq.evaluation.intervals import bootstrap_interval
from tokenq.nets.control import ControlQ
from tokenq.nets.noisy import without_noise

TOGETHER = 50
"""Episodes that are played side by side."""
APART = 2**31
"""Added to the seed, so that no episode of an evaluation was trained on."""


@dataclass(frozen=True)
class Episodes:
    """Greedy episodes of fresh environments, the same ones at every evaluation."""

    environment: Gymnasium | Atari
    number: int
    seed: int

    def evaluate(self, network: ControlQ) -> dict[str, float]:
        """Mean return with its 95 % bootstrap interval over episodes, its interquartile mean, and the mean length."""
        returns, lengths = self.play(network)
        low, high = bootstrap_interval(returns)
        return {
            "return": float(returns.mean()),
            "return_low": low,
            "return_high": high,
            "return_iqm": interquartile_mean(returns),
            "length": float(lengths.mean()),
        }

    def play(self, network: ControlQ) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """Return and length of every episode, without noise. Training does not notice: it loses no random number."""
        together = min(self.number, TOGETHER)
        environments = self.environment.evaluation.make(together, self.seed + APART)
        played: list[list[tuple[float, int]]] = [[] for _ in range(together)]
        rewards, lengths = np.zeros(together), np.zeros(together, np.int64)
        # The first episodes of every environment: taking those that end first would favour the short ones.
        wanted = [self.number // together + (i < self.number % together) for i in range(together)]
        with without_noise(network), torch.random.fork_rng():
            while any(len(done) < n for done, n in zip(played, wanted, strict=True)):
                steps = environments.step(act(network, Greedy(), environments.observations, 0))
                rewards, lengths = rewards + steps.rewards, lengths + 1
                for i in np.flatnonzero(steps.ended):
                    played[i].append((float(rewards[i]), int(lengths[i])))
                rewards, lengths = rewards * ~steps.ended, lengths * ~steps.ended
        environments.close()
        chosen = [episode for done, n in zip(played, wanted, strict=True) for episode in done[:n]]
        return np.array([total for total, _ in chosen]), np.array([length for _, length in chosen])


def interquartile_mean(values: Float[np.ndarray, "n"]) -> float:
    """The mean of the middle half (Agarwal et al. 2021, arXiv 2108.13264); of fewer than four values, the mean."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())
