"""A round of updates: answered by the target network at once, and yet the same as one update after the other."""

from collections.abc import Sequence

import pytest
import torch
from accelerate import Accelerator

from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import DQN, DoubleDQN, Munchausen, Vocabulary
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Adaptive, NoTarget, Periodic, Polyak, RandomPartial
from tokenq.learning.target import Sync, Target, TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import Mlp
from tokenq.types import Batch, Observations, Spaces

RULES = [NoTarget(), Periodic(3), Polyak(0.2), RandomPartial(0.5, every=2), Adaptive(start=2, end=4)]
OBJECTIVES = [DQN(Raw(), Vocabulary(), 0.9), DoubleDQN(Raw(), Vocabulary(), 0.9), Munchausen(0.1)]


def batches(number: int) -> list[Batch]:
    torch.manual_seed(1)
    whole, ones = torch.ones(6, 1, dtype=torch.bool), torch.ones(6)
    return [
        Batch(
            Observations(torch.randn(6, 1, 3), torch.randn(6, 1, 3)),
            torch.randint(2, (6, 1)),
            torch.randn(6, 1),
            torch.ones(6, 1),
            whole,
            whole,
            ones,
            torch.arange(6),
        )
        for _ in range(number)
    ]


def learner_with(rule: Sync, objective: DQN | DoubleDQN | Munchausen) -> Learner:
    torch.manual_seed(0)
    network = Mlp(1, 8).build(Spaces((3,), None, (2,)))
    target = Target(network, TargetConfig(rule), 0)
    return Learner(network, objective, target, RawRewards(), Optimisation(0.05, max_steps=100), Accelerator())


def weights(learner: Learner) -> Sequence[torch.Tensor]:
    networks = (learner.network, learner.target.network)
    return [parameter.detach().clone() for network in networks for parameter in network.parameters()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_round_is_one_update_after_the_other(rule: Sync, objective: DQN | DoubleDQN | Munchausen) -> None:
    together, alone = learner_with(rule, objective), learner_with(rule, objective)
    rounds = batches(10)
    reports = [*together.updates(rounds[:7]), *together.updates(rounds[7:])]
    assert [report.update for report in reports] == list(range(1, 11)) and together.update_count == 10
    for batch in rounds:
        alone.update(batch)
    for ours, theirs in zip(weights(together), weights(alone), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_a_round_that_is_taken_up_in_the_middle_ends_with_the_same_bits(rule: Sync) -> None:
    whole, broken = (learner_with(rule, OBJECTIVES[0]) for _ in range(2))
    rounds = batches(7)
    list(whole.updates(rounds))
    half = broken.updates(rounds)
    for _ in range(4):
        next(half)
    half.close()
    list(broken.updates(rounds, since=4))
    assert broken.update_count == 7
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights(broken), weights(whole), strict=True))
