"""Codes of actions become what an environment takes."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given
from hypothesis import strategies as st

from tokenq.envs.actions import Choices, choices
from tokenq.envs.control import Gymnasium
from tokenq.errors import ConfigError
from tokenq.ops.radix import decode, encode


def of(space: Any, codes: list[int], bins: int | None = None) -> np.ndarray:
    found = choices("Some-v0", space, bins)
    assert found is not None
    actions = found.of(np.array(codes))
    assert actions.dtype == space.dtype and all(space.contains(np.asarray(action)) for action in actions)
    return actions


def test_bins_lie_evenly_between_the_bounds_of_each_dimension() -> None:
    space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    # Nine joint actions: the second dimension changes fastest.
    assert of(space, [0, 1, 2, 3, 8]).tolist() == [[-2, 0], [-2, 0.5], [-2, 1], [0, 0], [2, 1]]
    assert of(space, [0, 3, 7], bins=4)[:, 0].tolist() == pytest.approx([-2, -2, -2 + 4 / 3])
    assert of(space, [0, 1, 2, 3], bins=2).tolist() == [[-2, 0], [-2, 1], [2, 0], [2, 1]]


def test_parts_keep_their_first_number_and_shape() -> None:
    assert of(Discrete(3, start=5), [0, 2]).tolist() == [5, 7]
    assert of(MultiDiscrete([2, 3], start=[1, -1]), [0, 2, 5]).tolist() == [[1, -1], [1, 1], [2, 1]]
    assert of(MultiDiscrete([[2, 2], [2, 2]]), [6]).tolist() == [[[0, 1], [1, 0]]]
    assert of(Box(-1, 1, ()), [0, 1, 2]).tolist() == [-1, 0, 1]


@given(heads=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple), data=st.data())
def test_networks_and_environments_read_one_code(heads: tuple[int, ...], data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, int(np.prod(heads)) - 1), min_size=1, max_size=4))
    parts = decode(torch.tensor(codes), heads)
    assert Choices(tuple(map(np.arange, heads)), (len(heads),), np.dtype(np.int64)).of(np.array(codes)).tolist() == (
        parts.tolist()
    )
    assert encode(parts, heads).tolist() == codes


def test_the_largest_code_is_one_integer() -> None:
    heads = (4,) * 31
    last = torch.tensor([[3] * 31])
    assert encode(last, heads).item() == 2**62 - 1 and torch.equal(decode(encode(last, heads), heads), last)
    assert of(MultiDiscrete(heads), [2**62 - 1]).tolist() == last.tolist()
    with pytest.raises(ConfigError, match=r"Some-v0 has 3 × 3 × .* joint actions, expected at most 2\^62"):
        choices("Some-v0", Box(-1, 1, (40,)), None)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected bounds on every dimension"):
        choices("Some-v0", Box(-np.inf, 1, (2,)), None)
    with pytest.raises(ConfigError, match=r"environment.bins: got 3, but the actions of CartPole-v1 are Discrete\(2\)"):
        Gymnasium("CartPole-v1", bins=3).make(1, 0)
    with pytest.raises(ConfigError, match="bins: got 1, expected an integer >= 2"):
        Gymnasium("Pendulum-v1", bins=1)


def test_a_step_takes_codes_and_keeps_them() -> None:
    environments = Gymnasium("Pendulum-v1", bins=5).make(2, 0)
    assert environments.spaces.heads == (5,)
    steps = environments.step(np.array([0, 4]))
    # The torque's cost is 0.001·u², and u is at a bound.
    cosine, sine, speed = steps.before.T.astype(float)
    cost = np.arctan2(sine, cosine) ** 2 + 0.1 * speed**2 + 0.001 * 4
    assert steps.rewards == pytest.approx(-cost, abs=1e-5) and steps.actions.tolist() == [0, 4]
    # Torque alone tells them apart: 3·u·dt/(m·l²) of speed, on top of what gravity does.
    gained = steps.after[:, 2] - speed - 15 * sine * 0.05
    assert gained == pytest.approx([-0.3, 0.3], abs=1e-4)
