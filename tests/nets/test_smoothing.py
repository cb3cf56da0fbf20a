"""Discounts from counts of counts, and where there are none."""

import numpy as np
import pytest

from tokenq.errors import ConfigError, DataError
from tokenq.nets.smoothing import Additive, Grams, KneserNey, ModifiedKneserNey


def grams(counts: list[int]) -> Grams:
    """N-grams of one context, the longest."""
    zeros = np.zeros(len(counts), np.int64)
    return Grams(3, 9, np.array(counts), zeros, zeros, number_of_contexts=2)


def test_one_discount_from_how_many_came_once_and_twice() -> None:
    own, rest = KneserNey().shares(grams([1, 1, 1, 2, 5]))
    # n1 = 3, n2 = 1: D = 3/5.
    assert own == pytest.approx(np.array([0.4, 0.4, 0.4, 1.4, 4.4]) / 10)
    assert rest == pytest.approx([5 * 0.6 / 10, 1.0])


def test_three_discounts() -> None:
    own, rest = ModifiedKneserNey().shares(grams([1, 1, 1, 1, 2, 2, 3, 4, 6]))
    # n1..n4 = 4, 2, 1, 1: Y = 1/2; D = 1 - 1/2, 2 - 3/4, 3 - 2.
    assert own == pytest.approx(np.array([0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 2, 3, 5]) / 21)
    assert rest == pytest.approx([(4 * 0.5 + 2 * 1.25 + 3 * 1.0) / 21, 1.0])


def test_a_discount_that_cannot_be_estimated_is_an_error() -> None:
    with pytest.raises(DataError, match="no 3-gram has the count 1"):
        KneserNey().shares(grams([2, 2]))
    with pytest.raises(DataError, match="4, 1, 0, 0 3-grams have the counts 1 to 4"):
        ModifiedKneserNey().shares(grams([1, 1, 1, 1, 2]))
    with pytest.raises(DataError, match=r"gives the discounts .* use kneser_ney"):
        ModifiedKneserNey().shares(grams([1, 1, 1, 1, 2, 3, 3, 4]))


def test_settings_out_of_range() -> None:
    for discount in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="discount"):
            KneserNey(discount)
    for alpha in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="alpha"):
            Additive(alpha)
