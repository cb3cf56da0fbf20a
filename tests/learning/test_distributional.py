"""Distributional targets against numbers worked out on paper, and learned values against value iteration."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.learning.distributional import C51, QRDQN, Distributions, Double, Greedy, PaidPolicy
from tokenq.learning.learner import Learner, Objective, Optimisation
from tokenq.learning.objectives import DQN, DoubleDQN, Munchausen, Vocabulary
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Polyak
from tokenq.learning.target import Target, TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.action_values import Dense
from tokenq.nets.control import ControlQ, Mlp
from tokenq.nets.step_values import StepValues
from tokenq.types import Batch, Observations, Spaces

LN3 = math.log(3)
FOLLOWS = [Greedy(), Double(), PaidPolicy(0.2, 0.5, -1.0)]


def batch_of(
    before: list[int], actions: list[int], rewards: list[float], after: list[int], continues: list[float]
) -> Batch:
    """One step for each entry, in a world of numbered states."""
    b = len(actions)
    column = torch.ones(b, 1, dtype=torch.bool)
    return Batch(
        Observations(torch.tensor(before).unsqueeze(1), torch.tensor(after).unsqueeze(1)),
        torch.tensor(actions).unsqueeze(1),
        torch.tensor(rewards).unsqueeze(1),
        torch.tensor(continues).unsqueeze(1),
        column,
        column,
        torch.ones(b),
        torch.arange(b),
    )


def table(objective: C51 | QRDQN, answers: Tensor, batch: Batch) -> StepValues:
    """Answers [states, A, K] by heart."""
    seen = batch.observations
    return StepValues(
        lambda: answers[seen.before], lambda: answers[seen.after], lambda given: Dense(objective.mean(given))
    )


STEP = batch_of([0], [0], [1.0], [1], [1.0])


@pytest.mark.parametrize(
    ("follows", "expected"),
    [
        # The lagging net likes action 0 (mean 1.5): 1 + ½·{0, 1, 2} with 0, ½, ½ → 1, 1.5, 2.
        (Greedy(), [0.0, 0.25, 0.75]),
        # The online net likes action 1, which the lagging one gives 0, 1, 2 with ½, ½, 0.
        (Double(), [0.0, 0.75, 0.25]),
    ],
)
def test_c51_targets_by_hand(follows: Greedy | Double, expected: list[float]) -> None:
    """γ = ½ and atoms 0, 1, 2; the state before has probabilities ¾, ⅛, ⅛ for action 0."""
    objective = C51(0.0, 2.0, 3, 0.5, follows)
    least = -1e4
    taken = [math.log(6), 0.0, 0.0]
    lagging = torch.tensor([[[0.0, 0, 0]] * 2, [[least, 0.0, 0.0], [0.0, 0.0, least]]])
    online = torch.tensor([[taken, [0.0, 0, 0]], [[0.0, 0.0, least], [least, 0.0, 0.0]]])
    loss = objective.loss(table(objective, online, STEP), lambda: table(objective, lagging, STEP), STEP)
    entropy = -sum(p * math.log(q) for p, q in zip(expected, [0.75, 0.125, 0.125], strict=True))
    assert loss.per_decision.item() == pytest.approx(entropy)
    assert loss.q.item() == pytest.approx(0.125 + 0.25)
    assert loss.target.item() == pytest.approx(expected[1] + 2 * expected[2])


def test_paid_policy_by_hand() -> None:
    """τ = 1, α = ½, l = −1, γ = ½: two quantiles, means (ln 3, 0) before and (0, ln 3) after, so π̄ = ¾, ¼ and ¼, ¾.

    Bonus ½·ln ¾. Action 0 after: quantiles −1, 1, shifted by −ln ¼ = ln 4, weight ¼ in all; action 1: ln 3 ± 1 shifted
    by −ln ¾, so that both have the mean ln 4, the soft maximum: the mean of the target is 1 + ½·ln ¾ + ½·ln 4.
    """
    objective = QRDQN(2, 1.0, 0.5, PaidPolicy(1.0, 0.5, -1.0))
    lagging = torch.tensor([[[LN3, LN3], [1.0, -1.0]], [[-1.0, 1.0], [LN3 - 1, LN3 + 1]]])
    online = torch.zeros(2, 2, 2)
    loss = objective.loss(table(objective, online, STEP), lambda: table(objective, lagging, STEP), STEP)
    middle = 1 + 0.5 * math.log(0.75) + 0.5 * math.log(4)
    assert loss.target.item() == pytest.approx(middle)
    # Targets middle ± ½, each with weight ½ over both actions, all above the quantiles 0 at ¼ and ¾.
    above = [(0.5 * y * y if y < 1 else y - 0.5) for y in (middle - 0.5, middle + 0.5)]
    assert loss.per_decision.item() == pytest.approx(sum(0.5 * a * (0.25 + 0.75) for a in above))


def random_tables(objective: C51 | QRDQN, seed: int) -> tuple[Batch, StepValues, StepValues]:
    g = torch.Generator().manual_seed(seed)
    batch = batch_of([0, 1, 2, 3], [0, 2, 1, 0], [0.3, -0.2, 0.0, 0.1], [4, 5, 6, 7], [1.0, 0.9, 0.0, 1.0])
    online, lagging = (torch.randn(8, 3, objective.outputs, generator=g) for _ in range(2))
    return batch, table(objective, online, batch), table(objective, lagging, batch)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("follows", "expected"),
    [
        (Greedy(), DQN(Raw(), Vocabulary(), 0.9)),
        (Double(), DoubleDQN(Raw(), Vocabulary(), 0.9)),
        (PaidPolicy(0.2, 0.5, -0.4), Munchausen(0.2, 0.5, -0.4, 0.9)),
    ],
)
@pytest.mark.parametrize("make", [lambda f: C51(-20.0, 20.0, 41, 0.9, f), lambda f: QRDQN(7, 1.0, 0.9, f)])
def test_means_are_the_targets_of_expected_values(make: type, follows: Greedy, expected: Objective, seed: int) -> None:
    """Whatever is followed, the mean of the target distribution is the target that learns expected values alone."""
    objective = make(follows)
    batch, online, lagging = random_tables(objective, seed)
    loss, plain = (one.loss(online, lambda: lagging, batch) for one in (objective, expected))
    assert torch.allclose(loss.target, plain.target, atol=1e-5) and torch.allclose(loss.q, plain.q, atol=1e-5)
    assert torch.allclose(objective.bootstrap(online, batch), expected.bootstrap(online, batch))


@pytest.mark.parametrize("objective", [C51(-9.0, 9.0, 21, 0.9), QRDQN(7)])
def test_a_terminated_step_is_worth_its_reward(objective: C51 | QRDQN) -> None:
    batch, online, lagging = random_tables(objective, 0)
    loss = objective.loss(online, lambda: lagging, batch)
    assert loss.target[2].item() == pytest.approx(0.0, abs=1e-6)
    if isinstance(objective, QRDQN):
        theta = online.distribution(batch.actions)[2, 0]
        share = ((torch.arange(7) + 0.5) / 7 - (theta > 0).float()).abs()
        assert loss.per_decision[2].item() == pytest.approx(float((share * _huber(theta)).sum()))


def _huber(error: Tensor) -> Tensor:
    return torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5)


@pytest.mark.parametrize("follows", FOLLOWS)
@pytest.mark.parametrize("make", [lambda f: C51(-20.0, 20.0, 41, 0.9, f), lambda f: QRDQN(7, 1.0, 0.9, f)])
def test_the_target_has_no_gradient(make: type, follows: Greedy) -> None:
    objective = make(follows)
    batch, _, _ = random_tables(objective, 0)
    answers = torch.randn(8, 3, objective.outputs, requires_grad=True)
    own = table(objective, answers, batch)
    loss = objective.loss(own, lambda: own, batch)
    assert not loss.target.requires_grad and not loss.q.requires_grad
    loss.per_decision.sum().backward()
    assert answers.grad is not None and (answers.grad[4:] == 0).all()
    taken = answers.grad[torch.arange(4), batch.actions[:, 0]]
    assert (taken.abs().sum(-1) > 0).all()
    assert answers.grad.abs().sum().item() == pytest.approx(taken.abs().sum().item())


# A corridor of four states: left (0) and right (1), a reward behind its right end, a smaller one behind its left end.
STATES, GAMMA, UPDATES = 4, 0.8, 250
CORRIDOR = [
    (s, a, *((0.3, s, 0.0) if s + step < 0 else (1.0, s, 0.0) if s + step == STATES else (-0.05, s + step, 1.0)))
    for s in range(STATES)
    for a, step in ((0, -1), (1, 1))
]


def all_steps() -> Batch:
    before, actions, rewards, after, continues = (list(column) for column in zip(*CORRIDOR, strict=True))
    return batch_of(before, actions, rewards, after, continues)


def value_iteration(soft: PaidPolicy | None) -> np.ndarray:
    q = np.zeros((STATES, 2))
    for _ in range(300):
        if soft is None:
            value, bonus = q.max(1), np.zeros_like(q)
        else:
            value = soft.temperature * np.logaddexp.reduce(q / soft.temperature, axis=1)
            bonus = soft.alpha * np.clip(q - value[:, None], soft.least, 0)
        new = q.copy()
        for s, a, reward, after, continues in CORRIDOR:
            new[s, a] = reward + bonus[s, a] + GAMMA * continues * value[after]
        q = new
    return q


def trained(objective: C51 | QRDQN, network: Mlp, updates: int) -> ControlQ:
    torch.manual_seed(0)
    q = network.build(Spaces((), STATES, (2,)), objective)
    settings = Optimisation(learning_rate=1e-2, schedule="cosine", max_steps=updates, max_grad_norm=10.0)
    target = Target(q, TargetConfig(Polyak(0.2)), 0)
    learner = Learner(q, objective, target, RawRewards(), settings, Accelerator(cpu=True))
    batch = all_steps()
    for _ in range(updates):
        learner.update(batch)
    return q.eval()


@pytest.mark.parametrize("follows", FOLLOWS)
@pytest.mark.parametrize(
    "make", [lambda f: C51(-1.0, 2.0, 31, GAMMA, f), lambda f: QRDQN(16, 0.1, GAMMA, f)], ids=["c51", "qr"]
)
def test_learned_values_are_those_of_value_iteration(make: type, follows: Greedy) -> None:
    """QR: a mixture over actions has other quantiles than its parts, whose mean is not quite that of the mixture."""
    soft = follows if isinstance(follows, PaidPolicy) else None
    expected = value_iteration(soft)
    learned = trained(make(follows), Mlp(1, 32), UPDATES).values(torch.arange(STATES))
    assert np.abs(learned.detach().numpy() - expected).max() < 0.03
    assert np.abs(expected[:, 0] - expected[:, 1]).min() > 0.05


@pytest.mark.parametrize("network", [Mlp(1, 32, dueling=True, norm=True), Mlp(1, 32, dueling=True, noisy=0.1)])
def test_the_parts_of_rainbow_learn_them_too(network: Mlp) -> None:
    learned = trained(C51(-1.0, 2.0, 31, GAMMA, Double()), network, UPDATES).values(torch.arange(STATES))
    assert np.abs(learned.detach().numpy() - value_iteration(None)).max() < 0.06


def first_gradient(objective: C51 | QRDQN, batch: Batch) -> Tensor:
    """The gradient of an update on all parameters, read from Adam's first moment: a tenth of it."""
    torch.manual_seed(0)
    q = Mlp(1, 8).build(Spaces((), STATES, (2,)), objective)
    target = Target(q, TargetConfig(Polyak(0.2)), 0)
    settings = Optimisation(max_grad_norm=1e9)
    learner = Learner(q, objective, target, RawRewards(), settings, Accelerator(cpu=True))
    learner.update(batch)
    return torch.cat([learner.optimisers[0].state[p]["exp_avg"].flatten() * 10 for p in q.parameters()])


