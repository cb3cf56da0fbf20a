"""Actions are drawn from the distribution that the exploration names, for each environment by itself."""

import numpy as np
import pytest
import torch

from tokenq.acting.control import act
from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.nets.control import ControlQ, Mlp
from tokenq.types import Spaces

MANY = 60_000
HEADS = (2, 3)
EACH = torch.tensor([1.0, 5.0, 2.0, 4.0, 9.0])
"""Two values for part 0 and three for part 1; Q of a joint action is the mean of its two."""


def constant(heads: tuple[int, ...], values: torch.Tensor) -> ControlQ:
    network = Mlp(1, 2).build(Spaces((1,), None, heads))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.get_parameter("layers.3.bias" if len(heads) == 1 else "layers.3.values.bias").copy_(values)
    return network


def frequencies(exploration: Boltzmann | EpsilonGreedy | Greedy, update: int = 0) -> np.ndarray:
    torch.manual_seed(0)
    actions = act(constant(HEADS, EACH), exploration, np.zeros((MANY, 1), np.float32), update)
    assert actions.dtype == np.int64 and actions.shape == (MANY,)
    return np.bincount(actions, minlength=6) / MANY


def test_greedy_takes_the_best_of_each_part() -> None:
    assert frequencies(Greedy()).tolist() == [0, 0, 0, 0, 0, 1]


def test_one_coin_decides_for_all_parts_of_an_action() -> None:
    """With a coin for each part, action (0, 2) would be three times as likely as (0, 0)."""
    assert frequencies(EpsilonGreedy(0.6, 0.6, 1)) == pytest.approx([0.1] * 5 + [0.5], abs=0.01)
    falling = EpsilonGreedy(start=1.0, end=0.0, over=10)
    assert frequencies(falling) == pytest.approx([1 / 6] * 6, abs=0.01)
    assert frequencies(falling, update=10)[5] == 1


def test_parts_drawn_alone_are_drawn_from_the_joint_softmax() -> None:
    joint = (EACH[:2].unsqueeze(1) + EACH[2:]).flatten() / 2
    expected = (joint / 1.5).softmax(0).numpy()
    assert frequencies(Boltzmann(temperature=1.5)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("exploration", [EpsilonGreedy(0.5, 0.5, 1), Boltzmann(0.7)])
def test_an_action_of_one_part_is_drawn_as_it_always_was(exploration: Boltzmann | EpsilonGreedy) -> None:
    values = torch.tensor([0.0, 1.0, 0.5])
    network = constant((3,), values)
    torch.manual_seed(3)
    drawn = torch.multinomial(exploration.log_probabilities(values.expand(50, 3), 0).exp(), 1).squeeze(1)
    torch.manual_seed(3)
    assert act(network, exploration, np.zeros((50, 1), np.float32), 0).tolist() == drawn.tolist()
    assert len(set(drawn.tolist())) == 3
