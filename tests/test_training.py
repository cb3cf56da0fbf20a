"""The two loops: who is called when, and that an interrupted loop goes on where it was."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import Soft
from tokenq.learning.scaling import Standardise
from tokenq.learning.target import Target, TargetConfig
from tokenq.nets.language import LanguageQ
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Replay
from tokenq.replay.samplers import Prioritised
from tokenq.training import offline, online
from tokenq.types import Episode

Episodes = Callable[..., list[Episode]]


@pytest.fixture
def make(tiny: Callable[..., PreTrainedModel], random_episodes: Episodes) -> Callable[[], tuple[Learner, Replay]]:
    """A fresh learner and a prioritised replay of ten episodes, the same every time."""

    def fresh() -> tuple[Learner, Replay]:
        network = LanguageQ(tiny())
        learner = Learner(
            network, Soft(), Target(network, TargetConfig(), 0), Standardise(), Optimisation(), Accelerator(cpu=True)
        )
        replay = Replay(20, None, Prioritised())
        replay.add(Reference(network).record(random_episodes(10)))
        learner.observe(replay.episodes)
        return learner, replay

    return fresh


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.network.parameters()])


def test_offline_makes_exactly_the_updates_that_are_missing(make: Callable[[], tuple[Learner, Replay]]) -> None:
    learner, replay = make()
    start = weights(learner)
    reports = list(offline(learner, replay, batch_size=4, until=5, rng=np.random.default_rng(0)))
    assert [report.update for report, _ in reports] == [1, 2, 3, 4, 5]
    assert all(len(batch.index) == 4 for _, batch in reports)
    assert list(offline(learner, replay, batch_size=4, until=5, rng=np.random.default_rng(0))) == []
    assert not torch.equal(weights(learner), start)


def test_an_interrupted_loop_ends_where_a_straight_one_does(make: Callable[[], tuple[Learner, Replay]]) -> None:
    straight, replay = make()
    list(offline(straight, replay, batch_size=4, until=6, rng=np.random.default_rng(0)))
    paused, replay = make()
    rng = np.random.default_rng(0)
    for _ in range(3):
        next(offline(paused, replay, batch_size=4, until=6, rng=rng))
    assert paused.update_count == 3 and not torch.equal(weights(paused), weights(straight))
    list(offline(paused, replay, batch_size=4, until=6, rng=rng))
    assert torch.equal(weights(paused), weights(straight))


def test_priorities_of_learned_episodes_change(make: Callable[[], tuple[Learner, Replay]]) -> None:
    learner, replay = make()
    ((report, batch),) = offline(learner, replay, batch_size=4, until=1, rng=np.random.default_rng(0))
    drawn = np.zeros(10)
    rng = np.random.default_rng(1)
    for _ in range(400):
        drawn += np.bincount(replay.sample(1, rng, 1).index, minlength=10)
    seen = batch.index.numpy()
    order = np.argsort(report.priority.numpy())
    assert torch.equal(report.index, batch.index) and len(seen) == 4
    assert drawn[seen[order[-1]]] > drawn[seen[order[0]]], "the more surprising episode comes more often"


@pytest.mark.parametrize(
    ("since", "every", "until", "calls"),
    [(0, 1, 3, [0, 1, 2]), (0, 2, 5, [0, 2, 4]), (2, 3, 9, [2, 5, 8])],
)
def test_online_writes_episodes_on_schedule(
    since: int,
    every: int,
    until: int,
    calls: list[int],
    make: Callable[[], tuple[Learner, Replay]],
    random_episodes: Episodes,
) -> None:
    learner, replay = make()
    list(offline(learner, replay, batch_size=2, until=since, rng=np.random.default_rng(0)))
    asked: list[int] = []

    def rollout(update: int) -> list[Episode]:
        asked.append(update)
        return Reference(learner.network).record(random_episodes(3, seed=update))

    rng = np.random.default_rng(0)
    # Stopped after every update and taken up again, as after a checkpoint.
    while learner.update_count < until:
        next(
            online(
                learner, replay, rollout, batch_size=2, since=since, until=until, steps_per_generation=every, rng=rng
            )
        )
    assert asked == calls and learner.update_count == until
    assert replay.added == 10 + 3 * len(calls) and learner.statistics.count == 10 + 3 * len(calls)
