"""Objectives for logged text: by hand, and on a world whose exact values are known."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import Plausible, Soft, Vocabulary
from tokenq.learning.offline import CQL, ILQL, MC, Guided
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Polyak
from tokenq.learning.target import HeadOnly, Target, TargetConfig
from tokenq.learning.values import Afterstates, Guidance, Heads
from tokenq.nets import q_heads
from tokenq.nets.action_values import Dense
from tokenq.nets.language import LanguageQ
from tokenq.types import Batch, Episode

BatchOf = Callable[..., Batch]
LN2, LN3 = math.log(2), math.log(3)
COIN = Dense(torch.zeros(1, 3, 2))


def answers(*heads: list[list[float]], value: list[float] | None = None) -> q_heads.Guided:
    """A policy that tosses a coin in three states, heads with these values, and V."""
    dense = tuple(Dense(torch.tensor([head]).float()) for head in heads)
    state_value = None if value is None else torch.tensor([value]).float()
    return q_heads.Guided(COIN, dense, torch.ones(1, 3, dtype=torch.bool), 1.0, 0, state_value)


def two_decisions(batch_of: BatchOf, terminated: bool = True, rated: bool = True) -> Batch:
    """Actions 0 and 1, rewards 1 and 2."""
    return batch_of(
        [[0, 1]],
        rewards=[[1.0, 2.0 if rated else 0.0]],
        continues=[[1.0, 0.0 if terminated else 1.0]],
        rated=[[True, rated]],
    )


def half(x: float) -> float:
    return 0.5 * x**2


def test_ilql_by_hand(batch_of: BatchOf) -> None:
    """γ = ½, τ = 0.8, α = 0.1, w = 2; V = 0.1, 0.2, 0.3, so y = 1 + ½·0.2 and 2, or 2 + ½·0.3 where it goes on.

    The heads say ln 3 and 0 of the taken actions, of which their softmax takes ¾ and ½. The lagging ones say at least
    0.5 and 0.1: V is 0.4 too low in s_0 and 0.1 too high in s_1.
    """
    objective = ILQL(gamma=0.5, tau=0.8, conservative=0.1, cloning=2.0)
    online = answers([[LN3, 0], [0, LN3], [9, 9]], [[0, 0], [0, 0], [9, 9]], value=[0.1, 0.2, 0.3])
    lagging = answers([[0.5, 9], [9, 0.7], [9, 9]], [[0.6, 9], [9, 0.1], [9, 9]], value=[9, 9, 9])
    constant = 0.1 * (-math.log(0.75) + LN2) + 2 * LN2
    for terminated, goals in ((True, [1.1, 2.0]), (False, [1.1, 2.15])):
        loss = objective.loss(online, lambda: lagging, two_decisions(batch_of, terminated))
        assert loss.q[0].tolist() == [0.0, 0.0]
        assert loss.target[0].tolist() == pytest.approx(goals)
        values = [0.8 * 0.4**2, 0.2 * 0.1**2]
        expected = [half(LN3 - g) + half(g) + v + constant for g, v in zip(goals, values, strict=True)]
        assert loss.per_decision[0].tolist() == pytest.approx(expected)
    assert objective.bootstrap(online, two_decisions(batch_of))[0].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_cql_by_hand(batch_of: BatchOf) -> None:
    """γ = ½. In s_1 the online heads like 1 and 0, of which the lagging ones say 5 and 4, the least 4; in s_2 1 and 1,
    6 and 8, the least 6. So y = 1 + ½·4 and 2, or 2 + ½·6 where it goes on.
    """
    objective = CQL(Heads(count=2), gamma=0.5, conservative=0.0, cloning=0.0)
    online = answers([[1, 9], [0, 1], [0, 1]], [[3, 9], [5, 2], [0, 1]])
    lagging = answers([[9, 9], [9, 5], [0, 6]], [[9, 9], [4, 9], [0, 8]])
    for terminated, goals in ((True, [3.0, 2.0]), (False, [3.0, 5.0])):
        loss = objective.loss(online, lambda: lagging, two_decisions(batch_of, terminated))
        assert loss.q[0].tolist() == [1.0, 1.0]
        assert loss.target[0].tolist() == goals
        expected = [half(1 - goals[0]) + half(3 - goals[0]), half(1 - goals[1]) + half(2 - goals[1])]
        assert loss.per_decision[0].tolist() == pytest.approx(expected)
    assert objective.bootstrap(online, two_decisions(batch_of))[0].tolist() == [9.0, 1.0, 1.0]


def test_cql_over_plausible_tokens_leaves_out_the_others(batch_of: BatchOf) -> None:
    objective = CQL(over=Plausible(k=1), gamma=0.5, conservative=0.0, cloning=0.0)
    batch = replace(two_decisions(batch_of), record=batch_of([[0, 1]], k=1).record)
    lagging = answers([[9, 9], [4, 5], [9, 9]])
    assert objective.plausible == 1 and CQL().plausible == 0
    assert objective.loss(lagging, lambda: lagging, batch).target[0].tolist() == [3.0, 2.0]


def test_mc_by_hand(batch_of: BatchOf) -> None:
    """γ = ½: G = 1 + ½·2 and 2, cut off or not. Unrated at the end: 1 + ½·5, what the lagging head says of a_1."""
    objective = MC(gamma=0.5, conservative=0.0, cloning=0.0)
    online, lagging = answers([[1, 9], [9, 3], [9, 9]]), answers([[9, 9], [9, 5], [9, 9]])
    for terminated in (True, False):
        loss = objective.loss(online, lambda: lagging, two_decisions(batch_of, terminated))
        assert loss.q[0].tolist() == [1.0, 3.0] and loss.target[0].tolist() == [2.0, 2.0]
        assert loss.per_decision[0].tolist() == pytest.approx([half(1), half(1)])
    loss = objective.loss(online, lambda: lagging, two_decisions(batch_of, rated=False))
    assert float(loss.target[0, 0]) == 3.5
    assert objective.bootstrap(online, two_decisions(batch_of))[0].tolist() == [1.0, 3.0, 0.0]


def test_mc_of_afterstates_by_hand(batch_of: BatchOf) -> None:
    """Two heads foresee with w = 0.3: the first one gives the second of two actions ¾, the other has nothing to tell.

    The head says 3 and 1 where 2 follows both times; cloning is the toss of a coin.
    """
    judge = Dense(torch.tensor([[[3.0, 0], [0, 1.0], [0, 0]]]))
    ahead = (Dense(torch.tensor([[[0, LN3], [9.0, 0], [0, 0]]])),) * 2
    online = q_heads.Guided(COIN, (judge,), torch.ones(1, 3, dtype=torch.bool), 1.0, 1, ahead=ahead)
    objective = MC(
        values=Afterstates(ahead=2, foresight=0.3, samples=0),
        guidance=Guidance(top_k=1),
        gamma=1.0,
        conservative=0.0,
        cloning=0.5,
    )
    batch = batch_of([[0, 1]], rewards=[[0.0, 2.0]], continues=[[1.0, 0.0]])
    loss = objective.loss(online, lambda: online, batch)
    assert loss.q[0].tolist() == [3.0, 1.0] and loss.target[0].tolist() == [2.0, 2.0]
    foreseen = -0.3 * math.log(0.75)
    assert loss.per_decision[0].tolist() == pytest.approx([half(1) + 0.5 * LN2 + foreseen, half(1) + 0.5 * LN2])


@pytest.mark.parametrize("make", [ILQL, CQL, MC])
def test_noise_leaves_out_of_cloning_what_was_drawn_blindly(make: Callable[..., Guided], batch_of: BatchOf) -> None:
    """The policy gives both actions ¾; if half of the log is the toss of a coin, they are ¾/2 + ½/2 of it."""
    policy = Dense(torch.tensor([[[LN3, 0], [0, LN3], [0, 0]]]))
    heads = (Dense(torch.zeros(1, 3, 2)),)
    online = q_heads.Guided(policy, heads, torch.ones(1, 3, dtype=torch.bool), 1.0, 0, torch.zeros(1, 3))
    objective = make(conservative=0.0, cloning=2.0, noise=0.5)
    loss = objective.loss(online, lambda: online, batch_of([[0, 1]], rewards=[[0.0, 0.0]], continues=[[1.0, 0.0]]))
    assert loss.per_decision[0].tolist() == pytest.approx([-2 * math.log(5 / 8)] * 2)


def test_mc_asks_the_target_network_only_where_a_rating_is_missing(batch_of: BatchOf) -> None:
    def never() -> q_heads.Guided:
        raise AssertionError("nothing bootstraps")

    padded = batch_of([[0, 1]], decided=[[True, False]], rated=[[True, False]], rewards=[[3.0, 0.0]])
    assert float(MC().loss(answers([[0, 0]] * 3), never, padded).target[0, 0]) == 3.0


def test_the_conservative_term_moves_the_solution_as_the_equation_says(batch_of: BatchOf) -> None:
    """Each of two actions half the time: ½·(Q_a − r_a) + α·(σ_a − ½) = 0. With Q = ln 3, 0 and so σ = ¾, ¼, the rewards
    that belong to it are r = ln 3 + α/2 and −α/2.
    """
    alpha = 0.3
    objective = MC(conservative=alpha, cloning=0.0, gamma=1.0)
    q = torch.tensor([[[LN3, 0.0], [0.0, 0.0]]] * 2, requires_grad=True)
    batch = batch_of([[0], [1]], rewards=[[LN3 + alpha / 2], [-alpha / 2]], continues=[[0.0], [0.0]])
    coin = Dense(torch.zeros(2, 2, 2))
    online = q_heads.Guided(coin, (Dense(q),), torch.ones(2, 2, dtype=torch.bool), 1.0, 0)
    objective.loss(online, lambda: online, batch).per_decision.mean().backward()
    assert q.grad is not None
    assert q.grad[:, 0].sum(0).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ILQL(tau=1.0),
        lambda: ILQL(gamma=1.1),
        lambda: CQL(conservative=-0.1),
        lambda: MC(cloning=float("inf")),
        lambda: MC(noise=1.0),
        lambda: MC(noise=0.5, cloning=0.0),
        lambda: MC(values=Afterstates(), guidance=Guidance(top_k=2)),
        lambda: MC(values=Afterstates(), conservative=0.0),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()


def test_a_network_without_heads_is_refused(batch_of: BatchOf) -> None:
    with pytest.raises(ConfigError, match="without such heads"):
        MC().loss(COIN, lambda: COIN, two_decisions(batch_of))
    with pytest.raises(ConfigError, match="without a head for V"):
        ILQL().loss(answers([[0, 0]] * 3), lambda: COIN, two_decisions(batch_of))


# The world of test_oracle.py: three letters and an end token, at most two tokens after the prompt.
END, LENGTH, GAMMA = 3, 2, 0.9
Text = tuple[int, ...]
TEXTS = [(END,), *((a, b) for a, b in itertools.product(range(3), range(4)))]
REWARDS = dict(zip(TEXTS, np.random.default_rng(8).uniform(-1, 1, len(TEXTS)), strict=True))
Backup = Callable[[np.ndarray, np.ndarray], float]


def tau_expectile(tau: float) -> Backup:
    """By bisection of its own equation, Σ w·|τ − 1(q < v)|·(q − v) = 0."""

    def value(q: np.ndarray, weight: np.ndarray) -> float:
        low, high = q.min(), q.max()
        for _ in range(60):
            middle = (low + high) / 2
            slope = (weight * np.where(q < middle, 1 - tau, tau) * (q - middle)).sum()
            low, high = (middle, high) if slope > 0 else (low, middle)
        return float(low)

    return value


def exact(backup: Backup) -> dict[Text, float]:
    """Q of every token after every text, where a state's value is `backup` of its tokens' values and frequencies."""
    q = {text: REWARDS[text] for text in TEXTS}
    for a in range(3):
        q[(a,)] = GAMMA * backup(np.array([q[(a, b)] for b in range(4)]), np.ones(4))
    return q


def mean(q: np.ndarray, weight: np.ndarray) -> float:
    return float((q * weight).sum() / weight.sum())


def maximum(q: np.ndarray, weight: np.ndarray) -> float:
    return float(q.max())


@given(st.floats(0.01, 0.99))
def test_the_reference_expectile_lies_where_the_mean_and_the_maximum_say(tau: float) -> None:
    q, weight = np.array([0.0, 1.0]), np.ones(2)
    assert tau_expectile(tau)(q, weight) == pytest.approx(tau)
    assert tau_expectile(0.5)(q, weight) == pytest.approx(mean(q, weight))


FREE = {"gamma": GAMMA, "conservative": 0.0}


@pytest.mark.parametrize(
    ("objective", "backup"),
    [
        (ILQL(Heads(2, learning_rate=1e-2), tau=0.9, **FREE), tau_expectile(0.9)),
        (CQL(Heads(1, learning_rate=1e-2), over=Vocabulary(), **FREE), maximum),
        (MC(Heads(1, learning_rate=1e-2), **FREE), mean),
    ],
    ids=["ilql", "cql", "mc"],
)
def test_learned_values_and_the_cloned_policy_are_the_exact_ones(
    objective: Guided,
    backup: Backup,
    tiny: Callable[..., PreTrainedModel],
    recorded: Callable[..., Batch],
    every_text: Callable[..., list[Episode]],
) -> None:
    updates = 200
    model = tiny("gpt2", vocabulary=4, hidden_size=32, num_hidden_layers=1, initializer_range=0.1)
    torch.manual_seed(0)
    heads = q_heads.QHeads(32, 4, objective.values.count, objective.has_value)
    network = LanguageQ(model, q_heads=heads)
    settings = Optimisation(learning_rate=5e-3, schedule="cosine", warmup_steps=10, max_steps=updates)
    target = Target(network, TargetConfig(Polyak(0.2), HeadOnly()), 0)
    learner = Learner(network, objective, target, RawRewards(), settings, Accelerator(cpu=True))
    episodes = every_text(REWARDS)
    batch = recorded(LanguageQ(model), episodes)
    for _ in range(updates):
        learner.update(batch)
    with torch.no_grad():
        found = network(batch)
        q, log = objective.values.q(found, batch), found.policy.log_probability(batch.actions, 0)
    expected = exact(backup)
    places = [(row, n, text[: n + 1]) for row, text in enumerate(TEXTS) for n in range(len(text))]
    assert max(abs(float(q[row, n]) - expected[before]) for row, n, before in places) < 0.05
    assert np.ptp([expected[(a,)] for a in range(3)]) > 0.2, "equal values would prove nothing"
    taken = Counter(before for *_, before in places)
    passed = Counter(before[:-1] for *_, before in places)
    for row, n, before in places:
        assert float(log[row, n].exp()) == pytest.approx(taken[before] / passed[before[:-1]], abs=0.05)


def test_heads_have_their_own_rate_and_their_own_clip(
    learner_for: Callable[..., Learner], random_episodes: Callable[..., list[Episode]], recorded: Callable[..., Batch]
) -> None:
    objective = ILQL(Heads(samples=0, learning_rate=0.5, max_grad_norm=1e-3))
    learner = learner_for(objective, learning_rate=1e-4, warmup_steps=2, max_grad_norm=1e-2)
    report = learner.update(recorded(LanguageQ(learner.network.model), random_episodes(6)))
    assert [group["lr"] for group in learner.optimisers[0].param_groups] == [0.5e-4, 0.25]
    moments = {name: learner.optimisers[0].state[p]["exp_avg"] * 10 for name, p in learner.network.named_parameters()}
    heads = torch.cat([m.flatten() for name, m in moments.items() if name.startswith("q_heads.")])
    policy = torch.cat([m.flatten() for name, m in moments.items() if not name.startswith("q_heads.")])
    assert float(heads.norm()) == pytest.approx(1e-3, rel=1e-3)
    assert float(policy.norm()) == pytest.approx(1e-2, rel=1e-3)
    assert report.metrics["grad_norm/q_heads"] > 1e-3


def test_soft_has_nothing_to_do_with_heads() -> None:
    assert not isinstance(Soft(), Guided)
