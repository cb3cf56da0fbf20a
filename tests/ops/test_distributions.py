"""Distributions against numbers worked out on paper and slow loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.ops.distributions import cross_entropy, project, quantile_huber
from tokenq.ops.losses import huber


def slow_projection(values: list[float], weights: list[float], low: float, high: float, atoms: int) -> list[float]:
    """Bellemare et al. 2017, Algorithm 1, with a value on an atom given to it whole."""
    gap = (high - low) / (atoms - 1)
    result = [0.0] * atoms
    for value, weight in zip(values, weights, strict=True):
        place = (min(max(value, low), high) - low) / gap
        lower, upper = math.floor(place), math.ceil(place)
        if lower == upper:
            result[lower] += weight
        else:
            result[lower] += weight * (upper - place)
            result[upper] += weight * (place - lower)
    return result


def test_projection_by_hand() -> None:
    """Atoms 0, 1, 2: 0.25 lies between the first two, 1 on an atom, 5 and −3 beyond the ends."""
    values, weights = torch.tensor([0.25, 1.0, 5.0, -3.0]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert project(values, weights, 0.0, 2.0, 3).tolist() == pytest.approx([0.3 + 0.1, 0.1 + 0.3, 0.2])


@given(seed=st.integers(0, 10**6), atoms=st.integers(2, 9), j=st.integers(1, 12))
def test_projection_is_the_loop_and_keeps_mass_and_mean(seed: int, atoms: int, j: int) -> None:
    g = torch.Generator().manual_seed(seed)
    low, high = -1.5, 2.0
    values = (torch.randn(3, 2, j, generator=g) * 2).round(decimals=1)
    weights = torch.rand(3, 2, j, generator=g).softmax(-1)
    ours = project(values, weights, low, high, atoms)
    for row in range(3):
        for n in range(2):
            expected = slow_projection(values[row, n].tolist(), weights[row, n].tolist(), low, high, atoms)
            assert ours[row, n].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(ours.sum(-1), torch.ones(3, 2), atol=1e-5) and (ours >= 0).all()
    mean = (values.clamp(low, high) * weights).sum(-1)
    assert torch.allclose(ours @ torch.linspace(low, high, atoms), mean, atol=1e-5)


@given(low=st.floats(-100, 99), width=st.floats(0.1, 1000), atoms=st.integers(2, 201))
def test_an_atom_is_projected_onto_itself(low: float, width: float, atoms: int) -> None:
    support = torch.linspace(low, low + width, atoms)
    projected = project(support.unsqueeze(-1), torch.ones(atoms, 1), low, low + width, atoms)
    assert torch.allclose(
        projected, torch.eye(atoms), atol=2e-2
    )  # as far as floats tell low + i·gap from its neighbours


def test_what_is_no_number_stays_none() -> None:
    """So that an update ends with a loss that is not finite, which the learner refuses, and not with a wrong index."""
    assert project(torch.tensor([torch.nan, 1.0]), torch.tensor([0.5, 0.5]), 0.0, 2.0, 3).isnan().any()


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    target = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    # −½·ln ¾ − ½·ln ¼ and −ln ½.
    assert cross_entropy(logits, target).tolist() == pytest.approx([-0.5 * math.log(3 / 16), math.log(2)])


def test_quantile_loss_by_hand() -> None:
    """θ = 0, 2 at τ = ¼, ¾; y = 3 with weight ¾ and −1 with weight ¼; δ = 1.

    Errors of θ_0: 3 (huber 2.5, share ¼) and −1 (huber 0.5, share ¾); of θ_1: 1 (0.5, ¾) and −3 (2.5, ¼).
    """
    loss = quantile_huber(torch.tensor([0.0, 2.0]), torch.tensor([3.0, -1.0]), torch.tensor([0.75, 0.25]), 1.0)
    assert loss.item() == pytest.approx(0.75 * 0.625 + 0.25 * 0.375 + 0.75 * 0.375 + 0.25 * 0.625)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), j=st.integers(1, 6), delta=st.floats(0.1, 5))
def test_quantile_loss_is_the_loop(seed: int, k: int, j: int, delta: float) -> None:
    g = torch.Generator().manual_seed(seed)
    theta, y = torch.randn(2, k, generator=g), torch.randn(2, j, generator=g)
    weights = torch.rand(2, j, generator=g)
    ours = quantile_huber(theta, y, weights, delta)
    for row in range(2):
        expected = 0.0
        for i in range(k):
            for n in range(j):
                share = abs((i + 0.5) / k - float(y[row, n] < theta[row, i]))
                expected += float(weights[row, n]) * share * float(huber(theta[row, i], y[row, n], delta))
        assert float(ours[row]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_best_quantiles_are_those_of_the_target() -> None:
    """With a small δ the loss is least where a quarter, and three quarters, of the target lie below."""
    y = torch.linspace(0, 1, 101)
    weights = torch.full((101,), 1 / 101)
    theta = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        (quantile_huber(theta, y, weights, 0.01) * 100).backward()
        optimiser.step()
    assert theta.tolist() == pytest.approx([0.25, 0.75], abs=0.02)
