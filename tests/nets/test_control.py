"""Networks of control tasks, and answers about single steps."""

from functools import partial

import numpy as np
import pytest
import torch

from tokenq.errors import ConfigError, DataError
from tokenq.nets.action_values import Dense
from tokenq.nets.control import ControlQ, Mlp
from tokenq.nets.readouts import Dueling
from tokenq.nets.step_values import StepValues
from tokenq.types import Batch, Observations, Spaces, Texts


def batch_of(before: torch.Tensor, after: torch.Tensor, actions: list[int]) -> Batch:
    b, ones = len(actions), torch.ones(len(actions), 1)
    whole = torch.ones(b, 1, dtype=torch.bool)
    seen = Observations(before.unsqueeze(1), after.unsqueeze(1))
    return Batch(seen, torch.tensor(actions).unsqueeze(1), ones, ones, whole, whole, torch.ones(b), torch.arange(b))


def test_dueling_by_hand() -> None:
    layer = Dueling(torch.nn.Linear(1, 1), torch.nn.Linear(1, 3))
    with torch.no_grad():
        layer.value.weight.fill_(2.0), layer.value.bias.zero_()
        layer.advantage.weight.copy_(torch.tensor([[1.0], [2.0], [6.0]])), layer.advantage.bias.zero_()
    # V = 2; advantages 1, 2, 6 with mean 3.
    assert layer(torch.ones(1, 1)).tolist() == [[0.0, 1.0, 5.0]]


@pytest.mark.parametrize("dueling", [False, True])
def test_steps_are_answered_as_dense_values_would_be(dueling: bool) -> None:
    torch.manual_seed(0)
    network = Mlp(1, 8, dueling).build(Spaces((3,), None, (4,)))
    batch = batch_of(torch.randn(5, 3), torch.randn(5, 3), [0, 1, 2, 3, 0])
    values = network(batch)
    seen = torch.cat([batch.observations.before, batch.observations.after], 1)
    whole = Dense(network.values(seen.flatten(0, 1)).unflatten(0, (5, 2)))
    candidates = torch.randint(4, (5, 2, 2))
    assert torch.allclose(values.at(batch.actions), whole.at(batch.actions))
    assert torch.allclose(values.log_probability(batch.actions, 0), whole.log_probability(batch.actions, 0))
    assert torch.allclose(values.logsumexp, whole.logsumexp) and torch.allclose(values.entropy, whole.entropy)
    assert torch.allclose(values.among(candidates), whole.among(candidates))
    assert torch.allclose(values.soft_maximum(0.3), whole.soft_maximum(0.3))
    assert torch.equal(values.maximum[1], whole.maximum[1])
    assert torch.allclose(values.following.maximum[0], whole.following.maximum[0])
    assert values.at(batch.actions).requires_grad and not values.following.values.requires_grad


class Halves:
    """Two numbers of equal weight."""

    outputs = 2

    def mean(self, answers: torch.Tensor) -> torch.Tensor:
        return answers.mean(-1)


def test_dueling_over_distributions_by_hand() -> None:
    """V = 10, 20; advantages (1, 2), (3, 8) with means 2, 5 for the first and the second number."""
    layer = Dueling(torch.nn.Linear(1, 2), torch.nn.Linear(1, 4))
    with torch.no_grad():
        for part, weights in ((layer.value, [10.0, 20.0]), (layer.advantage, [1.0, 2.0, 3.0, 8.0])):
            part.weight.copy_(torch.tensor(weights).unsqueeze(-1)), part.bias.zero_()
    assert layer(torch.ones(1, 1)).tolist() == [[9.0, 17.0, 11.0, 23.0]]


@pytest.mark.parametrize("dueling", [False, True])
def test_a_spread_is_answered_for_single_actions_and_for_several(dueling: bool) -> None:
    torch.manual_seed(0)
    network = Mlp(1, 8, dueling, norm=True).build(Spaces((3,), None, (4,)), Halves())
    batch = batch_of(torch.randn(5, 3), torch.randn(5, 3), [0, 1, 2, 3, 0])
    values = network(batch)
    before, after = (network.layers(part.squeeze(1)) for part in (batch.observations.before, batch.observations.after))
    assert before.shape == (5, 4, 2) and torch.allclose(
        network.values(batch.observations.before[:, 0]), before.mean(-1)
    )
    taken = values.distribution(batch.actions)
    assert torch.allclose(taken[:, 0], before[torch.arange(5), batch.actions[:, 0]]) and taken.requires_grad
    assert torch.allclose(values.at(batch.actions), taken.mean(-1))
    several = values.distributions(torch.tensor([[[3, 1]]] * 5))
    assert torch.allclose(several[:, 0], after[:, [3, 1]]) and not several.requires_grad
    assert torch.equal(values.every(), torch.arange(4).expand(5, 1, 4))
    assert torch.allclose(values.following.maximum[0][:, 0], after.mean(-1).max(-1).values)


