"""How near the optimum a greedy policy is, exactly, where the environment's transition table is known."""

import numpy as np
import torch

from tokenq.acting.control import act
from tokenq.acting.explore import Greedy
from tokenq.envs.atari import Atari
from tokenq.envs.control import Gymnasium
from tokenq.envs.tabular import optimal_values, policy_values, read_model
from tokenq.nets.control import ControlQ


def start_values(environment: Gymnasium | Atari, network: ControlQ, gamma: float) -> dict[str, float]:
    """Expected discounted return from the start, without a time limit: of the greedy policy, and of the best there is.

    Nothing for an environment without a table, and for γ = 1, where a policy that goes in circles has no value.
    Training does not notice: no shared random number is drawn.
    """
    known = read_model(environment) if gamma < 1 and isinstance(environment, Gymnasium) else None
    if known is None:
        return {}
    with torch.random.fork_rng():
        policy = act(network, Greedy(), np.arange(len(known.start)), 0)
    return {
        "start_value": float(known.start @ policy_values(known, policy, gamma)),
        "optimal_start_value": float(known.start @ optimal_values(known, gamma)),
    }
