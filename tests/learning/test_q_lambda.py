"""Q(λ): by hand, against a slow loop, and what it becomes at both ends of λ."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.learning.losses import Huber
from tokenq.learning.objectives import DQN, Vocabulary
from tokenq.learning.q_lambda import QLambda
from tokenq.learning.values import Raw
from tokenq.nets.step_values import StepValues
from tokenq.types import Batch, Observations


def answers(batch: Batch) -> StepValues:
    """Values of two actions, observed as they are."""
    return StepValues(lambda: batch.observations.before, lambda: batch.observations.after)


def sequence(terminated: list[int], ended: list[int]) -> Batch:
    """Three steps with rewards 1, 2, 4 and the greedy values 10, 20, 40 after them; always action 1, worth 0.5."""
    whole = torch.ones(1, 3, dtype=torch.bool)
    before = torch.tensor([[[9.0, 0.5]] * 3])
    after = torch.tensor([[[10.0, 0.0], [3.0, 20.0], [40.0, 8.0]]])
    over = torch.tensor([[n in ended for n in range(3)]])
    continues = torch.tensor([[0.0 if n in terminated else 1.0 for n in range(3)]])
    rewards, actions = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.long)
    return Batch(
        Observations(before, after, over), actions, rewards, continues, whole, whole, torch.ones(1), torch.arange(1)
    )


@pytest.mark.parametrize(
    ("terminated", "ended", "expected"),
    [
        # γ = λ = ½, backwards: 4 + ½·40; 2 + ½·(10 + 12); 1 + ½·(5 + 6.5).
        ([], [], [6.75, 13.0, 24.0]),
        # The second step terminated: 2; 1 + ½·(5 + 1).
        ([1], [1], [4.0, 2.0, 24.0]),
        # It was cut off: 2 + ½·20, and nothing of the next episode; 1 + ½·(5 + 6).
        ([], [1], [6.5, 12.0, 24.0]),
        # The last step terminated: 4; 2 + ½·(10 + 2); 1 + ½·(5 + 4).
        ([2], [2], [5.5, 8.0, 4.0]),
        # The last step was cut off, as if the sequence ended there.
        ([], [2], [6.75, 13.0, 24.0]),
    ],
)
def test_returns_by_hand(terminated: list[int], ended: list[int], expected: list[float]) -> None:
    batch = sequence(terminated, ended)
    loss = QLambda(0.5, 0.5).loss(answers(batch), lambda: answers(batch), batch)
    assert loss.target.tolist() == [expected] and loss.q.tolist() == [[0.5] * 3]
    assert loss.per_decision[0].tolist() == pytest.approx([0.5 * (0.5 - goal) ** 2 for goal in expected])
    straight = QLambda(0.5, 0.5, Huber(1.0)).loss(answers(batch), lambda: answers(batch), batch)
    assert straight.per_decision[0].tolist() == pytest.approx([goal - 0.5 - 0.5 for goal in expected])


def test_lambda_one_is_the_return_of_the_data() -> None:
    batch = sequence([2], [2])
    loss = QLambda(0.5, 1.0).loss(answers(batch), lambda: answers(batch), batch)
    assert loss.target.tolist() == [[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]]


def test_the_greedy_values_are_those_of_the_target_network() -> None:
    batch = sequence([], [])
    other = replace(batch, inputs=replace(batch.observations, after=batch.observations.after * 2))
    loss = QLambda(0.5, 0.0).loss(answers(batch), lambda: answers(other), batch)
    assert loss.target.tolist() == [[1 + 10.0, 2 + 20.0, 4 + 40.0]]
    assert QLambda().bootstrap(answers(batch), batch).tolist() == [[9.0, 9.0, 9.0, 40.0]]


def random_batch(seed: int, b: int, n: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    terminated = torch.rand(b, n, generator=g) < 0.2
    truncated = torch.rand(b, n, generator=g) < 0.2
    seen = Observations(torch.randn(b, n, 3, generator=g), torch.randn(b, n, 3, generator=g), terminated | truncated)
    whole = torch.ones(b, n, dtype=torch.bool)
    actions, rewards = torch.randint(3, (b, n), generator=g), torch.randn(b, n, generator=g)
    return Batch(seen, actions, rewards, 1 - terminated.float(), whole, whole, torch.ones(b), torch.arange(b))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_any_sequence_equals_a_slow_sum(seed: int, n: int, gamma: float, lam: float) -> None:
    """Σ over k of (1 − λ)·λ^k times the return of k + 1 steps, the last possible one with all the weight left."""
    batch = random_batch(seed, 2, n)
    goal = QLambda(gamma, lam).loss(answers(batch), lambda: answers(batch), batch).target
    ended, best = batch.observations.ended, batch.observations.after.max(-1).values
    assert ended is not None
    for b in range(2):
        for t in range(n):
            expected, weight, rewards = 0.0, 1.0, 0.0
            for k in range(t, n):
                rewards += gamma ** (k - t) * float(batch.rewards[b, k])
                bootstrap = gamma ** (k - t + 1) * float(batch.continues[b, k] * best[b, k])
                last = k == n - 1 or bool(ended[b, k])
                expected += weight * (1.0 if last else 1 - lam) * (rewards + bootstrap)
                weight *= lam
                if last:
                    break
            assert float(goal[b, t]) == pytest.approx(expected, abs=1e-4)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5))
def test_lambda_zero_is_dqn(seed: int, n: int) -> None:
    batch = random_batch(seed, 3, n)
    ours = QLambda(0.9, 0.0).loss(answers(batch), lambda: answers(batch), batch)
    theirs = DQN(Raw(), Vocabulary(), 0.9).loss(answers(batch), lambda: answers(batch), batch)
    assert torch.allclose(ours.target, theirs.target, atol=1e-6)
    assert torch.allclose(ours.per_decision, theirs.per_decision, atol=1e-6)


def test_a_single_step_needs_no_mark_and_a_sequence_does() -> None:
    batch = random_batch(0, 4, 1)
    unmarked = replace(batch, inputs=replace(batch.observations, ended=None))
    objective = QLambda(0.9, 0.8)
    marked = objective.loss(answers(batch), lambda: answers(batch), batch)
    assert torch.equal(objective.loss(answers(unmarked), lambda: answers(unmarked), unmarked).target, marked.target)
    longer = sequence([], [])
    longer = replace(longer, inputs=replace(longer.observations, ended=None))
    with pytest.raises(DataError, match=r"do not say where episodes ended; fill Observations\.ended"):
        objective.loss(answers(longer), lambda: answers(longer), longer)


@pytest.mark.parametrize("name", ["gamma", "lam"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: got 1.5, expected a number in"):
        QLambda(**{name: 1.5})
