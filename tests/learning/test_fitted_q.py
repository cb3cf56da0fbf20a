"""Fitted Q evaluation: targets worked by hand, and a process whose values are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.learning.fitted_q import ActionHead, FittedQ, Logged, padded
from tokenq.learning.sync import Periodic

STATES, ACTIONS, STEPS = 3, 2, 3
EVALUATED = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
BEHAVIOUR = np.array([[0.5, 0.5], [0.6, 0.4], [0.3, 0.7]])
# What both do, less as often what the evaluated policy does: action vectors are one-hot.
SHARED = np.minimum(EVALUATED, BEHAVIOUR) - np.minimum(EVALUATED, BEHAVIOUR).sum(1, keepdims=True) * EVALUATED
NEXT = np.array([[1, 2], [2, 0], [0, 1]])
REWARD = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])


def added(states: Tensor, actions: Tensor) -> Tensor:
    """Q = the state's number + the action's number."""
    return (states + actions)[..., 0]


def one(log_ratio: float, terminated: bool) -> Logged:
    column = torch.tensor([[1.0], [2.0], [4.0]])
    return Logged(
        states=column,
        actions=torch.tensor([[0.5], [1.0]]),
        expected=torch.zeros(3, 1),
        shared=torch.tensor([[8.0], [0.25], [8.0]]),
        log_ratio=torch.tensor([0.0, log_ratio]),
        rewards=torch.tensor([10.0, 20.0]),
        terminated=terminated,
    )


@pytest.mark.parametrize(
    ("lam", "ratio", "trace"), [(0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.25), (1.0, 9.0, 1.0)]
)
def test_targets_by_hand(lam: float, ratio: float, trace: float) -> None:
    """V̄ is 1, 2, 4, what both do is 0.25 better in the second state; 20 + ½·4 follows if the text was cut off."""
    batch = padded([one(math.log(ratio), terminated=False), one(math.log(ratio), terminated=True)])
    targets = FittedQ(lam=lam).targets(added, batch, 0.5)
    for row, last in enumerate((22.0, 20.0)):
        assert targets[row].tolist() == pytest.approx([10 + 0.5 * (2 + trace * (last - 2) - lam * 0.25), last])


def test_where_the_policy_is_the_behaviour_the_target_is_the_logged_return() -> None:
    """Whatever the fitted values say, and whether or not who wrote the log did as the behaviour would."""
    torch.manual_seed(0)
    head = ActionHead(1, 1, start=3.0)
    nn.init.normal_(head.outer.weight)
    same = replace(one(0.0, terminated=True), shared=torch.zeros(3, 1))
    torch.testing.assert_close(FittedQ().targets(head, padded([same]), 0.5), torch.tensor([[20.0, 20.0]]))


def test_padding_changes_no_target() -> None:
    torch.manual_seed(0)
    head = ActionHead(1, 1, start=3.0)
    nn.init.normal_(head.outer.weight)
    vectors, numbers = (torch.randn(5, 1) for _ in range(3)), (torch.randn(4) for _ in range(2))
    states, expected, shared = vectors
    long = Logged(states, torch.randn(4, 1), expected, shared, *numbers, terminated=True)
    alone = FittedQ().targets(head, padded([one(0.1, terminated=True)]), 0.9)
    together = FittedQ().targets(head, padded([one(0.1, terminated=True), long]), 0.9)
    torch.testing.assert_close(together[:1, :2], alone)


def exact() -> np.ndarray:
    value = np.zeros(STATES)
    for _ in range(STEPS):
        value = (EVALUATED * (REWARD + value[NEXT])).sum(1)
    return value


def episodes(n: int) -> list[Logged]:
    """Logs of the behaviour from state 0; a state's vector says which it is and how many steps are left."""
    rng = np.random.default_rng(0)
    vectors = torch.eye(STATES * (STEPS + 1))
    made = []
    for _ in range(n):
        states, actions = [0], []
        for _ in range(STEPS):
            actions.append(int(rng.random() > BEHAVIOUR[states[-1], 0]))
            states.append(int(NEXT[states[-1], actions[-1]]))
        before = np.array(states[:-1]), np.array(actions)
        made.append(
            Logged(
                states=vectors[[s + STATES * step for step, s in enumerate(states)]],
                actions=torch.eye(ACTIONS)[actions],
                expected=torch.tensor(EVALUATED[states], dtype=torch.float32),
                shared=torch.tensor(SHARED[states], dtype=torch.float32),
                log_ratio=torch.tensor(np.log(EVALUATED[before] / BEHAVIOUR[before]), dtype=torch.float32),
                rewards=torch.tensor(REWARD[before], dtype=torch.float32),
                terminated=True,
            )
        )
    return made


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_value_of_another_policy_is_learned(lam: float) -> None:
    logged = episodes(200)
    settings = FittedQ(updates=150, learning_rate=2e-2, weight_decay=0.0, lam=lam, sync=Periodic(8), fits=1)
    heads = settings.fit(logged, gamma=1.0, seed=0)
    found = [float(head(logged[0].states[:1], logged[0].expected[:1])) for head in heads]
    mean_return = float(np.mean([float(episode.rewards.sum()) for episode in logged]))
    assert found == pytest.approx([exact()[0]], abs=0.15)
    assert abs(mean_return - exact()[0]) > 0.5  # what the logs earned is something else


def test_a_fit_is_repeatable_and_leaves_the_random_stream_alone() -> None:
    logged, settings = episodes(20), FittedQ(updates=3, fits=2)
    state = torch.get_rng_state()
    first, second = settings.fit(logged, 1.0, seed=1), settings.fit(logged, 1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a.outer.weight, b.outer.weight) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].outer.weight, first[1].outer.weight)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"updates": 0}, {"lam": 1.5}, {"learning_rate": 0.0}, {"largest_weight": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            FittedQ(**wrong)
