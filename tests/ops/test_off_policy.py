"""Off-policy estimates: numbers worked by hand, and a small process whose values are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenq.ops.off_policy import (
    cumulative,
    doubly_robust,
    effective_sample_size,
    once,
    weighted_doubly_robust,
    weighted_importance_sampling,
    weighted_per_decision,
)

ONCE = torch.ones(1, 2)
LOG = torch.tensor([[2.0, 3.0], [1.0, 0.5]]).log()
REWARDS = torch.tensor([[1.0, 4.0], [2.0, 8.0]])
Q = torch.tensor([[3.0, 5.0], [1.0, 7.0]])
VALUE = torch.tensor([[2.0, 4.0, 0.0], [1.0, 6.0, 0.0]])


def test_ratios_are_multiplied_and_cut() -> None:
    torch.testing.assert_close(cumulative(LOG).exp(), torch.tensor([[2.0, 6.0], [1.0, 0.5]]))
    torch.testing.assert_close(cumulative(LOG, 4.0).exp(), torch.tensor([[2.0, 4.0], [1.0, 0.5]]))


def test_weighted_estimates_by_hand() -> None:
    # Whole episodes weigh 6 and 0.5, returns with γ = ½ are 3 and 6: (18 + 3) / 6.5.
    assert weighted_importance_sampling(cumulative(LOG), REWARDS, 0.5, ONCE).item() == pytest.approx(21 / 6.5)
    # First rewards weigh 2 and 1: 4/3; second ones 6 and 0.5: (24 + 4) / 6.5, halved.
    assert weighted_per_decision(cumulative(LOG), REWARDS, 0.5, ONCE).item() == pytest.approx(4 / 3 + 14 / 6.5)


def test_doubly_robust_estimates_by_hand() -> None:
    # Errors: 1 + ½·4 − 3 = 0 and 4 − 5 = −1; 2 + ½·6 − 1 = 4 and 8 − 7 = 1.
    episodes = doubly_robust(cumulative(LOG), REWARDS, Q, VALUE, 0.5)
    torch.testing.assert_close(episodes, torch.tensor([2 + 0.5 * 6 * -1, 1 + 4 + 0.5 * 0.5 * 1]))
    weighted = weighted_doubly_robust(cumulative(LOG), REWARDS, Q, VALUE, 0.5, ONCE).item()
    assert weighted == pytest.approx(1.5 + 4 / 3 + 0.5 * (-6 + 0.5) / 6.5)


def test_the_effective_sample_size_counts_equal_weights() -> None:
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(7)
    assert effective_sample_size(torch.tensor([500.0, 0.0, -3.0])).item() == pytest.approx(1)
    # (3 + 1)² / (9 + 1)
    assert effective_sample_size(torch.tensor([math.log(3.0), 0.0])).item() == pytest.approx(1.6)


def test_ratios_that_no_float_can_hold_leave_self_normalised_estimates_finite() -> None:
    log = cumulative(torch.tensor([[800.0, 100.0], [800.0, 90.0]]))
    assert weighted_per_decision(log, REWARDS, 1.0, ONCE).item() == pytest.approx(1.5 + 4, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_the_behaviour_itself_earns_its_mean_return(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    mean = (rewards * gamma ** torch.arange(3, dtype=torch.float64)).sum(1).mean().item()
    same = cumulative(torch.zeros(5, 3, dtype=torch.float64))
    assert weighted_importance_sampling(same, rewards, gamma, once(same)).item() == pytest.approx(mean)
    assert weighted_per_decision(same, rewards, gamma, once(same)).item() == pytest.approx(mean)
    nothing = torch.zeros(5, 3, dtype=torch.float64), torch.zeros(5, 4, dtype=torch.float64)
    assert doubly_robust(same, rewards, *nothing, gamma).mean().item() == pytest.approx(mean)
    assert weighted_doubly_robust(same, rewards, *nothing, gamma, once(same)).item() == pytest.approx(mean)


STATES, ACTIONS, STEPS, GAMMA = 3, 2, 4, 0.9


class Process:
    """A random process of four steps in which every action leads to one state, and two random policies."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.next = rng.integers(STATES, size=(STATES, ACTIONS))
        self.reward = rng.normal(size=(STATES, ACTIONS))
        self.evaluated, self.behaviour = rng.dirichlet([2.0] * ACTIONS, size=(2, STATES))
        self.q = np.zeros((STEPS + 1, STATES, ACTIONS))
        for step in reversed(range(STEPS)):
            self.q[step] = self.reward + GAMMA * self.value[step + 1][self.next]

    @property
    def value(self) -> np.ndarray:
        value: np.ndarray = (self.q * self.evaluated).sum(-1)
        return value

    def episodes(self, n: int, seed: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log ratios, rewards, exact Q and exact V of n episodes of the behaviour from state 0."""
        rng = np.random.default_rng(seed)
        state = np.zeros(n, int)
        columns = []
        for step in range(STEPS):
            action = (rng.random(n) > self.behaviour[state, 0]).astype(int)
            ratio = np.log(self.evaluated[state, action] / self.behaviour[state, action])
            reward = self.reward[state, action] + noise * rng.normal(size=n)
            columns.append((ratio, reward, self.q[step, state, action], self.value[step, state]))
            state = self.next[state, action]
        log, rewards, q, value = (torch.tensor(np.stack(rows, 1)) for rows in zip(*columns, strict=True))
        return log, rewards, q, torch.cat([value, torch.zeros(n, 1)], 1)


@pytest.mark.parametrize("seed", range(5))
def test_estimates_converge_to_the_exact_value(seed: int) -> None:
    process = Process(seed)
    log, rewards, q, value = process.episodes(20_000, seed, noise=0.5)
    exact = float(process.value[0, 0])
    weight = cumulative(log)
    found = {
        "wis": weighted_importance_sampling(weight, rewards, GAMMA, once(weight)),
        "pdis": weighted_per_decision(weight, rewards, GAMMA, once(weight)),
        "dr": doubly_robust(weight, rewards, q, value, GAMMA).mean(),
        # Wrong values, as long as V̂ is their expectation, do no harm: here a constant too much in both.
        "dr_wrong": doubly_robust(weight, rewards, q + 1, value + torch.tensor([1.0] * STEPS + [0.0]), GAMMA).mean(),
        "wdr": weighted_doubly_robust(weight, rewards, q, value, GAMMA, once(weight)),
    }
    assert {name: float(estimate) for name, estimate in found.items()} == pytest.approx(
        dict.fromkeys(found, exact), abs=0.15
    )
    assert float(found["dr"]) == pytest.approx(exact, abs=0.04)


@pytest.mark.parametrize("seed", range(5))
def test_with_exact_values_one_deterministic_episode_is_enough(seed: int) -> None:
    process = Process(seed)
    log, rewards, q, value = process.episodes(10, seed)
    exact = torch.full((10,), float(process.value[0, 0]), dtype=torch.float64)
    weight = cumulative(log)
    torch.testing.assert_close(doubly_robust(weight, rewards, q, value, GAMMA), exact)
    torch.testing.assert_close(weighted_doubly_robust(weight, rewards, q, value, GAMMA, once(weight)), exact[:1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_resample_is_the_estimate_of_the_episodes_in_it(seed: int) -> None:
    log, rewards, q, value = Process(0).episodes(6, seed, noise=1.0)
    weight, rows = cumulative(log), torch.from_numpy(np.random.default_rng(seed).integers(6, size=6))
    counts = torch.bincount(rows, minlength=6)[None].double()
    for estimator, arguments in (
        (weighted_importance_sampling, (weight, rewards)),
        (weighted_per_decision, (weight, rewards)),
        (weighted_doubly_robust, (weight, rewards, q, value)),
    ):
        taken = estimator(*(part[rows] for part in arguments), GAMMA, once(weight))
        torch.testing.assert_close(estimator(*arguments, GAMMA, counts), taken)
