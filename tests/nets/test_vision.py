"""The network of Mnih et al. 2015."""

import pytest
import torch

from tokenq.errors import ConfigError
from tokenq.learning.distributional import QRDQN
from tokenq.nets.vision import NatureCnn
from tokenq.types import Spaces


def test_it_has_the_published_size() -> None:
    network = NatureCnn().build(Spaces((4, 84, 84), None, (6,)))
    # 32·(4·8² + 1) + 64·(32·4² + 1) + 64·(64·3² + 1) + 512·(64·7² + 1) + 6·(512 + 1)
    assert sum(p.numel() for p in network.parameters()) == 8224 + 32832 + 36928 + 1606144 + 3078
    assert network.values(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).shape == (2, 6)


def test_brightness_is_read_from_0_to_1() -> None:
    network = NatureCnn(width=8, dueling=True).build(Spaces((2, 36, 40), None, (3,)))
    read: list[float] = []
    network.layers[1].register_forward_hook(lambda layer, args, answer: read.append(float(args[0].max())))
    assert network.values(torch.full((1, 2, 36, 40), 255, dtype=torch.uint8)).shape == (1, 3)
    assert read == [1.0]


@pytest.mark.parametrize("dueling", [False, True])
def test_distributions_are_answered(dueling: bool) -> None:
    network = NatureCnn(width=8, dueling=dueling).build(Spaces((1, 36, 36), None, (3,)), QRDQN(quantiles=5))
    frames = torch.zeros(2, 1, 36, 36, dtype=torch.uint8)
    assert network.layers(frames).shape == (2, 3, 5) and network.values(frames).shape == (2, 3)


@pytest.mark.parametrize("shape", [(84, 84), (4, 35, 84), (4,)])
def test_what_is_no_stack_of_frames_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected frames"):
        NatureCnn().build(Spaces(shape, None, (2,)))
    with pytest.raises(ConfigError, match="width: got 0"):
        NatureCnn(width=0)
