"""Environments step together and never mix up two episodes."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.wrappers import FrameStackObservation

from tokenq.envs.control import Gymnasium
from tokenq.errors import ConfigError, DataError


class Corridor(gymnasium.Env[np.ndarray, int]):
    """Counts its steps in [count, episode seed]; ends by itself after `length` of them, where a reward of 1 waits."""

    def __init__(self, length: int = 3, broken: str = "", **spaces: Any) -> None:
        self.length, self.broken = length, broken
        self.action_space = spaces.get("action_space", Discrete(2))
        self.observation_space = spaces.get("observation_space", Box(-1, 1e12, (2,), np.float64))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.count, self.seed = 0, float(seed or 0)
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        ended = self.count == self.length
        reward = float("nan") if self.broken == "reward" and ended else float(ended)
        return self._seen(), reward, ended, False, {}

    def _seen(self) -> np.ndarray:
        where = np.nan if self.broken == "observation" and self.count == 2 else self.count
        return np.array([where, self.seed])


@pytest.fixture(scope="module", autouse=True)
def corridor() -> None:
    gymnasium.register("Corridor-v0", Corridor, max_episode_steps=5)


def corridors(length: int, number: int = 2, seed: int = 0, **kwargs: Any) -> Any:
    return Gymnasium("Corridor-v0", {"length": length, "disable_env_checker": True, **kwargs}).make(number, seed)


def test_what_a_step_led_to_is_not_where_the_next_episode_begins() -> None:
    environments = corridors(length=3)
    first = environments.observations
    steps = [environments.step(np.zeros(2, np.int64)) for _ in range(4)]
    assert [s.before[:, 0].tolist() for s in steps] == [[0, 0], [1, 1], [2, 2], [0, 0]]
    assert [s.after[:, 0].tolist() for s in steps] == [[1, 1], [2, 2], [3, 3], [1, 1]]
    assert [s.terminated.tolist() for s in steps] == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert [s.rewards.tolist() for s in steps] == [[0, 0], [0, 0], [1, 1], [0, 0]]
    # What was handed out stays as it was.
    assert (first == steps[0].before).all() and steps[0].before[0, 0] == 0


def test_a_time_limit_truncates_and_does_not_terminate() -> None:
    environments = corridors(length=9)
    steps = [environments.step(np.zeros(2, np.int64)) for _ in range(6)]
    assert [s.truncated.any() for s in steps] == [False, False, False, False, True, False]
    assert not any(s.terminated.any() for s in steps)
    assert steps[4].after[0, 0] == 5 and steps[5].before[0, 0] == 0


def test_an_environment_without_a_time_limit_is_given_one() -> None:
    """A greedy agent may walk in circles for ever, and an evaluation waits for the end of its episodes."""
    with pytest.raises(ConfigError, match=r"CliffWalking-v1 has no time limit.*set environment.max_episode_steps"):
        Gymnasium("CliffWalking-v1").make(1, 0)
    environments = Gymnasium("CliffWalking-v1", max_episode_steps=4).make(1, 0)
    assert [environments.step(np.array([0])).truncated[0] for _ in range(8)] == ([False] * 3 + [True]) * 2
    with pytest.raises(ConfigError, match="max_episode_steps: got 0"):
        Gymnasium(max_episode_steps=0)


def test_every_episode_has_a_seed_of_its_own_whatever_its_neighbours_do() -> None:
    environments = corridors(length=2, number=3)
    seeds = [environments.step(np.zeros(3, np.int64)).before[:, 1] for _ in range(6)][::2]
    assert len(np.unique(seeds)) == 9
    alone = corridors(length=2, number=1)
    assert [alone.step(np.zeros(1, np.int64)).before[0, 1] for _ in range(6)][::2] == [s[0] for s in seeds]
    assert corridors(length=2, seed=1).observations[0, 1] != environments.observations[0, 1]


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_restored_environments_go_on_as_if_nothing_had_happened(steps: int) -> None:
    chosen = np.random.default_rng(0).integers(2, size=(steps + 40, 3))
    unbroken = Gymnasium("CartPole-v1").make(3, 0)
    for actions in chosen[:steps]:
        unbroken.step(actions)
    resumed = Gymnasium("CartPole-v1").make(3, 0)
    resumed.restore(unbroken.state())
    for actions in chosen[steps:]:
        theirs, ours = unbroken.step(actions), resumed.step(actions)
        assert all((getattr(theirs, name) == getattr(ours, name)).all() for name in vars(theirs))


def test_frames_are_stacked_as_gymnasium_stacks_them() -> None:
    kwargs = {"length": 3, "disable_env_checker": True}
    ours = Gymnasium("Corridor-v0", kwargs, frames=4).make(1, 0)
    theirs = FrameStackObservation(gymnasium.make("Corridor-v0", **kwargs), 4)
    assert ours.spaces.shape == theirs.observation_space.shape == (4, 2)
    for episode in range(2):
        seen, _ = theirs.reset(seed=int(ours.observations[0, -1, 1]))
        for _ in range(3):
            assert (ours.observations[0] == seen).all()
            seen = theirs.step(0)[0]
            step = ours.step(np.zeros(1, np.int64))
            assert (step.after[0] == seen).all()
        assert step.terminated[0] and ours.episodes == [episode + 1]
    middle = Gymnasium("Corridor-v0", kwargs, frames=4).make(2, 1)
    for _ in range(5):
        middle.step(np.zeros(2, np.int64))
    resumed = Gymnasium("Corridor-v0", kwargs, frames=4).make(2, 1)
    resumed.restore(middle.state())
    assert (resumed.observations == middle.observations).all() and middle.observations[0, :, 0].tolist() == [0, 0, 1, 2]


def test_discrete_observations_are_not_stacked() -> None:
    with pytest.raises(ConfigError, match="frames: got 2 for the discrete observations of FrozenLake-v1"):
        Gymnasium("FrozenLake-v1", frames=2).make(1, 0)
    with pytest.raises(ConfigError, match="frames: got 0"):
        Gymnasium(frames=0)


@pytest.mark.parametrize(("broken", "step"), [("observation", 2), ("reward", 3)])
def test_what_is_not_finite_is_named(broken: str, step: int) -> None:
    environments = corridors(length=3, broken=broken)
    with pytest.raises(
        DataError, match=rf"environment 0 of Corridor-v0, episode 0, step {step}: {broken} .*not finite"
    ):
        for _ in range(3):
            environments.step(np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "spaces",
    [{"action_space": MultiBinary(2)}, {"observation_space": Dict()}],
)
def test_a_space_that_does_not_work_is_refused_with_those_that_do(spaces: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match="expected observations: Box, Discrete; actions: Discrete, MultiDiscrete, bounded Box"
    ):
        corridors(length=2, **spaces)


def test_an_environment_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"environment: got CartPol-v1 .*CartPole"):
        Gymnasium("CartPol-v1").make(1, 0)


def test_actions_that_do_not_begin_at_zero() -> None:
    environments = corridors(length=2, action_space=Discrete(3, start=5))
    assert environments.spaces.actions == 3
    environments.vector.action_space.seed(0)
    environments.step(np.array([0, 2]))
    assert environments.taken == [[0], [2]]
