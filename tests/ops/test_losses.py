"""The loss and its reduction."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.ops.losses import blurred, expectile, huber, masked_mean, squared_error


def test_gradient_of_the_squared_error_is_the_difference() -> None:
    prediction = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = squared_error(prediction, torch.tensor([1.0, 1.0]))
    loss.sum().backward()
    assert loss.tolist() == [2.0, 2.0]
    assert prediction.grad is not None and prediction.grad.tolist() == [2.0, -2.0]


def test_huber_is_a_parabola_between_two_lines() -> None:
    prediction = torch.tensor([0.5, 3.0, -5.0], requires_grad=True)
    loss = huber(prediction, torch.zeros(3), 2.0)
    loss.sum().backward()
    # ½·0.5², then 2·(3 − 1) and 2·(5 − 1): value and slope agree where the pieces meet.
    assert loss.tolist() == [0.125, 4.0, 8.0]
    assert prediction.grad is not None and prediction.grad.tolist() == [0.5, 2.0, -2.0]


def test_masked_mean_ignores_even_nan_outside_the_mask() -> None:
    values = torch.tensor([[1.0, torch.nan], [torch.inf, 5.0]])
    assert masked_mean(values, torch.tensor([[True, False], [False, True]])) == 3.0
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)) == 0.0


def test_where_much_is_drawn_blindly_the_rest_is_fitted() -> None:
    """Two thirds of the time any of four tokens, else always the first: this is ½ and thrice 1/6."""
    seen = torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    first = torch.tensor([0.0, -1e4, -1e4, -1e4])
    assert torch.allclose(blurred(first, 2 / 3, 4).exp(), seen)
    logits = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        (-(seen * blurred(logits.log_softmax(-1), 2 / 3, 4)).sum()).backward()
        optimiser.step()
    assert float(logits.detach().softmax(-1)[0]) > 0.97
    assert blurred(first, 0.0, 4) is first


def test_expectile_weighs_what_lies_above_by_tau_and_what_lies_below_by_the_rest() -> None:
    prediction = torch.zeros(2, requires_grad=True)
    loss = expectile(prediction, torch.tensor([2.0, -2.0]), 0.75)
    loss.sum().backward()
    assert loss.tolist() == [3.0, 1.0]
    assert prediction.grad is not None and prediction.grad.tolist() == [-3.0, 1.0]


def test_expectile_of_two_values() -> None:
    """0 and 1 in equal numbers, τ = 0.8: 0.8·(1 − v) = 0.2·v at v = 0.8."""
    prediction = torch.full((2,), 0.8, requires_grad=True)
    expectile(prediction, torch.tensor([0.0, 1.0]), 0.8).sum().backward()
    assert prediction.grad is not None and abs(float(prediction.grad.sum())) < 1e-6


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_the_expectile_of_one_half_is_the_squared_error(prediction: float, target: float) -> None:
    pair = torch.tensor([prediction]), torch.tensor([target])
    assert torch.allclose(expectile(*pair, 0.5), squared_error(*pair))
