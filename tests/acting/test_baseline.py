"""What a completion is compared with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.acting.baseline import leave_one_out


def test_by_hand() -> None:
    """Of 1, 2 and 6 the others' means are 4, 3.5 and 1.5; of 0, 0 and 3 they are 1.5, 1.5 and 0."""
    found = leave_one_out(np.array([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    assert found.tolist() == [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]


def test_what_nobody_rated_is_no_comparison() -> None:
    found = leave_one_out(np.array([1.0, np.nan, 4.0, np.nan, 7.0, np.nan]), 3)
    assert found.tolist() == pytest.approx([-3.0, np.nan, 3.0, np.nan, np.nan, np.nan], nan_ok=True)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(-1e3, 1e3))
def test_how_hard_a_prompt_is_does_not_matter(totals: list[float], shift: float) -> None:
    values = np.array(totals)
    assert leave_one_out(values + shift, 4) == pytest.approx(leave_one_out(values, 4), abs=1e-6)


def test_groups_come_out_even() -> None:
    with pytest.raises(ValueError, match="reshape"):
        leave_one_out(np.zeros(5), 2)
