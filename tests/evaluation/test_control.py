"""Greedy episodes: which ones count, and what is made of them."""

import numpy as np
import pytest
import torch

from tokenq.envs.control import Gymnasium
from tokenq.evaluation.control import Episodes, interquartile_mean
from tokenq.nets.control import ControlQ, Mlp
from tokenq.types import Spaces


def always(action: int) -> ControlQ:
    network = Mlp(1, 2).build(Spaces((4,), None, (2,)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layers[3].bias[action] = 1.0
    return network


def test_the_middle_half_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0])) == 3.5
    assert interquartile_mean(np.array([1.0, 5.0])) == 3.0


@pytest.mark.parametrize("number", [1, 7, 60])
def test_so_many_whole_episodes_are_played(number: int) -> None:
    returns, lengths = Episodes(Gymnasium("CartPole-v1"), number, 0).play(always(1))
    assert len(returns) == number
    # Pushing to one side only, the pole falls after 8 to 11 steps, each worth 1.
    assert (returns == lengths).all() and 8 <= returns.min() and returns.max() <= 11


def test_noise_is_left_out_and_comes_back() -> None:
    torch.manual_seed(0)
    episodes, network = Episodes(Gymnasium("CartPole-v1"), 5, 0), Mlp(1, 8, noisy=5.0).build(Spaces((4,), None, (2,)))
    state = torch.get_rng_state()
    first = episodes.play(network)[0].tolist()
    assert network.training and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert episodes.play(network)[0].tolist() == first
    seen = torch.randn(20, 4)
    assert not torch.equal(network.values(seen), network.values(seen))


def test_the_same_episodes_again_and_no_random_number_taken() -> None:
    episodes, network = Episodes(Gymnasium("CartPole-v1"), 5, 0), always(0)
    before = torch.get_rng_state()
    first = episodes.evaluate(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert episodes.evaluate(network) == first
    assert first["return_low"] <= first["return"] <= first["return_high"]
