"""Behaviour policies as settings."""

import math

import pytest
import torch

from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.errors import ConfigError

LOGITS = torch.tensor([[math.log(4), math.log(2), 0.0, 0.0]])


def probabilities(policy: Boltzmann | EpsilonGreedy | Greedy, update: int = 0) -> list[float]:
    return policy.log_probabilities(LOGITS, update).exp()[0].tolist()


def test_boltzmann_is_the_same_at_every_update() -> None:
    policy = Boltzmann(temperature=1.0, top_k=3, top_p=0.8)
    # Of the two that tie for the third place one is kept: 4/7, 2/7, 1/7, of which the first two reach 0.8.
    assert probabilities(policy, 0) == probabilities(policy, 999) == pytest.approx([2 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize(("update", "epsilon"), [(0, 1.0), (50, 0.6), (100, 0.2), (500, 0.2)])
def test_epsilon_falls_in_a_straight_line(update: int, epsilon: float) -> None:
    policy = EpsilonGreedy(start=1.0, end=0.2, over=100)
    assert policy.epsilon(update) == pytest.approx(epsilon)
    assert probabilities(policy, update) == pytest.approx([1 - epsilon * 3 / 4] + [epsilon / 4] * 3)


def test_greedy_is_certain() -> None:
    assert probabilities(Greedy()) == [1.0, 0.0, 0.0, 0.0]


def test_wrong_settings_say_what_was_expected() -> None:
    for make, words in (
        (lambda: Boltzmann(temperature=0.0), "temperature: got 0.0"),
        (lambda: Boltzmann(top_k=-1), "top_k: got -1"),
        (lambda: Boltzmann(top_p=0.0), "top_p: got 0.0"),
        (lambda: EpsilonGreedy(start=1.5), "start, end: got 1.5"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
