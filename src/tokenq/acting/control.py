"""Acting in Gymnasium environments: one draw for each of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.envs.control import Environments
from tokenq.nets.control import ControlQ
from tokenq.ops.policies import epsilon_greedy
from tokenq.ops.radix import encode
from tokenq.types import Steps


@torch.no_grad()
def act(
    network: ControlQ,
    exploration: Boltzmann | EpsilonGreedy | Greedy,
    observations: Shaped[np.ndarray, "M *shape"],
    update: int,
) -> Int[np.ndarray, "M"]:
    """One action for every environment, drawn independently (SB3 throws one coin for all of them).

    The parts of an action are drawn by themselves, which under a softmax is a draw from the joint one.
    """
    values = network.values(torch.from_numpy(observations).to(network.device))
    if network.parts is None:
        probabilities = exploration.log_probabilities(values, update).exp()
        drawn = torch.multinomial(probabilities, 1).squeeze(1)
    else:
        probabilities = _of_parts(exploration, values, update)
        choices = torch.multinomial(probabilities.flatten(0, 1), 1).unflatten(0, values.shape[:2])
        drawn = encode(choices.squeeze(-1), network.parts.heads)
    actions: np.ndarray = drawn.cpu().numpy()
    return actions


def _of_parts(
    exploration: Boltzmann | EpsilonGreedy | Greedy, values: Float[Tensor, "M D A"], update: int
) -> Float[Tensor, "M D A"]:
    """What each part is drawn from, up to a factor; ε-greedy throws one coin for all parts of an action."""
    if not isinstance(exploration, EpsilonGreedy):
        log: Tensor = exploration.log_probabilities(values.flatten(0, 1), update).unflatten(0, values.shape[:2])
        return log.exp()
    random = torch.rand(len(values), 1, 1, device=values.device) < exploration.epsilon(update)
    return (values > -torch.inf).float().where(random, epsilon_greedy(values, 0.0).exp())


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
