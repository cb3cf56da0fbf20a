"""Implausible tokens held down, against numbers worked out on paper."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tokenq.errors import ConfigError
from tokenq.learning.held import Held
from tokenq.learning.objectives import Soft
from tokenq.learning.values import Logits
from tokenq.nets.action_values import Dense
from tokenq.nets.decoupled import Decoupled
from tokenq.types import Batch

BatchOf = Callable[..., Batch]


def held_batch(batch_of: BatchOf, plausible: list[float]) -> Batch:
    """One decision for token 0, which the reference says with probability 0.5; tokens 0, 1 and 2 are stored."""
    return batch_of(
        [[0]],
        k=3,
        rewards=[[1.0]],
        continues=[[0.0]],
        logit=torch.tensor([[math.log(0.5)]]),
        plausible=torch.tensor([[[0, 1, 2]] * 2]),
        plausible_logit=torch.tensor([[plausible] * 2]).log(),
    )


def test_implausible_tokens_are_held_by_hand(batch_of: BatchOf) -> None:
    """Of five tokens 0 was taken, 1 is plausible, 2 is stored but too improbable; 2, 3 and 4 are held."""
    batch = held_batch(batch_of, [0.5, 0.4, 0.05])
    probabilities = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1])
    logits = probabilities.log().repeat(1, 2, 1).requires_grad_()
    held = Held(k=3, probability=0.06)
    excess = held.excess(Dense(logits), batch)
    # They have 0.4 where the reference gives them 0.1.
    assert excess.tolist() == [[pytest.approx(math.log(4))]]
    (gradient,) = torch.autograd.grad(excess.sum(), logits)
    assert gradient[0, 0].tolist() == pytest.approx([0, 0, 0.5, 0.25, 0.25])
    error = Soft(Logits(0.5)).loss(Dense(logits), lambda: Dense(logits), batch).per_decision
    held_error = Soft(Logits(0.5), held=held).loss(Dense(logits), lambda: Dense(logits), batch).per_decision
    assert (held_error - error).tolist() == [[pytest.approx(0.5 * (0.5 * math.log(4)) ** 2)]]
    assert Soft(held=held).plausible == 3 and Soft().plausible == 0


def test_held_tokens_may_be_as_probable_as_they_were_or_as_the_bound(batch_of: BatchOf) -> None:
    logits = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1]).log().repeat(1, 2, 1)
    # To the reference 2, 3 and 4 had 0.45 together, more than now.
    assert Held(3, 0.06).excess(Dense(logits), held_batch(batch_of, [0.5, 0.05, 0.05])).item() == pytest.approx(
        math.log(0.6 / 0.5)
    )
    assert Held(3, 0.06).excess(Dense(logits), held_batch(batch_of, [0.5, 0.15, 0.01])).item() == pytest.approx(
        math.log(0.4 / 0.35)
    )
    # It left nearly nothing to them; the bound does.
    assert Held(3, 0.3).excess(Dense(logits), held_batch(batch_of, [0.5, 0.499, 0.0001])).item() == pytest.approx(
        math.log(0.4 / 0.3), rel=1e-3
    )
    logits = torch.tensor([0.9, 0.09, 0.004, 0.003, 0.003]).log().repeat(1, 2, 1)
    assert Held(3, 0.06).excess(Dense(logits), held_batch(batch_of, [0.5, 0.4, 0.05])).item() == 0


def test_a_token_that_fills_up_a_row_counts_once(batch_of: BatchOf) -> None:
    """Four tokens, of which 0 fills up; 2 and 3 are held and had 0.1 together."""
    batch = batch_of(
        [[1]],
        k=6,
        logit=torch.tensor([[math.log(0.4)]]),
        plausible=torch.tensor([[[0, 1, 2, 3, 0, 0]] * 2]),
        plausible_logit=torch.tensor([[[0.5, 0.4, 0.05, 0.05, 0.5, 0.5]] * 2]).log(),
    )
    logits = torch.tensor([0.2, 0.2, 0.3, 0.3]).log().repeat(1, 2, 1)
    assert Held(6, 0.06).excess(Dense(logits), batch).item() == pytest.approx(math.log(6))


def test_nothing_is_held_where_everything_is_plausible(batch_of: BatchOf) -> None:
    """Two labels of a classifier, say: no penalty, and gradients stay numbers."""
    batch = held_batch(batch_of, [0.5, 0.4, 0.1])
    batch = replace(batch, record=replace(batch.reference, plausible=torch.tensor([[[0, 1, 1]] * 2])))
    logits = torch.tensor([[[0.3, -0.2]] * 2], requires_grad=True)
    excess = Held(3, 0.06).excess(Dense(logits), batch)
    assert excess.item() == 0
    (gradient,) = torch.autograd.grad(excess.sum(), logits)
    assert (gradient == 0).all()


def test_wrong_settings_say_what_to_do(batch_of: BatchOf) -> None:
    for wrong in ({"k": 0}, {"samples": 0}, {"probability": 0.0}, {"probability": 1.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: got"):
            Held(**wrong)
    agent = Decoupled(torch.zeros(1, 2, 1, 2), (2,))
    with pytest.raises(ConfigError, match="held: got an agent"):
        Held(3).excess(agent, held_batch(batch_of, [0.5, 0.4, 0.05]))
