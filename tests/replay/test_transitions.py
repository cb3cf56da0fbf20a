"""Transitions over n steps, by hand and against a slow loop."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.replay.transitions import Transitions
from tokenq.types import Steps


def step(time: int, rewards: Sequence[float], terminated: Sequence[bool], truncated: Sequence[bool]) -> Steps:
    """Every environment observes [time, environment] before and [time + 0.5, environment] after."""
    number = np.arange(len(rewards), dtype=np.float64)
    return Steps(
        np.stack([np.full(len(rewards), float(time)), number], 1),
        np.full(len(rewards), time % 2),
        np.array(rewards, dtype=np.float64),
        np.stack([np.full(len(rewards), time + 0.5), number], 1),
        np.array(terminated),
        np.array(truncated),
    )


def one_environment(
    rewards: Sequence[float], terminated: int | None = None, truncated: int | None = None
) -> list[Steps]:
    return [step(t, [r], [t == terminated], [t == truncated]) for t, r in enumerate(rewards)]


def replay_of(steps: Sequence[Steps], capacity: int = 100, n_step: int = 3, gamma: float = 0.5) -> Transitions:
    replay = Transitions(capacity, n_step, gamma)
    for one in steps:
        replay.add(one)
    return replay


@pytest.mark.parametrize(
    ("ends", "rewards", "continues", "after"),
    [
        ({}, [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8], [0.25, 0.25, 0.5, 1.0], [2.5, 3.5, 3.5, 3.5]),
        ({"terminated": 1}, [1 + 1, 2, 4 + 4, 8], [0.0, 0.0, 0.5, 1.0], [1.5, 1.5, 3.5, 3.5]),
        ({"truncated": 1}, [1 + 1, 2, 4 + 4, 8], [0.5, 1.0, 0.5, 1.0], [1.5, 1.5, 3.5, 3.5]),
    ],
)
def test_rewards_add_up_to_the_end_of_the_episode(
    ends: dict[str, int], rewards: list[float], continues: list[float], after: list[float]
) -> None:
    batch = replay_of(one_environment([1, 2, 4, 8], **ends)).at(np.arange(4))
    assert batch.rewards[:, 0].tolist() == rewards
    assert batch.continues[:, 0].tolist() == continues
    assert batch.observations.after[:, 0].tolist() == after
    assert batch.observations.before[:, 0].tolist() == [0, 1, 2, 3]
    assert batch.actions[:, 0].tolist() == [0, 1, 0, 1]


def test_a_full_ring_lets_the_oldest_go() -> None:
    replay = replay_of(one_environment([1, 2, 4, 8, 16]), capacity=3, n_step=1)
    assert len(replay) == 3 and replay.added == 5 and replay.largest_reward == 16
    drawn = replay.sample(200, np.random.default_rng(0))
    assert set(drawn.rewards[:, 0].tolist()) == {4, 8, 16}
    assert set(drawn.index.tolist()) == {2, 3, 4}


@given(data=st.data(), number=st.integers(1, 3), times=st.integers(1, 12), n=st.integers(1, 4))
def test_any_history_equals_a_slow_loop(data: st.DataObject, number: int, times: int, n: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    steps = [step(t, rng.normal(size=number), rng.random(number) < 0.2, rng.random(number) < 0.2) for t in range(times)]
    capacity = data.draw(st.integers(number, number * times + 2))
    replay, gamma = replay_of(steps, capacity, n, 0.9), 0.9
    kept = range(times - min(times, capacity // number), times)
    for t in kept:
        for e in range(number):
            batch = replay.at(np.array([t * number + e]))
            reward, k = 0.0, 0
            while True:
                reward += gamma**k * steps[t + k].rewards[e]
                if k == n - 1 or steps[t + k].ended[e] or t + k == times - 1:
                    break
                k += 1
            last = steps[t + k]
            assert batch.rewards.item() == pytest.approx(reward, rel=1e-5, abs=1e-6)
            assert batch.continues.item() == pytest.approx(gamma**k * (not last.terminated[e]))
            assert batch.observations.after.tolist() == [[t + k + 0.5, e]]


def test_what_is_restored_is_what_was_stored() -> None:
    replay = replay_of(one_environment([1, 2, 4, 8, 16]), capacity=3)
    other = Transitions(3, 3, 0.5)
    other.restore(replay.state())
    assert len(other) == 3 and other.added == 5
    ours, theirs = (r.sample(20, np.random.default_rng(1)) for r in (replay, other))
    assert torch.equal(ours.rewards, theirs.rewards) and torch.equal(ours.index, theirs.index)


def test_misuse_is_refused() -> None:
    with pytest.raises(DataError, match="the replay is empty"):
        Transitions(3).sample(1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="n_step: got 3, 0"):
        Transitions(3, 0)
    with pytest.raises(ConfigError, match="capacity: got 1, expected at least 2"):
        replay_of([step(0, [0, 0], [False] * 2, [False] * 2)], capacity=1)
