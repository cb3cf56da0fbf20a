"""Values of finite decision processes: by hand, of known environments, and against each other."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.wrappers import TransformReward
from hypothesis import given
from hypothesis import strategies as st

from tokenq.envs.control import Gymnasium
from tokenq.envs.tabular import Model, model_from, optimal_values, policy_values, read_model
from tokenq.errors import ConfigError

# State 0: waiting, or a coin between state 1 (reward 2) and the end (reward 4). State 1: back (reward 1), or waiting.
COIN = {
    0: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 1, 2.0, False), (0.5, 1, 4.0, True)]},
    1: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 1, 0.0, False), (0.5, 1, 0.0, False)]},
}


def test_values_by_hand() -> None:
    """γ = ½: V(0) = 3 + ¼·V(1) and V(1) = 1 + ½·V(0), so V(0) = 26/7 and V(1) = 20/7."""
    known = model_from(COIN, np.array([0.75, 0.25]))
    assert known.rewards.tolist() == [[0.0, 3.0], [1.0, 0.0]]
    assert known.following.tolist() == [[[1.0, 0.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]
    assert optimal_values(known, 0.5) == pytest.approx([26 / 7, 20 / 7])
    assert policy_values(known, np.array([1, 1]), 0.5) == pytest.approx([3.0, 0.0])
    assert policy_values(known, np.array([0, 0]), 0.5) == pytest.approx([0.0, 1.0])
    assert policy_values(known, np.array([1, 0]), 0.0).tolist() == [3.0, 1.0]


def known_model(name: str, **kwargs: Any) -> Model:
    known = read_model(Gymnasium(name, kwargs))
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("name", "kwargs", "state", "expected"),
    [
        # Six steps, a reward of 1 with the last.
        ("FrozenLake-v1", {"is_slippery": False}, 0, 0.9**5),
        # Up, eleven to the right, down.
        ("CliffWalking-v1", {}, 36, -(1 - 0.9**13) / (1 - 0.9)),
        # In the corner R with the passenger, who wants to G: in, two down, four to the right, two up, out (20).
        ("Taxi-v4", {}, 1, -(1 - 0.9**9) / (1 - 0.9) + 20 * 0.9**9),
    ],
)
def test_shortest_paths_of_known_environments(name: str, kwargs: dict[str, Any], state: int, expected: float) -> None:
    known = known_model(name, **kwargs)
    assert known.start.sum() == pytest.approx(1.0) and known.start[state] > 0
    assert known.following.sum(-1).max() == pytest.approx(1.0) and known.following.min() == 0.0
    assert optimal_values(known, 0.9)[state] == pytest.approx(expected)


def test_a_policy_that_never_ends_has_its_whole_value() -> None:
    """Upwards for ever, 1 lost at each step; to the right at once, into the cliff, 100 lost at each step."""
    known = known_model("CliffWalking-v1")
    assert policy_values(known, np.zeros(48, np.int64), 0.99)[36] == pytest.approx(-100)
    assert policy_values(known, np.ones(48, np.int64), 0.99)[36] == pytest.approx(-100 / (1 - 0.99))
    for gamma in (1.0, -0.1):
        with pytest.raises(ConfigError, match=f"gamma: got {gamma}"):
            optimal_values(known, gamma)
        with pytest.raises(ConfigError, match=f"gamma: got {gamma}"):
            policy_values(known, np.zeros(48, np.int64), gamma)


@given(seed=st.integers(0, 10**6), states=st.integers(1, 6), actions=st.integers(1, 3), gamma=st.floats(0.0, 0.95))
def test_no_policy_is_better_than_the_greedy_one_of_the_optimum(
    seed: int, states: int, actions: int, gamma: float
) -> None:
    rng = np.random.default_rng(seed)
    goes_on = rng.choice([0.0, 0.5, 1.0], (states, actions, 1))
    following = goes_on * rng.dirichlet(np.full(states, 0.3), (states, actions))
    known = Model(rng.dirichlet(np.ones(states)), rng.normal(size=(states, actions)), following)
    best = optimal_values(known, gamma)
    greedy = (known.rewards + gamma * known.following @ best).argmax(-1)
    assert policy_values(known, greedy, gamma) == pytest.approx(best, abs=1e-9)
    policy = rng.integers(actions, size=states)
    values, slow = policy_values(known, policy, gamma), np.zeros(states)
    for _ in range(700):  # 0.95**700 is below 1e-15
        slow = np.array([known.rewards[s, a] + gamma * known.following[s, a] @ slow for s, a in enumerate(policy)])
    assert values == pytest.approx(slow, abs=1e-9) and (values <= best + 1e-9).all()


def test_an_environment_without_a_whole_table_has_no_model() -> None:
    gymnasium.register("tests/DoubledLake-v0", lambda: TransformReward(FrozenLakeEnv(), lambda reward: 2 * reward))
    fickle = Gymnasium("Taxi-v4", {"fickle_passenger": True})
    for environment in (Gymnasium("CartPole-v1"), Gymnasium("Blackjack-v1"), Gymnasium("tests/DoubledLake-v0"), fickle):
        assert read_model(environment) is None
