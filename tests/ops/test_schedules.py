"""Schedules at their ends, in the middle, and where there is nothing to spread over."""

import pytest

from tokenq.ops.schedules import cosine, decay, exponential, linear, warmup


@pytest.mark.parametrize(("update", "value"), [(0, 1.0), (25, 0.8), (50, 0.6), (100, 0.2), (1000, 0.2)])
def test_linear_is_a_straight_line_and_then_constant(update: int, value: float) -> None:
    assert linear(1.0, 0.2, 100, update) == pytest.approx(value)


@pytest.mark.parametrize(("update", "value"), [(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0), (9, 1.0)])
def test_exponential_halves_three_times_from_eight_to_one(update: int, value: float) -> None:
    assert exponential(8.0, 1.0, 3, update) == pytest.approx(value)


@pytest.mark.parametrize(("update", "value"), [(0, 1.0), (20, 0.75), (30, 0.5), (40, 0.25), (60, 0.0), (61, 0.0)])
def test_cosine_of_a_third_turn_is_three_quarters(update: int, value: float) -> None:
    assert cosine(60, update) == pytest.approx(value, abs=1e-12)


def test_warmup_never_starts_at_zero() -> None:
    assert [warmup(4, update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_nothing_to_spread_over_means_the_end_at_once() -> None:
    ends = (linear(1.0, 0.2, 0, 0), exponential(8.0, 1.0, 0, 0), cosine(0, 0), warmup(0, 0))
    assert ends == pytest.approx((0.2, 1.0, 0.0, 1.0))


def test_decay_by_name() -> None:
    assert [decay("constant", 4, update) for update in (0, 3, 9)] == [1.0, 1.0, 1.0]
    assert [decay("linear", 4, update) for update in (0, 1, 4, 9)] == [1.0, 0.75, 0.0, 0.0]
    assert decay("cosine", 60, 20) == pytest.approx(0.75)
