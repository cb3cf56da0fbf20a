"""Bootstrap intervals of a mean."""

import math

import numpy as np
import pytest

from tokenq.evaluation.intervals import bootstrap_interval, resample_counts, resampled_score


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


def test_rows_that_belong_together_are_drawn_together() -> None:
    counts = resample_counts(np.array([7, 3, 7, 3, 3]), seed=1)
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 1] == counts[:, 3]).all()
    assert {tuple(row) for row in counts[:, :2]} == {(0, 2), (1, 1), (2, 0)}


def test_apart_the_resamples_are_those_of_the_mean() -> None:
    values = np.random.default_rng(2).normal(size=30)
    counts = resample_counts(np.arange(30), seed=4)
    score = resampled_score(counts @ values / 30, float(values.mean()), 30)
    assert (score.low, score.high) == pytest.approx(bootstrap_interval(values, seed=4))
    assert math.isnan(resampled_score(np.array([math.nan]), 1.0, 1).low)
