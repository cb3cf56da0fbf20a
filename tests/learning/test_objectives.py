"""Targets of every objective against numbers worked out on paper."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError
from tokenq.learning.losses import Huber
from tokenq.learning.objectives import DQN, DoubleDQN, Munchausen, Plausible, Soft, Vocabulary
from tokenq.learning.values import ActionValues, Head, Logits, Raw
from tokenq.nets.action_values import Dense
from tokenq.types import Batch, References, Texts

BatchOf = Callable[..., Batch]

LN2, LN3 = math.log(2), math.log(3)
# Two actions; the policy takes the first with probability 3/4 in s_0 and the second with 3/4 in s_1.
ONLINE = torch.tensor([[[LN3, 0.0], [0.0, LN3], [0.0, 0.0]]])
LAGGING = torch.tensor([[[9.0, 9.0], [math.log(7), 0.0], [math.log(31), 0.0]]])


def two_decisions(batch_of: BatchOf, terminated: bool, rated: bool = True) -> Batch:
    """Actions 0 and 1, rewards 1 and 2, and a reference that tosses a coin (log-sum-exp ln 2, logits 0)."""
    return batch_of(
        [[0, 1]],
        rewards=[[1.0, 2.0 if rated else 0.0]],
        continues=[[1.0, 0.0 if terminated else 1.0]],
        rated=[[True, rated]],
        logsumexp=torch.full((1, 3), LN2),
    )


CUT = -0.125 * math.log(1.5)


@pytest.mark.parametrize(
    ("values", "q", "terminated", "truncated", "unrated"),
    [
        (Logits(0.5), [0.5 * LN3] * 2, [1.5 + 0.25 * LN2 + CUT, 2], [1.5 + 0.5 * LN2 + CUT, 2 + LN2], 1 + 0.5 * LN2),
        (Head(0.5), [0.1 + 0.5 * math.log(1.5), 0.2 + 0.5 * math.log(1.5)], [2 + CUT, 2], [2.375 + CUT, 3.5], 2.0),
    ],
    ids=["logits", "head"],
)
def test_soft_targets_by_hand(
    values: Logits | Head, q: list[float], terminated: list[float], truncated: list[float], unrated: float,
    batch_of: BatchOf,
) -> None:  # fmt: skip
    """β = γ = λ = ½ and ρ_1 = ln(¾) − ln(½) = ln 1.5, so that β·ρ_1 = ½·ln 1.5.

    Logits: Q(s_0, 0) = ½·(ln 3 − 0), Q(s_1, 1) the same. V̄(s_1) = ½·(ln 8 − ln 2) = ln 2, V̄(s_2) = ½·(ln 32 − ln 2) =
    2·ln 2. Terminated: G_1 = 2 and G_0 = 1 + ½·[½·ln 2 + ½·(2 − ½·ln 1.5)] = 1.5 + ¼·ln 2 − ⅛·ln 1.5. Truncated: G_1 =
    2 + ½·2·ln 2 and G_0 = 1 + ½·[½·ln 2 + ½·(2 + ln 2 − ½·ln 1.5)]. With the second decision unrated the trace is cut:
    G_0 = 1 + ½·ln 2.

    Head with V = 0.1, 0.2, 0.3 and V̄ = 1, 2, 3: Q = V + ½·ln 1.5. Terminated: G_0 = 1 + ½·[½·2 + ½·(2 − ½·ln 1.5)] =
    2 − ⅛·ln 1.5. Truncated: G_1 = 2 + ½·3 and G_0 = 1 + ½·[½·2 + ½·(3.5 − ½·ln 1.5)]. Unrated: G_0 = 1 + ½·2.
    """
    objective = Soft(values, gamma=0.5, lam=0.5)
    online = Dense(ONLINE, torch.tensor([[0.1, 0.2, 0.3]]))
    lagging = Dense(LAGGING, torch.tensor([[1.0, 2.0, 3.0]]))
    for batch, goal in (
        (two_decisions(batch_of, terminated=True), terminated),
        (two_decisions(batch_of, terminated=False), truncated),
    ):
        loss = objective.loss(online, lambda: lagging, batch)
        assert loss.q[0].tolist() == pytest.approx(q)
        assert loss.target[0].tolist() == pytest.approx(goal)
        assert loss.per_decision[0].tolist() == pytest.approx(
            [0.5 * (a - b) ** 2 for a, b in zip(q, goal, strict=True)]
        )
    loss = objective.loss(online, lambda: lagging, two_decisions(batch_of, terminated=True, rated=False))
    assert float(loss.target[0, 0]) == pytest.approx(unrated)


def three_actions(batch_of: BatchOf) -> tuple[Dense, Dense, Batch]:
    """The online network prefers action 2 in s_1, the lagging one action 0; plausible are actions 1 and 2."""
    online = Dense(torch.tensor([[[0.0, 0.5, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]))
    lagging = Dense(torch.tensor([[[0.0, 0.0, 0.0], [8.0, 6.0, 4.0], [1.0, 5.0, 2.0]]]))
    batch = batch_of(
        [[1, 2]],
        rewards=[[1.0, 0.0]],
        logit=[[0.25, 1.0]],
        plausible=torch.tensor([[[1, 2]] * 3]),
        plausible_logit=torch.tensor([[[0.0, 0.0], [1.0, 3.5], [2.0, 0.5]]]),
    )
    return online, lagging, batch


@pytest.mark.parametrize(
    ("objective", "q", "goal"),
    [
        # The best of all: 8 and 5. The online network's choices, 2 and (the first of equals) 0: 4 and 1.
        (DQN(Raw(), Vocabulary(), 0.5), [0.5, 3.0], [1 + 4.0, 2.5]),
        (DoubleDQN(Raw(), Vocabulary(), 0.5), [0.5, 3.0], [1 + 2.0, 0.5]),
        # Among 1 and 2: 6 and 5; chosen online: 2 (4) and 1 (5).
        (DQN(Raw(), Plausible(2, 0.0), 0.5), [0.5, 3.0], [1 + 3.0, 2.5]),
        (DoubleDQN(Raw(), Plausible(2, 0.0), 0.5), [0.5, 3.0], [1 + 2.0, 2.5]),
        # Less the reference, times ½: lagging (6−1, 4−3.5)/2 and (5−2, 2−0.5)/2; online in s_1 (2−1, 3−3.5)/2 chooses
        # 1, in s_2 (−2, −0.5)/2 chooses 2.
        (DQN(Logits(0.5), Plausible(2, 0.0), 0.5), [0.125, 1.0], [1 + 1.25, 0.75]),
        (DoubleDQN(Logits(0.5), Plausible(2, 0.0), 0.5), [0.125, 1.0], [1 + 1.25, 0.375]),
    ],
)
def test_dqn_targets_by_hand(objective: DQN | DoubleDQN, q: list[float], goal: list[float], batch_of: BatchOf) -> None:
    online, lagging, batch = three_actions(batch_of)
    loss = objective.loss(online, lambda: lagging, batch)
    assert loss.q[0].tolist() == pytest.approx(q)
    assert loss.target[0].tolist() == pytest.approx(goal)


def test_munchausen_targets_by_hand(batch_of: BatchOf) -> None:
    """τ = 1, l = −1; Q̄ = (ln 3, 0), (0, ln 3), (ln 7, 0): soft maxima ln 4, ln 4, ln 8.

    Action 0 in s_0 has log-probability ln 3 − ln 4, action 0 in s_1 has −ln 4 < −1, which is cut off.
    """
    lagging = Dense(torch.tensor([[[LN3, 0.0], [0.0, LN3], [math.log(7), 0.0]]]))
    batch = batch_of([[0, 0]], rewards=[[1.0, 2.0]])
    loss = Munchausen(1.0, 0.5, -1.0, 0.5).loss(Dense(ONLINE), lambda: lagging, batch)
    expected = [1 + 0.5 * (LN3 - math.log(4)) + 0.5 * math.log(4), 2 - 0.5 + 0.5 * math.log(8)]
    assert loss.target[0].tolist() == pytest.approx(expected)
    assert loss.q[0].tolist() == pytest.approx([LN3, 0.0])


def test_munchausen_without_bonus_and_temperature_is_dqn(batch_of: BatchOf) -> None:
    online, lagging, batch = three_actions(batch_of)
    cold = Munchausen(1e-4, 0.0, -1.0, 0.5).loss(online, lambda: lagging, batch)
    hard = DQN(Raw(), Vocabulary(), 0.5).loss(online, lambda: lagging, batch)
    assert torch.allclose(cold.target, hard.target, atol=1e-3)
    with pytest.raises(ConfigError, match="temperature, least: got 0"):
        Munchausen(0.0)


def test_an_error_may_count_in_a_straight_line(batch_of: BatchOf) -> None:
    online, lagging, batch = three_actions(batch_of)
    loss = DQN(Raw(), Vocabulary(), 0.5, Huber(2.0)).loss(online, lambda: lagging, batch)
    # Errors 0.5 − 5 and 3 − 2.5: beyond 2 a line of slope 2, within it a parabola.
    assert loss.per_decision[0].tolist() == [2 * (4.5 - 1), 0.5 * 0.5**2]
    with pytest.raises(ConfigError, match="delta: got 0"):
        Huber(0)


def test_tokens_that_the_reference_finds_improbable_do_not_count(batch_of: BatchOf) -> None:
    """The first candidate always counts, the second only where its probability reaches the bound."""
    _, lagging, batch = three_actions(batch_of)
    probability = torch.tensor([[[0.5, 0.5], [0.01, 0.9], [0.01, 0.01]]])
    said = replace(
        batch.reference, plausible_logit=probability.log(), plausible=torch.tensor([[[1, 2], [0, 2], [2, 1]]])
    )
    batch = replace(batch, record=said)
    goal = DQN(Raw(), Plausible(2, 0.02), 0.5).loss(lagging, lambda: lagging, batch).target
    # s_1: the first candidate (8) always counts and the probable one (4) too; s_2: 2 counts (2), 1 (5) does not.
    assert goal[0].tolist() == [1 + 4.0, 1.0]
    said = replace(said, plausible=torch.tensor([[[1, 2], [2, 0], [1, 2]]]), plausible_logit=probability.flip(-1).log())
    batch = replace(batch, record=said)
    goal = DQN(Raw(), Plausible(2, 0.02), 0.5).loss(lagging, lambda: lagging, batch).target
    # Now s_1's best (8) is improbable, which leaves 4.
    assert goal[0].tolist() == [1 + 2.0, 2.5]


@pytest.mark.parametrize("values", [Raw(), Logits(0.3)])
def test_double_equals_plain_for_equal_networks(values: Raw | Logits, batch_of: BatchOf) -> None:
    _, network, batch = three_actions(batch_of)
    for over in (Plausible(2), Plausible(2, 0.0)) + (() if isinstance(values, Logits) else (Vocabulary(),)):
        plain = DQN(values, over).loss(network, lambda: network, batch)
        double = DoubleDQN(values, over).loss(network, lambda: network, batch)
        assert torch.equal(plain.target, double.target) and torch.equal(plain.per_decision, double.per_decision)


@pytest.mark.parametrize("values", [Logits(0.5), Head(0.5)])
def test_lambda_one_with_terminated_episodes_never_calls_the_target(values: Logits | Head, batch_of: BatchOf) -> None:
    def never() -> ActionValues:
        raise AssertionError("asked for the target network")

    online = Dense(ONLINE, torch.zeros(1, 3))
    objective = Soft(values, lam=1.0)
    loss = objective.loss(online, never, two_decisions(batch_of, terminated=True))
    assert loss.target[0].tolist() == pytest.approx([1 + 2 - 0.5 * math.log(1.5), 2.0])
    for batch in (two_decisions(batch_of, terminated=False), two_decisions(batch_of, terminated=True, rated=False)):
        with pytest.raises(AssertionError, match="asked"):
            objective.loss(online, never, batch)


OBJECTIVES = [
    Soft(Logits(0.3), gamma=0.9, lam=0.7),
    Soft(Head(0.3), gamma=0.9, lam=0.7),
    DQN(Raw(), Vocabulary(), 0.9),
    DoubleDQN(Logits(0.3), Plausible(2, 0.0), 0.9),
]


@given(seed=st.integers(0, 10**6), extra=st.integers(1, 3))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_and_order_change_nothing(objective: Soft | DQN | DoubleDQN, seed: int, extra: int) -> None:
    g = torch.Generator().manual_seed(seed)
    b, n, a = 3, 4, 5
    rated = torch.rand(b, n, generator=g) < 0.7
    record = References(
        logit=torch.randn(b, n, generator=g),
        logsumexp=torch.randn(b, n + 1, generator=g),
        plausible=torch.randint(a, (b, n + 1, 2), generator=g),
        plausible_logit=torch.randn(b, n + 1, 2, generator=g),
    )
    none = torch.zeros(b, 0, dtype=torch.long)
    batch = Batch(
        inputs=Texts(
            torch.zeros(b, n + 1, dtype=torch.long),
            torch.ones(b, n + 1, dtype=torch.long),
            torch.arange(n + 1).repeat(b, 1),
            torch.arange(b).unsqueeze(1).repeat(1, n + 1),
            none,
            none,
        ),
        actions=torch.randint(a, (b, n), generator=g),
        rewards=torch.randn(b, n, generator=g) * rated,
        continues=torch.cat([torch.ones(b, n - 1), torch.randint(2, (b, 1), generator=g).float()], dim=1),
        decided=torch.ones(b, n, dtype=torch.bool),
        rated=rated,
        weight=torch.ones(b),
        index=torch.arange(b),
        record=record,
    )
    online, lagging = (
        Dense(torch.randn(b, n + 1, a, generator=g), torch.randn(b, n + 1, generator=g)) for _ in range(2)
    )
    expected = objective.loss(online, lambda: lagging, batch).per_decision[[2, 0, 1]]

    def padded(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[[2, 0, 1]], x.new_zeros(b, extra, *x.shape[2:])], dim=1) if x.dim() > 1 else x[[2, 0, 1]]

    longer = [Dense(padded(x.values), padded(x.state_value)) for x in (online, lagging)]
    loss = objective.loss(longer[0], lambda: longer[1], batch.map(padded))
    assert torch.allclose(loss.per_decision[:, :n][rated[[2, 0, 1]]], expected[rated[[2, 0, 1]]], atol=1e-5)


@pytest.mark.parametrize("values", [Logits(), Head()])
def test_discount_zero_learns_the_immediate_reward(values: Logits | Head, batch_of: BatchOf) -> None:
    online = Dense(ONLINE, torch.zeros(1, 3))
    batch = replace(two_decisions(batch_of, terminated=False), rewards=torch.tensor([[0.25, -1.0]]))
    loss = Soft(values, gamma=0.0, lam=0.9).loss(online, lambda: online, batch)
    assert loss.target[0].tolist() == [0.25, -1.0]


def test_wrong_settings_say_what_to_do() -> None:
    for make, words in (
        (lambda: Soft(gamma=1.5), "gamma: got 1.5"),
        (lambda: Soft(lam=-0.1), "lam: got -0.1"),
        (lambda: DQN(over=Vocabulary()), "over: got vocabulary"),
        (lambda: Plausible(k=0), "k: got 0"),
        (lambda: Plausible(probability=1.0), "probability: got 1.0"),
        (lambda: Logits(beta=0.0), "beta: got 0.0"),
        (lambda: Head(samples=-1), "samples: got -1"),
        (lambda: Head(learning_rate=0.0), "learning_rate, max_grad_norm"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