def test_layers_are_normalised_before_the_relu() -> None:
    network = Mlp(2, 8, norm=True).build(Spaces((3,), None, (2,)))
    names = [type(layer).__name__ for layer in network.layers]
    assert names == ["Flat", *["Linear", "LayerNorm", "ReLU"] * 2, "Linear"]


def test_only_what_is_asked_is_read() -> None:
    read: list[float] = []

    def network(state: float) -> torch.Tensor:
        read.append(state)
        return torch.zeros(1, 1, 2)

    values = StepValues(partial(network, 1.0), partial(network, 2.0))
    assert values.following.maximum[0].item() == 0 and values.following.maximum[1].item() == 0
    assert read == [2.0]
    assert values.at(torch.tensor([[1]])).item() == 0
    assert read == [2.0, 1.0]


@pytest.mark.parametrize("heads", [(3,), (2, 3)])
def test_batches_that_are_read_together_are_answered_as_each_alone(heads: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = Mlp(1, 8).build(Spaces((3,), None, heads))
    batches = [batch_of(torch.randn(5, 3), torch.randn(5, 3), [0, 1, 2, 2, 0]) for _ in range(4)]
    for batch, values in zip(batches, network.together(batches), strict=True):
        alone = network(batch)
        assert torch.allclose(values.following.maximum[0], alone.following.maximum[0])
        assert torch.allclose(values.at(batch.actions), alone.at(batch.actions))
        assert torch.allclose(values.soft_maximum(0.5), alone.soft_maximum(0.5))
        assert not values.at(batch.actions).requires_grad


def test_discrete_observations_are_a_table() -> None:
    network = Mlp(1, 4).build(Spaces((), 6, (2,)))
    assert network.values(torch.tensor([0, 5])).shape == (2, 2)
    assert network.layers[1].weight.shape == (4, 6)


def test_a_lagging_copy_owns_what_lags() -> None:
    network = Mlp(1, 4).build(Spaces((3,), None, (2,)))
    twin = network.lagging_copy(lambda name: name.startswith("layers.3"))
    assert twin.layers[1].weight is network.layers[1].weight
    assert twin.layers[3].weight is not network.layers[3].weight and not twin.layers[3].weight.requires_grad
    assert torch.equal(twin.layers[3].weight, network.layers[3].weight)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="layers, width: got 0, 4"):
        Mlp(0, 4)
    with pytest.raises(ConfigError, match="distributions for actions of 2 parts"):
        Mlp().build(Spaces((3,), None, (2, 3)), Halves())
    none = torch.zeros(1, 0, dtype=torch.long)
    texts = Texts(*(torch.zeros(1, 2, dtype=torch.long),) * 4, none, none)
    batch = batch_of(torch.zeros(1, 3), torch.zeros(1, 3), [0])
    with pytest.raises(DataError, match="got a batch of texts"):
        Mlp(1, 4).build(Spaces((3,), None, (2,)))(Batch(texts, *(getattr(batch, n) for n in list(vars(batch))[1:])))
    with pytest.raises(DataError, match="got a batch of observations"):
        _ = batch.texts
    with pytest.raises(ConfigError, match="set values to raw"):
        _ = batch.reference


def test_values_are_those_of_the_weights() -> None:
    network: ControlQ = Mlp(1, 2).build(Spaces((2,), None, (2,)))
    with torch.no_grad():
        network.layers[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]])), network.layers[1].bias.zero_()
        network.layers[3].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), network.layers[3].bias.zero_()
    # Hidden: relu(2), relu(-(-3)) = 2, 3.
    assert network.values(torch.from_numpy(np.array([[2.0, -3.0]]))).tolist() == [[8.0, 18.0]]
