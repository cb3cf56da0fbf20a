"""λ-returns against numbers worked out by hand and against the definition written as a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.ops.returns import lambda_returns


def slow_return(
    n: int, r: list[float], d: list[float], v: list[float], e: list[float], lam: list[float], last: int
) -> float:
    """The forward view: a weighted mixture of the corrected k-step returns that start at decision n."""
    total, weight, collected, discount = 0.0, 1.0, 0.0, 1.0
    for m in range(n, last + 1):
        collected += discount * r[m]
        discount *= d[m]
        total += weight * (1 - lam[m]) * (collected + discount * v[m])
        weight *= lam[m]
        collected -= discount * e[m]
    return total


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.floats(-2, 2), min_size=5, max_size=5), min_size=n)))
def test_backward_recursion_is_the_mixture_of_corrected_multi_step_returns(columns: list[list[float]]) -> None:
    r, d, v, e, lam = (list(x) for x in zip(*columns, strict=True))
    d, lam = [abs(x) / 2 for x in d], [abs(x) / 2 for x in lam]
    lam[-1] = 0.0
    rows = [torch.tensor([x], dtype=torch.float64) for x in (r, d, v, e, lam)]
    expected = [slow_return(n, r, d, v, e, lam, len(r) - 1) for n in range(len(r))]
    assert lambda_returns(*rows)[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_three_decisions_by_hand() -> None:
    """r = 1, 2, 4 and d = ½, ½, 0 (terminated), v = 10, 20, 99, e = 1, 2, 99, λ = ½, ½, 0.

    G_2 = 4; G_1 = 2 + ½·(½·20 + ½·(4 − 2)) = 7.5; G_0 = 1 + ½·(½·10 + ½·(7.5 − 1)) = 5.125.
    """
    row = [torch.tensor([x]) for x in ([1.0, 2, 4], [0.5, 0.5, 0], [10.0, 20, 99], [1.0, 2, 99], [0.5, 0.5, 0])]
    assert lambda_returns(*row).tolist() == [[5.125, 7.5, 4.0]]


def test_truncated_end_bootstraps_and_a_zero_lambda_cuts_the_trace() -> None:
    """With d = ½ at the end too, G_2 = 4 + ½·99 = 53.5; λ_0 = 0 keeps that away from G_0 = 1 + ½·10 = 6."""
    row = [torch.tensor([x]) for x in ([1.0, 2, 4], [0.5, 0.5, 0.5], [10.0, 20, 99], [1.0, 2, 99], [0.0, 0.5, 0])]
    assert lambda_returns(*row).tolist() == [[6.0, 2 + 0.5 * (0.5 * 20 + 0.5 * (53.5 - 2)), 53.5]]


def test_lambda_one_without_correction_sums_the_discounted_rewards() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    discounts = torch.tensor([[0.9, 0.9, 0.0]]).expand(2, 3)
    lam = torch.tensor([[1.0, 1.0, 0.0]]).expand(2, 3)
    returns = lambda_returns(rewards, discounts, torch.full((2, 3), 1e6), torch.zeros(2, 3), lam)
    assert returns[:, 0].tolist() == pytest.approx([1 + 0.9 * 2 + 0.81 * 3, 0.81 * 5])