@pytest.mark.parametrize("objective", [C51(-1.0, 2.0, 11, GAMMA), QRDQN(5, 1.0, GAMMA, Double())])
def test_the_weights_of_prioritised_replay_count(objective: C51 | QRDQN) -> None:
    """The gradient is linear in the weights (some libraries forget them for distributions)."""
    batch = all_steps()
    weights = torch.rand(len(batch.actions))
    ours = first_gradient(objective, replace(batch, weight=weights))
    alone = torch.stack([first_gradient(objective, replace(batch, weight=row)) for row in torch.eye(len(weights))])
    assert torch.allclose(ours, weights @ alone, atol=1e-6) and ours.abs().max() > 1e-3


def test_priorities_are_differences_of_means() -> None:
    objective = C51(-1.0, 2.0, 11, GAMMA)
    torch.manual_seed(0)
    q = Mlp(1, 8).build(Spaces((), STATES, (2,)), objective)
    batch, target = all_steps(), Target(q, TargetConfig(Polyak(0.2)), 0)
    with torch.no_grad():
        values = q.values(torch.arange(STATES))
    expected = [
        abs(float(reward + GAMMA * continues * values[after].max() - values[s, a]))
        for s, a, reward, after, continues in CORRIDOR
    ]
    learner = Learner(q, objective, target, RawRewards(), Optimisation(), Accelerator(cpu=True))
    assert learner.update(batch).priority.tolist() == pytest.approx(expected, abs=1e-5)


def test_protocols_are_met_and_misuse_is_refused() -> None:
    objective = QRDQN(2)
    batch, online, _ = random_tables(objective, 0)
    assert isinstance(online, Distributions) and isinstance(objective, Objective)
    dense = Dense(torch.zeros(4, 2, 3))
    with pytest.raises(ConfigError, match="one number per action"):
        objective.loss(dense, lambda: dense, batch)
    for make, words in (
        (lambda: C51(0.0, 0.0), "low, high: got 0.0, 0.0"),
        (lambda: C51(0.0, float("inf")), "low, high"),
        (lambda: C51(0.0, 1.0, atoms=1), "atoms: got 1"),
        (lambda: C51(0.0, 1.0, gamma=1.1), "gamma: got 1.1"),
        (lambda: QRDQN(0), "quantiles: got 0"),
        (lambda: QRDQN(delta=0.0), "delta: got 0.0"),
        (lambda: PaidPolicy(0.0), "temperature, least: got 0.0"),
        (lambda: PaidPolicy(alpha=2.0), "alpha: got 2.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
