"""The exact value of a greedy policy, from the table and from playing."""

import numpy as np
import pytest
import torch

from tokenq.envs.control import Gymnasium
from tokenq.evaluation.tabular import start_values
from tokenq.nets.control import ControlQ, Mlp
from tokenq.nets.table import Table
from tokenq.types import Spaces


def walking(actions: list[int]) -> ControlQ:
    """A table whose greedy action is the given one in every state."""
    network = Table().build(Spaces((), len(actions), (4,)))
    with torch.no_grad():
        next(iter(network.parameters()))[torch.arange(len(actions)), actions] = 1.0
    return network


def test_along_the_cliff_and_round_in_circles() -> None:
    cliff = Gymnasium("CliffWalking-v1", max_episode_steps=50)
    before = torch.get_rng_state()
    optimum = pytest.approx(-(1 - 0.9**13) / 0.1)
    # Right everywhere, but up at the start and down at the end of the third row.
    along = start_values(cliff, walking([1] * 35 + [2] + [0] + [1] * 11), 0.9)
    assert along == {"start_value": optimum, "optimal_start_value": optimum}
    assert start_values(cliff, walking([0] * 48), 0.9)["start_value"] == pytest.approx(-10)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_slippery_lake_as_it_is_played() -> None:
    """2,000 discounted returns of one policy lie around its exact value."""
    lake, gamma = Gymnasium("FrozenLake-v1"), 0.9
    policy = [0, 3, 3, 3, 0, 0, 0, 0, 3, 1, 0, 0, 0, 2, 1, 0]
    exact = start_values(lake, walking(policy), gamma)
    environments = lake.make(50, 0)
    returns: list[float] = []
    lengths = np.zeros(50)
    while len(returns) < 2000:
        steps = environments.step(np.array(policy)[environments.observations])
        returns += (steps.rewards * gamma**lengths)[steps.ended].tolist()
        lengths = (lengths + 1) * ~steps.ended
    environments.close()
    error = np.std(returns) / len(returns) ** 0.5
    assert exact["start_value"] == pytest.approx(np.mean(returns), abs=4 * error) and error < 0.01
    # The best policy for γ = 0.99 is a little too careful for 0.9.
    assert 0.98 < exact["start_value"] / exact["optimal_start_value"] < 1


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert start_values(Gymnasium("CartPole-v1"), Mlp(1, 2).build(Spaces((4,), None, (2,))), 0.9) == {}
    assert start_values(Gymnasium("FrozenLake-v1"), walking([0] * 16), 1.0) == {}
