"""Probabilities of behaviour policies, by hand and as properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.ops.policies import boltzmann, epsilon_greedy, prior_guided

# Probabilities 1/2, 1/4, 1/8, 1/8.
EIGHTHS = torch.tensor([[math.log(4), math.log(2), 0.0, 0.0]])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1.0, 0, 1.0, [1 / 2, 1 / 4, 1 / 8, 1 / 8]),
        (0.5, 0, 1.0, [16 / 22, 4 / 22, 1 / 22, 1 / 22]),
        (1.0, 2, 1.0, [2 / 3, 1 / 3, 0, 0]),
        (1.0, 9, 1.0, [1 / 2, 1 / 4, 1 / 8, 1 / 8]),
        (1.0, 0, 0.5, [1, 0, 0, 0]),
        (1.0, 0, 0.51, [2 / 3, 1 / 3, 0, 0]),
        (1.0, 0, 0.01, [1, 0, 0, 0]),
        (1.0, 2, 0.9, [2 / 3, 1 / 3, 0, 0]),
        (1.0, 2, 0.6, [1, 0, 0, 0]),
    ],
)
def test_boltzmann(temperature: float, top_k: int, top_p: float, expected: list[float]) -> None:
    assert boltzmann(EIGHTHS, temperature, top_k, top_p).exp()[0].tolist() == pytest.approx(expected)


@given(st.permutations(range(4)), st.integers(0, 4), st.sampled_from([0.3, 0.6, 1.0]))
def test_boltzmann_does_not_depend_on_the_order_of_actions(order: list[int], top_k: int, top_p: float) -> None:
    values = torch.tensor([[1.5, 0.3, -0.4, -2.0]])
    expected = boltzmann(values, 0.7, top_k, top_p)[:, order]
    assert torch.allclose(boltzmann(values[:, order], 0.7, top_k, top_p).exp(), expected.exp())


def test_epsilon_greedy_gives_the_best_action_the_rest() -> None:
    values = torch.tensor([[0.0, 3.0, 1.0, 3.0]])
    assert epsilon_greedy(values, 0.2).exp()[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert epsilon_greedy(values, 1.0).exp()[0].tolist() == pytest.approx([0.25] * 4)
    assert epsilon_greedy(values, 0.0)[0].tolist() == [-math.inf, 0.0, -math.inf, -math.inf]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(0, 1))
def test_both_are_distributions(values: list[float], epsilon: float) -> None:
    row = torch.tensor([values])
    for log in (boltzmann(row, 0.5, 3, 0.8), epsilon_greedy(row, epsilon)):
        assert log.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("beta", "top_k", "expected"),
    [
        (0.0, 0, [4 / 8, 2 / 8, 1 / 8, 1 / 8]),
        (1.0, 0, [4 / 17, 4 / 17, 8 / 17, 1 / 17]),
        (2.0, 0, [4 / 77, 8 / 77, 64 / 77, 1 / 77]),
        (1.0, 2, [1 / 2, 1 / 2, 0, 0]),
        (0.0, 1, [1, 0, 0, 0]),
    ],
)
def test_prior_guided_multiplies_the_prior_with_the_exponential_of_the_value(
    beta: float, top_k: int, expected: list[float]
) -> None:
    """exp Q = 1, 2, 8, 1 on a prior of 4, 2, 1, 1 eighths; a cut leaves nothing to value beyond it."""
    values = torch.tensor([[0.0, math.log(2), math.log(8), 0.0]])
    for shift in (0.0, -3.0):  # a state's value changes nothing
        guided = prior_guided(EIGHTHS + 5, values + shift, beta, top_k)
        assert guided.exp()[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("top_k", "min_p", "expected"),
    [
        (0, 0.5, [4 / 8, 4 / 8, 0, 0]),
        (0, 0.51, [1, 0, 0, 0]),
        (0, 0.25, [4 / 17, 4 / 17, 8 / 17, 1 / 17]),
        (1, 0.25, [1, 0, 0, 0]),
    ],
)
def test_what_the_prior_finds_too_improbable_has_no_value(top_k: int, min_p: float, expected: list[float]) -> None:
    values = torch.tensor([[0.0, math.log(2), math.log(8), 0.0]])
    guided = prior_guided(EIGHTHS + 5, values, 1.0, top_k, min_p)
    assert guided.exp()[0].tolist() == pytest.approx(expected)
