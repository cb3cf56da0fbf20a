"""Transitions over n steps, by hand and against a slow loop."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.replay.samplers import Prioritised
from tokenq.replay.transitions import Transitions
from tokenq.types import Steps


def step(time: int, rewards: Sequence[float], terminated: Sequence[bool], truncated: Sequence[bool]) -> Steps:
    """Every environment observes [time, environment] before; an episode ends at [time + 0.5, environment]."""
    number = np.arange(len(rewards), dtype=np.float64)
    ended = np.array(terminated) | np.array(truncated)
    return Steps(
        np.stack([np.full(len(rewards), float(time)), number], 1),
        np.full(len(rewards), time % 2),
        np.array(rewards, dtype=np.float64),
        np.stack([np.where(ended, time + 0.5, time + 1.0), number], 1),
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
        ({}, [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8], [0.25, 0.25, 0.5, 1.0], [3, 4, 4, 4]),
        ({"terminated": 1}, [1 + 1, 2, 4 + 4, 8], [0.0, 0.0, 0.5, 1.0], [1.5, 1.5, 4, 4]),
        ({"truncated": 1}, [1 + 1, 2, 4 + 4, 8], [0.5, 1.0, 0.5, 1.0], [1.5, 1.5, 4, 4]),
    ],
)
def test_rewards_add_up_to_the_end_of_the_episode(
    ends: dict[str, int], rewards: list[float], continues: list[float], after: list[float]
) -> None:
    batch = replay_of(one_environment([1, 2, 4, 8], **ends)).at(np.arange(4))
    assert batch.rewards[:, 0].tolist() == rewards
    assert batch.continues[:, 0].tolist() == continues
    assert batch.observations.after[:, 0, 0].tolist() == after
    assert batch.observations.before[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch.actions[:, 0].tolist() == [0, 1, 0, 1]


def test_a_full_ring_lets_the_oldest_go() -> None:
    replay = replay_of(one_environment([1, 2, 4, 8, 16]), capacity=3, n_step=1)
    assert len(replay) == 3 and replay.added == 5 and replay.largest_reward == 16
    drawn = replay.sample(200, np.random.default_rng(0), 0)
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
            assert batch.observations.after.tolist() == [[[t + k + (0.5 if last.ended[e] else 1), e]]]


def prioritised() -> Transitions:
    """Identities 2, 3, 4 of five steps, in a ring of three, with priorities 1, 2 and 5."""
    replay = Transitions(3, 1, 0.5, Prioritised(alpha=1.0, beta=0.5, beta_end=1.0, anneal=10, epsilon=1e-9))
    for one in one_environment([1, 2, 4, 8, 16]):
        replay.add(one)
    replay.set_priorities(np.array([1, 2, 3, 4]), np.array([9.0, 1.0, 2.0, 5.0], dtype=np.float32))
    return replay


def test_priorities_decide_what_is_drawn_and_weights_correct_for_it() -> None:
    batch = prioritised().sample(8000, np.random.default_rng(0), update=0)
    share = np.bincount(batch.index, minlength=5) / 8000
    assert share == pytest.approx([0, 0, 1 / 8, 2 / 8, 5 / 8], abs=1e-3)
    # (3·P)^−½ over its largest value, that of P = 1/8.
    weight = {int(i): float(w) for i, w in zip(batch.index, batch.weight, strict=True)}
    assert weight == pytest.approx({2: 1.0, 3: 0.5**0.5, 4: 0.2**0.5})
    assert dict(zip(batch.index.tolist(), batch.rewards[:, 0].tolist(), strict=True)) == {2: 4, 3: 8, 4: 16}
    late = prioritised().sample(8000, np.random.default_rng(0), update=10)
    assert float(late.weight.min()) == pytest.approx(0.2)


def test_a_new_step_has_the_highest_priority_so_far() -> None:
    replay = prioritised()
    # The 9 that came for identity 1, which had left, counts as seen; identity 2 leaves for identity 5.
    replay.add(step(5, [32], [False], [False]))
    share = np.bincount(replay.sample(8000, np.random.default_rng(0), 0).index, minlength=6) / 8000
    assert share == pytest.approx([0, 0, 0, 2 / 16, 5 / 16, 9 / 16], abs=1e-3)


def test_priorities_are_restored() -> None:
    other = Transitions(3, 1, 0.5, prioritised().sampler)
    other.restore(prioritised().state())
    ours, theirs = (r.sample(50, np.random.default_rng(1), 3) for r in (prioritised(), other))
    assert torch.equal(ours.index, theirs.index) and torch.equal(ours.weight, theirs.weight)


def test_what_is_restored_is_what_was_stored() -> None:
    replay = replay_of(one_environment([1, 2, 4, 8, 16]), capacity=3)
    other = Transitions(3, 3, 0.5)
    other.restore(replay.state())
    assert len(other) == 3 and other.added == 5
    ours, theirs = (r.sample(20, np.random.default_rng(1), 0) for r in (replay, other))
    assert torch.equal(ours.rewards, theirs.rewards) and torch.equal(ours.index, theirs.index)


def test_misuse_is_refused() -> None:
    with pytest.raises(DataError, match="the replay is empty"):
        Transitions(3).sample(1, np.random.default_rng(0), 0)
    with pytest.raises(ConfigError, match="got 3, 0, 1, 1"):
        Transitions(3, 0)
    with pytest.raises(ConfigError, match="capacity: got 1, expected at least 2"):
        replay_of([step(0, [0, 0], [False] * 2, [False] * 2)], capacity=1)
