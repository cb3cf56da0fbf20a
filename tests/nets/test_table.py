"""A table as a network: one value for every state and action."""

import pytest
import torch

from tokenq.errors import ConfigError
from tokenq.nets.table import Table
from tokenq.types import Batch, Observations, Spaces


def test_a_table_answers_what_stands_in_it_and_nothing_else_moves() -> None:
    network = Table(initial=2.0).build(Spaces((), 4, (3,)))
    (values,) = network.parameters()
    assert values.tolist() == [[2.0] * 3] * 4
    with torch.no_grad():
        values.copy_(torch.arange(12).reshape(4, 3))
    whole, ones = torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 1)
    seen = Observations(torch.tensor([[3], [0]]), torch.tensor([[1], [2]]))
    batch = Batch(seen, torch.tensor([[2], [1]]), ones, ones, whole, whole, torch.ones(2), torch.arange(2))
    answers = network(batch)
    assert answers.at(batch.actions).tolist() == [[11.0], [1.0]]
    assert answers.following.maximum[0].tolist() == [[5.0], [8.0]]
    answers.at(batch.actions).sum().backward()
    assert values.grad is not None and values.grad.nonzero().tolist() == [[0, 1], [3, 2]]


def test_a_table_lags_as_a_network_does() -> None:
    network = Table().build(Spaces((), 4, (3,)))
    twin = network.lagging_copy(lambda name: True)
    with torch.no_grad():
        next(iter(network.parameters())).fill_(1.0)
    assert float(twin.values(torch.tensor([2])).sum()) == 0.0
    assert not next(iter(twin.parameters())).requires_grad


def test_observations_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"got table for observations of shape \(4,\).*set network to mlp"):
        Table().build(Spaces((4,), None, (2,)))
