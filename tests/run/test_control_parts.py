"""Agents whose actions have several parts, or are continuous: learned, killed, resumed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiDiscrete

from tokenq.acting.explore import Boltzmann, EpsilonGreedy
from tokenq.config.control import ControlConfig, TransitionsConfig
from tokenq.envs.control import Gymnasium
from tokenq.learning.objectives import DQN, DoubleDQN, Munchausen, Vocabulary
from tokenq.learning.sync import Periodic
from tokenq.learning.target import TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import Mlp
from tokenq.replay.samplers import Prioritised
from tokenq.run.control import control

WANTED = np.array([[0, 3, 1], [2, 0, 1], [1, 2, 0], [2, 3, 0]])
"""The right action in each state of `Lock`."""


class Lock(gymnasium.Env[int, np.ndarray]):
    """Four states in a circle; each part of an action that is right is worth 1, and a right first part opens the next.

    The best return of twelve steps is 36, and 24 joint actions are told apart by nine values.
    """

    observation_space = Discrete(4)
    action_space = MultiDiscrete([3, 4, 2])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self.at = 0
        return 0, {}

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict[str, Any]]:
        right = action == WANTED[self.at]
        self.at = (self.at + int(right[0])) % 4
        return self.at, float(right.sum()), False, False, {}


@pytest.fixture(scope="module", autouse=True)
def lock() -> None:
    gymnasium.register("Lock-v0", Lock, max_episode_steps=12)


LOCK = ControlConfig(
    environment=Gymnasium("Lock-v0", {"disable_env_checker": True}),
    num_envs=4,
    environment_steps=1200,
    learning_starts=400,
    steps_per_rollout=4,
    updates_per_rollout=1,
    network=Mlp(1, 32),
    target=TargetConfig(Periodic(20)),
    exploration=EpsilonGreedy(1.0, 0.2, 100),
    learning_rate=1e-2,
    per_device_train_batch_size=32,
    eval_samples=1,
)
Read = Callable[[Path], tuple[Any, ...]]

PENDULUM = replace(
    LOCK,
    environment=Gymnasium("Pendulum-v1", max_episode_steps=30, bins=5),
    num_envs=2,
    environment_steps=220,
    learning_starts=60,
    replay=TransitionsConfig(capacity=150, n_step=3, sampler=Prioritised(anneal=50)),
    logging_steps=1,
    save_steps=7,
)


def dqn(kind: type[DQN] | type[DoubleDQN]) -> DQN | DoubleDQN:
    return kind(Raw(), Vocabulary(), 0.9)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": dqn(DQN)},
        {"objective": dqn(DoubleDQN), "network": Mlp(1, 32, dueling=True)},
        {"objective": Munchausen(gamma=0.9, temperature=0.1)},
        {"objective": dqn(DoubleDQN), "exploration": Boltzmann(0.3)},
    ],
    ids=["dqn", "double_dueling", "munchausen", "boltzmann"],
)
def test_a_known_optimum_over_three_parts_is_found(change: dict[str, Any], tmp_path: Path) -> None:
    summary = control(replace(LOCK, output_dir=str(tmp_path / "run"), **change))
    assert summary.after["return"] == 36.0 and summary.before["return"] < 36.0


@pytest.mark.parametrize(
    "config",
    [PENDULUM, replace(LOCK, environment_steps=560, logging_steps=1, save_steps=7)],
    ids=["pendulum", "lock"],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    config: ControlConfig, tmp_path: Path, killed_at: Callable[[Callable[[Any], Any], Any, int], bool], left: Read
) -> None:
    whole, broken = (replace(config, output_dir=str(tmp_path / name)) for name in ("whole", "broken"))
    assert control(whole).updates == 40
    assert killed_at(control, broken, 23)
    control(replace(broken, resume=True))
    assert left(tmp_path / "broken") == left(tmp_path / "whole")
