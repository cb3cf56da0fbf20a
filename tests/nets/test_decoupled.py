"""Values of several parts answer as a dense tensor over all joint actions would, and never make one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.nets.action_values import Dense
from tokenq.nets.control import Mlp
from tokenq.nets.decoupled import Decoupled, Parts
from tokenq.nets.step_values import StepValues
from tokenq.types import Batch, Observations, Spaces

HEADS = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


def batch_of(before: torch.Tensor, after: torch.Tensor, actions: list[int]) -> Batch:
    b, ones = len(actions), torch.ones(len(actions), 1)
    whole = torch.ones(b, 1, dtype=torch.bool)
    seen = Observations(before.unsqueeze(1), after.unsqueeze(1))
    return Batch(seen, torch.tensor(actions).unsqueeze(1), ones, ones, whole, whole, torch.ones(b), torch.arange(b))


def joint(values: torch.Tensor, heads: tuple[int, ...]) -> torch.Tensor:
    """Q of every joint action, one by one: the mean of D values for each part is the sum of their shares."""
    each = [
        sum(values[..., d, k] for d, k in enumerate(choice)) for choice in itertools.product(*(range(n) for n in heads))
    ]
    return torch.stack(each, -1)


def both(heads: tuple[int, ...], seed: int) -> tuple[Decoupled, Dense]:
    torch.manual_seed(seed)
    flat = (3 * torch.randn(6, sum(heads), dtype=torch.float64)).requires_grad_()
    values = Parts(heads, torch.nn.Identity())(flat).unflatten(0, (2, 3))
    return Decoupled(values, heads), Dense(joint(values, heads))


@settings(max_examples=60, deadline=None)
@given(heads=HEADS, seed=st.integers(0, 99), temperature=st.floats(0.05, 5))
def test_every_question_is_answered_as_by_the_joint_table(
    heads: tuple[int, ...], seed: int, temperature: float
) -> None:
    ours, dense = both(heads, seed)
    actions, candidates = torch.randint(math.prod(heads), (2, 2)), torch.randint(math.prod(heads), (2, 3, 5))
    for answer, expected in (
        (ours.at(actions), dense.at(actions)),
        (ours.log_probability(actions, 4), dense.log_probability(actions, 4)),
        (ours.among(candidates), dense.among(candidates)),
        (ours.logsumexp, dense.logsumexp),
        (ours.soft_maximum(temperature), dense.soft_maximum(temperature)),
        (ours.maximum[0], dense.maximum[0]),
        (ours.maximum[1], dense.maximum[1]),
        (ours.entropy, dense.entropy),
        (ours.following.maximum[1], dense.following.maximum[1]),
    ):
        assert torch.allclose(answer, expected)


@settings(max_examples=20, deadline=None)
@given(heads=HEADS, seed=st.integers(0, 99))
def test_gradients_are_those_of_the_joint_table(heads: tuple[int, ...], seed: int) -> None:
    actions = torch.randint(math.prod(heads), (2, 2))
    ours, dense = both(heads, seed)
    for answer, expected in (
        (ours.at(actions), dense.at(actions)),
        (ours.log_probability(actions, 0), dense.log_probability(actions, 0)),
    ):
        gradients = [torch.autograd.grad(a.sum(), ours.values, retain_graph=True)[0] for a in (answer, expected)]
        assert torch.allclose(*gradients) and gradients[0].isfinite().all()
    assert not ours.logsumexp.requires_grad and not ours.maximum[0].requires_grad


def test_the_mean_over_parts_by_hand() -> None:
    # Part 0 has two choices worth 1 and 5; part 1 has three, worth 2, 4 and 9.
    values = Parts((2, 3), torch.nn.Identity())(torch.tensor([[1.0, 5.0, 2.0, 4.0, 9.0]])).unsqueeze(1)
    ours = Decoupled(values, (2, 3))
    # Action 2 is (0, 2) and action 3 is (1, 0).
    assert ours.among(torch.tensor([[[2, 3]]])).tolist() == [[[5.0, 3.5]]]
    assert ours.maximum[0].item() == 7.0 and ours.maximum[1].item() == 5
    assert values[0, 0, 0].tolist() == [0.5, 2.5, -math.inf]


def test_dueling_parts_by_hand() -> None:
    state = torch.nn.Linear(5, 1)
    with torch.no_grad():
        state.weight.zero_(), state.bias.fill_(10.0)
    values = Parts((2, 3), torch.nn.Identity(), state)(torch.tensor([[1.0, 5.0, 2.0, 4.0, 9.0]]))
    # Advantages less their means: −2, 2 and −3, −1, 4. Q = 10 + half their sum.
    assert values[0].tolist() == [[4.0, 6.0, -math.inf], [3.5, 4.5, 7.0]]
    assert Decoupled(values.unsqueeze(1), (2, 3)).maximum[0].item() == 13.0


@pytest.mark.parametrize("dueling", [False, True])
def test_a_network_answers_about_steps(dueling: bool) -> None:
    torch.manual_seed(0)
    heads = (2, 4, 3)
    network = Mlp(1, 8, dueling).build(Spaces((3,), None, heads))
    assert network.parts is not None
    batch = batch_of(torch.randn(5, 3), torch.randn(5, 3), [0, 7, 13, 23, 5])
    seen = torch.cat([batch.observations.before, batch.observations.after], 1)
    dense = Dense(joint(network.values(seen.flatten(0, 1)), heads).unflatten(0, (5, 2)))
    values = network(batch)
    assert isinstance(values, StepValues) and isinstance(values.following, Decoupled)
    assert torch.allclose(values.at(batch.actions), dense.at(batch.actions))
    assert torch.allclose(values.log_probability(batch.actions, 0), dense.log_probability(batch.actions, 0))
    assert torch.allclose(values.soft_maximum(0.3), dense.soft_maximum(0.3))
    assert torch.equal(values.maximum[1], dense.maximum[1])
    assert torch.allclose(values.following.maximum[0], dense.following.maximum[0])
    values.at(batch.actions).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_more_joint_actions_than_could_be_listed() -> None:
    heads = (3,) * 39
    network = Mlp(1, 4).build(Spaces((2,), None, heads))
    values = network(batch_of(torch.zeros(1, 2), torch.zeros(1, 2), [3**39 - 1]))
    assert values.maximum[1].shape == (1, 2) and values.entropy.max() <= 39 * math.log(3) + 1e-4
    # The uniform policy over 3^39 actions.
    with torch.no_grad():
        network.layers[-1].values.weight.zero_(), network.layers[-1].values.bias.zero_()
    assert network(batch_of(torch.zeros(1, 2), torch.zeros(1, 2), [0])).entropy[0, 0].item() == pytest.approx(
        39 * math.log(3), rel=1e-5
    )
