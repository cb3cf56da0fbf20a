"""Acting in Gymnasium environments: one draw for each of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Shaped

from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.envs.control import Environments
from tokenq.nets.control import ControlQ
from tokenq.types import Steps


@torch.no_grad()
def act(
    network: ControlQ,
    exploration: Boltzmann | EpsilonGreedy | Greedy,
    observations: Shaped[np.ndarray, "M *shape"],
    update: int,
) -> Int[np.ndarray, "M"]:
    """One action for every environment, drawn independently (SB3 throws one coin for all of them)."""
    values = network.values(torch.from_numpy(observations).to(network.device))
    log = exploration.log_probabilities(values, update)
    actions: np.ndarray = torch.multinomial(log.exp(), 1).squeeze(1).cpu().numpy()
    return actions


@dataclass(frozen=True, eq=False)
class Collector:
    """Steps environments with a network and an exploration."""

    network: ControlQ
    environments: Environments
    exploration: Boltzmann | EpsilonGreedy | Greedy

    def random(self, rng: np.random.Generator) -> Steps:
        """One step with actions that nothing chose."""
        environments = self.environments
        return environments.step(rng.integers(environments.spaces.actions, size=environments.number))

    def step(self, update: int) -> Steps:
        """One step of the policy as it is before this update."""
        environments = self.environments
        return environments.step(act(self.network, self.exploration, environments.observations, update))
