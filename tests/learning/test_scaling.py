"""Where zero lies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.learning.scaling import PerPrompt, RawRewards, ReturnStatistics, Standardise, WorstIsZero, returns_from
from tokenq.types import Episode


def observed(*returns: float) -> ReturnStatistics:
    statistics = ReturnStatistics()
    statistics.observe(np.array([value]) for value in returns)
    return statistics


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.integers(0, 30))
def test_running_statistics_are_those_of_all_returns(returns: list[float], cut: int) -> None:
    statistics = observed(*returns[:cut])
    statistics.observe(np.array([value]) for value in returns[cut:])
    assert statistics.mean == pytest.approx(np.mean(returns), abs=1e-6)
    assert statistics.deviation == pytest.approx(np.std(returns), abs=1e-6)
    assert (statistics.smallest, statistics.largest) == (min(returns), max(returns))


def test_offset_and_scale_by_hand() -> None:
    """Returns 1, 3, 5 have mean 3 and deviation √(8/3)."""
    statistics, deviation = observed(1.0, 3.0, 5.0), math.sqrt(8 / 3)
    assert RawRewards().affine(statistics) == (0.0, 1.0)
    assert WorstIsZero().affine(statistics) == (-1.0, 1.0)
    assert Standardise().affine(statistics) == pytest.approx((-3 / deviation, 1 / deviation))
    assert PerPrompt().affine(statistics) == pytest.approx((0, 1 / deviation))


def test_nothing_seen_or_nothing_different_is_no_division_by_zero() -> None:
    assert WorstIsZero().affine(observed()) == (0.0, 1.0)
    assert Standardise(floor=0.5).affine(observed(2.0, 2.0)) == (-4.0, 2.0)
    assert observed(7.0).deviation == 0.0


def test_returns_from_every_decision_by_hand() -> None:
    episode = Episode(np.arange(4), np.array([1, 2, 3]), np.array([1.0, np.nan, 4.0]), terminated=True)
    assert returns_from(episode, 0.5, per_turn=False).tolist() == [2, 2, 4]
    assert returns_from(episode, 0.5, per_turn=True).tolist() == [5, 4, 4]  # one turn, which ends with the episode
    statistics = ReturnStatistics()
    statistics.observe([returns_from(episode, 0.5, per_turn=False)])
    assert (statistics.mean, statistics.smallest, statistics.largest) == (2, 2, 4)
