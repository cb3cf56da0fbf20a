import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.replay.buffer import Replay
from tokenq.replay.samplers import Prioritised, Recent, Uniform


def test_identities_continue_after_eviction(make_episode) -> None:
    replay = Replay(2, None, Uniform())
    assert replay.add([make_episode([1, 2]), make_episode([3, 4, 5])]) == [0, 1]
    assert replay.add([make_episode([6, 7])]) == [2]
    assert (len(replay), replay.tokens, replay.added, replay.first) == (2, 5, 3, 1)
    assert [episode.tokens[0] for episode in replay.episodes] == [3, 6]


def test_tokens_are_bounded_too(make_episode) -> None:
    replay = Replay(None, 7, Uniform())
    replay.add([make_episode([1] * 3), make_episode([2] * 3), make_episode([3] * 4)])
    assert [episode.tokens[0] for episode in replay.episodes] == [2, 3]
    assert replay.tokens == 7


def test_an_episode_that_can_never_fit_names_both_numbers_and_changes_nothing(make_episode) -> None:
    replay = Replay(None, 4, Uniform())
    with pytest.raises(DataError, match=r"got 4, expected at least 5"):
        replay.add([make_episode([1, 2]), make_episode([1] * 5)])
    assert (len(replay), replay.added) == (0, 0)


@pytest.mark.parametrize("name", ["capacity_episodes", "capacity_tokens"])
def test_capacities_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: got 0, expected a number >= 1"):
        Replay(**{"capacity_episodes": None, "capacity_tokens": None, name: 0}, sampler=Uniform())


def test_sampling_an_empty_replay_says_so() -> None:
    with pytest.raises(DataError, match="replay is empty"):
        Replay(None, None, Uniform()).sample(1, np.random.default_rng(0), 0)


@given(stored=st.integers(1, 20), n=st.integers(1, 40), seed=st.integers(0, 9), sampler=st.sampled_from([0, 1, 2]))
def test_a_batch_repeats_only_if_it_must(make_episode, stored: int, n: int, seed: int, sampler: int) -> None:
    replay = Replay(stored, None, [Uniform(), Recent(0.5), Prioritised()][sampler])
    replay.add([make_episode([i, i]) for i in range(stored + 3)])
    sample = replay.sample(n, np.random.default_rng(seed), 0)
    assert len(sample.episodes) == n
    assert [episode.tokens[0] for episode in sample.episodes] == sample.index.tolist()
    assert n > stored or len(set(sample.index)) == n
    assert sample.index.min() >= 3


def test_the_same_seed_draws_the_same_batch(make_episode) -> None:
    replay = Replay(None, None, Recent(4.0))
    replay.add([make_episode([i, i]) for i in range(30)])
    first, second = (replay.sample(8, np.random.default_rng(5), 0).index for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_recent_prefers_new_episodes(make_episode) -> None:
    replay = Replay(None, None, Recent(half_life=5.0))
    replay.add([make_episode([i, i]) for i in range(100)])
    rng = np.random.default_rng(0)
    drawn = np.concatenate([replay.sample(1, rng, 0).index for _ in range(500)])
    assert (drawn >= 95).mean() == pytest.approx(0.5, abs=0.07)


def test_importance_weights_by_hand(make_episode) -> None:
    replay = Replay(None, None, Prioritised(alpha=1.0, beta=1.0, epsilon=1.0))
    replay.add([make_episode([i, i]) for i in range(3)])
    replay.set_priorities(np.array([0, 1, 2]), np.array([0.0, 1.0, 3.0]))
    sample = replay.sample(3, np.random.default_rng(0), 0)
    # p = 1/7, 2/7, 4/7: the weights (3 p)^-1 are 7/3, 7/6, 7/12, and 1, 1/2, 1/4 after division by the largest.
    assert dict(zip(sample.index.tolist(), sample.weight.tolist(), strict=True)) == {0: 1.0, 1: 0.5, 2: 0.25}


@pytest.mark.parametrize("sampler", [Uniform(), Recent()])
def test_other_samplers_weigh_every_episode_alike(make_episode, sampler) -> None:
    replay = Replay(None, None, sampler)
    replay.add([make_episode([i, i]) for i in range(5)])
    assert replay.sample(5, np.random.default_rng(0), 9).weight.tolist() == [1.0] * 5


def test_new_episodes_start_with_the_highest_priority_so_far(make_episode) -> None:
    replay = Replay(2, None, Prioritised())
    replay.add([make_episode([i, i]) for i in range(2)])
    assert replay.priorities.tolist() == [1.0, 1.0]
    replay.set_priorities(np.array([0, 1]), np.array([5.0, 0.5]))
    replay.add([make_episode([2, 2])])
    assert replay.priorities.tolist() == [0.5, 5.0]


def test_priorities_of_evicted_episodes_are_ignored(make_episode) -> None:
    replay = Replay(2, None, Prioritised())
    replay.add([make_episode([i, i]) for i in range(4)])
    replay.set_priorities(np.array([1, 3, 0]), np.array([0.2, 0.3, 0.4]))
    assert replay.priorities.tolist() == [1.0, 0.3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_priorities_must_be_finite_and_not_negative(make_episode, bad: float) -> None:
    replay = Replay(None, None, Prioritised())
    replay.add([make_episode([1, 2])])
    with pytest.raises(DataError, match="expected finite numbers >= 0"):
        replay.set_priorities(np.array([0]), np.array([bad]))


def test_views_do_not_change_the_replay(make_episode) -> None:
    replay = Replay(None, None, Uniform())
    replay.add([make_episode([1, 2])])
    replay.priorities[0] = 9.0
    assert replay.priorities.tolist() == [1.0]
    with pytest.raises(TypeError):
        replay.episodes[0] = make_episode([3, 4])
