"""Stacks of frames and sequences of steps, against what the environments themselves handed out."""

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


def history(seed: int, number: int, times: int, frames: int, ends: float = 0.2) -> list[Steps]:
    """Steps of environments whose every frame is a number of its own, stacked by a slow loop over their episodes."""
    rng = np.random.default_rng(seed)
    names = iter(range(10**6))
    seen = [[next(names)] for _ in range(number)]

    def stacks() -> np.ndarray:
        padded = [[episode[0]] * (frames - 1) + episode for episode in seen]
        stack = np.array([episode[len(episode) - frames :] for episode in padded], np.float32)[..., None]
        return stack if frames > 1 else stack[:, 0]

    steps = []
    for _ in range(times):
        before = stacks()
        for episode in seen:
            episode.append(next(names))
        terminated, truncated = rng.random((2, number)) < ends
        steps.append(
            Steps(before, rng.integers(5, size=number), rng.normal(size=number), stacks(), terminated, truncated)
        )
        seen = [[next(names)] if over else episode for episode, over in zip(seen, steps[-1].ended, strict=True)]
    return steps


def stored(steps: Sequence[Steps], capacity: int, **kwargs: int) -> Transitions:
    replay = Transitions(capacity, **kwargs)
    for one in steps:
        replay.add(one)
    return replay


SEED, NUMBER = st.integers(0, 10**6), st.integers(1, 3)


@given(SEED, NUMBER, st.integers(1, 14), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9))
def test_drawn_stacks_are_those_that_were_seen(
    seed: int, number: int, times: int, n: int, frames: int, room: int
) -> None:
    steps = history(seed, number, times, frames)
    replay = stored(steps, room * number, n_step=n, frames=frames)
    other = Transitions(room * number, n, frames=frames)
    other.restore(replay.state())
    first = max(0, times - room)
    for t in range(first, times):
        index = t * number + np.arange(number)
        batch, again = replay.at(index), other.at(index)
        assert torch.equal(batch.observations.after, again.observations.after)
        assert torch.equal(batch.observations.before, again.observations.before)
        assert (batch.observations.before[:, 0].numpy() == steps[t].before).all()
        for e in range(number):
            last = next(i for i in range(t, times) if i in (t + n - 1, times - 1) or steps[i].ended[e])
            assert (batch.observations.after[e, 0].numpy() == steps[last].after[e]).all()


@given(SEED, NUMBER, st.integers(0, 9), st.integers(1, 4), st.integers(0, 4), st.booleans())
def test_sequences_are_steps_in_a_row(
    seed: int, number: int, more: int, length: int, room: int, prioritised: bool
) -> None:
    steps, frames = history(seed, number, length + more, frames=2), 2
    sampler = Prioritised() if prioritised else None
    replay = Transitions((length + room) * number, 1, sampler=sampler, frames=frames, length=length)
    for one in steps:
        replay.add(one)
    batch = replay.sample(60, np.random.default_rng(seed), 0)
    ended = batch.observations.ended
    assert (ended is None) == (length == 1)
    first = max(0, more - room)
    assert {int(i) for i in batch.index} <= set(range(first * number, (more + 1) * number))
    for b, (t, e) in enumerate(divmod(int(i), number) for i in batch.index):
        row = steps[t : t + length]
        assert batch.actions[b].tolist() == [one.actions[e] for one in row]
        assert batch.rewards[b].tolist() == [np.float32(one.rewards[e]) for one in row]
        assert batch.continues[b].tolist() == [float(not one.terminated[e]) for one in row]
        assert ended is None or ended[b].tolist() == [bool(one.ended[e]) for one in row]
        assert batch.observations.before[b].tolist() == [one.before[e].tolist() for one in row]
        assert batch.observations.after[b].tolist() == [one.after[e].tolist() for one in row]


def test_a_ring_of_one_rollout_is_covered_by_one_batch() -> None:
    replay = stored(history(0, 4, 11, 1), capacity=4 * 5, length=5)
    rounds = list(replay.sample_many(2, 4, np.random.default_rng(0), 0))
    # The newest five times begin with time 6; both halves of the round hold each environment once.
    for half in (rounds[:2], rounds[2:]):
        assert sorted(i for batch in half for i in batch.index.tolist()) == [24, 25, 26, 27]


def test_more_frames_cost_no_memory() -> None:
    one, four = (stored(history(0, 2, 300, frames, ends=0.01), 200, frames=frames) for frames in (1, 4))
    # Three more times of two environments: 2·(4 + 8 + 4 + 1) bytes each.
    assert four.nbytes - one.nbytes == 3 * 34
    # 1 number, action, reward and end a step, and what few episodes led to.
    assert one.nbytes < 200 * (4 + 8 + 4 + 1) + 30 * 12


def test_last_observations_leave_with_their_step() -> None:
    replay = stored(history(0, 3, 2000, 1, ends=0.5), capacity=60)
    assert replay.nbytes < 60 * 17 + 12 + (60 + 30) * 12


def test_a_round_is_what_single_draws_are() -> None:
    replay = stored(history(1, 2, 40, 1), capacity=50, n_step=2)
    batches = list(replay.sample_many(8, 3, np.random.default_rng(0), 0))
    assert [batch.rewards.shape for batch in batches] == [(8, 1)] * 3
    for batch in batches:
        alone = replay.at(batch.index.numpy())
        assert torch.equal(batch.rewards, alone.rewards) and torch.equal(batch.continues, alone.continues)
        assert torch.equal(batch.observations.after, alone.observations.after)
    assert [b.index.tolist() for b in replay.drawn()] == [b.index.tolist() for b in batches]


def test_priorities_of_a_round_are_those_at_its_start() -> None:
    replay = Transitions(8, sampler=Prioritised(alpha=1.0, beta=0.0, beta_end=1.0, anneal=2, epsilon=1e-9))
    for one in history(1, 1, 8, 1):
        replay.add(one)
    replay.set_priorities(np.arange(8), np.array([1.0, 3.0, *[0.0] * 6]))
    batches = replay.sample_many(4, 3, np.random.default_rng(0), update=0)
    replay.set_priorities(np.arange(8), np.array([*[0.0] * 7, 1.0]))
    other = Transitions(8, sampler=replay.sampler)
    other.restore(replay.state())
    for i, (batch, resumed) in enumerate(zip(batches, other.drawn(), strict=True)):
        # One from each quarter of the mass; weights (8·P)^−β over the largest, β = 0, ½, 1.
        assert batch.index.tolist() == resumed.index.tolist() == [0, 1, 1, 1]
        assert batch.weight.tolist() == pytest.approx([1, *[(1 / 3) ** (i / 2)] * 3])
        assert torch.equal(batch.weight, resumed.weight)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_step: got 3 with length 2, expected 1"):
        Transitions(9, 3, length=2)
    with pytest.raises(ConfigError, match="capacity: got 9, expected at least 10, 5 of every environment"):
        stored(history(0, 2, 1, 1), 9, length=5)
    with pytest.raises(DataError, match="holds 8 steps, too few for sequences of 5"):
        stored(history(0, 2, 4, 1), 10, length=5).sample(1, np.random.default_rng(0), 0)
