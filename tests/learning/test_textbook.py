"""The one learner, with plain gradient descent on a table, makes the textbook's update and no other."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import DQN, DoubleDQN, Vocabulary
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import NoTarget
from tokenq.learning.target import Target, TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import ControlQ
from tokenq.nets.table import Table
from tokenq.types import Batch, Observations, Spaces

STATES, ACTIONS, GAMMA = 5, 3, 0.9
Step = tuple[int, int, float, int, bool]


def learner_of(network: ControlQ, objective: DQN | DoubleDQN, rate: float, max_grad_norm: float = 1e6) -> Learner:
    optimisation = Optimisation(learning_rate=rate, max_grad_norm=max_grad_norm, optim="sgd")
    target = Target(network, TargetConfig(NoTarget()), 0)
    return Learner(network, objective, target, RawRewards(), optimisation, Accelerator(cpu=True))


def batch_of(steps: list[Step]) -> Batch:
    state, action, reward, after, terminated = (torch.tensor(part).unsqueeze(1) for part in zip(*steps, strict=True))
    whole = torch.ones_like(terminated)
    weight, index = torch.ones(len(steps)), torch.arange(len(steps))
    return Batch(Observations(state, after), action, reward, 1.0 - terminated.float(), whole, whole, weight, index)


def random_steps(n: int) -> list[Step]:
    rng = np.random.default_rng(0)
    state, action, after = (rng.integers(size, size=n).tolist() for size in (STATES, ACTIONS, STATES))
    return list(
        zip(state, action, rng.uniform(-0.2, 0.2, n).tolist(), after, (rng.random(n) < 0.2).tolist(), strict=True)
    )


@pytest.mark.parametrize("alpha", [0.03, 0.5, 1.0])
@pytest.mark.parametrize("method", [DQN, DoubleDQN])
def test_each_update_is_that_of_watkins(method: type[DQN | DoubleDQN], alpha: float) -> None:
    """Watkins & Dayan (1992): Q(s, a) ← Q(s, a) + α·(r + γ·max Q(s', ·) − Q(s, a)), and no bootstrap at an end."""
    network = Table(initial=0.5).build(Spaces((), STATES, (ACTIONS,)))
    learner = learner_of(network, method(Raw(), Vocabulary(), GAMMA), alpha)
    q = np.full((STATES, ACTIONS), 0.5)
    for s, a, r, after, terminated in random_steps(300):
        q[s, a] += alpha * (r + (0.0 if terminated else GAMMA * q[after].max()) - q[s, a])
        learner.update(batch_of([(s, a, r, after, terminated)]))
        assert np.abs(network.values(torch.arange(STATES)).detach().numpy() - q).max() < 1e-6


def test_in_a_batch_a_step_counts_with_its_share_of_the_learning_rate() -> None:
    """Targets 3 and 5 from 1, rate 1, four steps: a quarter of the way, and half of it where a step was drawn twice."""
    network = Table(initial=1.0).build(Spaces((), STATES, (ACTIONS,)))
    learner = learner_of(network, DQN(Raw(), Vocabulary(), GAMMA), rate=1.0)
    once, twice = (0, 1, 3.0, 4, True), (2, 0, 5.0, 4, True)
    learner.update(batch_of([once, twice, twice, (3, 2, 1.0, 4, True)]))
    q = network.values(torch.arange(STATES)).detach()
    assert float(q[0, 1]) == pytest.approx(1 + 2 / 4) and float(q[2, 0]) == pytest.approx(1 + 4 * 2 / 4)
    assert int((q != 1).sum()) == 2


def test_a_clipped_gradient_is_a_shorter_step() -> None:
    network = Table().build(Spaces((), STATES, (ACTIONS,)))
    learner = learner_of(network, DQN(Raw(), Vocabulary(), GAMMA), 0.5, max_grad_norm=2.0)
    learner.update(batch_of([(1, 1, 8.0, 0, True)]))
    assert float(network.values(torch.tensor([1])).detach()[0, 1]) == pytest.approx(0.5 * 2)
