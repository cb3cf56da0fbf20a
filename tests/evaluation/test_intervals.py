"""Bootstrap intervals of a mean."""

import math

import numpy as np
import pytest

from tokenq.evaluation.intervals import bootstrap_interval


def test_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = [low <= 0.0 <= high for low, high in (bootstrap_interval(rng.normal(size=40), 0, 0.8) for _ in range(60))]
    # 0.8 of 60 within three standard errors.
    assert np.mean(covered) == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 60))


def test_edge_cases_and_reproducibility() -> None:
    assert bootstrap_interval(np.array([2.0, 2.0])) == (2.0, 2.0)
    assert all(math.isnan(bound) for bound in bootstrap_interval(np.array([])))
    values = np.arange(9.0)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, 2)
