"""When target networks move, by how much, and how old they are."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import ConfigError
from tokenq.learning.sync import Adaptive, Clock, NoTarget, Pair, Periodic, Polyak, RandomPartial
from tokenq.learning.target import Sync, Target, TargetConfig

Toy = Callable[..., Any]


def run(target: Target, online: Any, first: int, last: int, step: float = 0.1) -> list[int]:
    """The updates after which the target moved."""
    moved = []
    for update in range(first, last + 1):
        online.wander(update, step)
        if target.follow(update):
            moved.append(update)
    return moved


@pytest.mark.parametrize(
    ("rule", "updates"),
    [
        (Periodic(7), [7, 14, 21, 28, 35]),
        (Periodic(1), list(range(1, 41))),
        (Adaptive(start=2, end=10, growth=2.0), [2, 6, 14, 24, 34]),
        (Adaptive(start=3, end=5, growth=1.5), [3, 7, 12, 17, 22, 27, 32, 37]),
        (Adaptive(start=4, end=9, growth=1.0), [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]),
        (Polyak(0.1), list(range(1, 41))),
        (NoTarget(), []),
        (RandomPartial(1.0, every=15), [15, 30]),
    ],
)
def test_exact_updates_at_which_a_rule_moves(rule: Sync, updates: list[int], toy: Toy) -> None:
    online = toy()
    assert run(Target(online, TargetConfig(rule), 0), online, 1, 40) == updates


@pytest.mark.parametrize(
    ("rule", "draws"),
    [
        (Periodic(7), [7, 14, 21, 28, 35]),
        (Periodic(1), list(range(1, 41))),
        (Adaptive(start=2, end=10, growth=2.0), [2, 6, 14, 24, 34]),
        (Adaptive(start=3, end=3, gap=0.5), list(range(1, 41))),
        (Polyak(0.1), list(range(1, 41))),
        (NoTarget(), list(range(1, 41))),
        (RandomPartial(0.3, every=15), [15, 30]),
    ],
)
def test_a_target_rests_until_its_rule_may_move_it_again(rule: Sync, draws: list[int], toy: Toy) -> None:
    online = toy()
    target = Target(online, TargetConfig(rule), 0)
    for update in range(max(draws)):
        assert target.rest(update) == min(draw for draw in draws if draw > update) - update
        target.follow(update + 1)


def test_a_wide_gap_triggers_a_copy_before_its_time(toy: Toy) -> None:
    """Every update adds one to each parameter of a network of ones: the gaps are 1/2, 2/3, 3/4, ... of its size."""
    online = toy()
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.fill_(1.0)
    target = Target(online, TargetConfig(Adaptive(start=5, end=5, growth=1.0, gap=0.7)), 0)
    gaps, moved = [], []
    for update in range(1, 15):
        with torch.no_grad():
            for parameter in online.parameters():
                parameter += 1.0
        gaps.append(target.gap())
        moved += [update] * target.follow(update)
    assert gaps[:3] == pytest.approx([1 / 2, 2 / 3, 3 / 4])
    # At 3 the gap (3/4), later the period: the network has become too large for five steps to matter.
    assert moved == [3, 8, 13]


def test_periods_grow_for_ever_without_overflow() -> None:
    rule = Adaptive(start=10, end=200, growth=10.0)
    assert [rule.period(syncs) for syncs in (0, 1, 2, 10**6)] == [10, 100, 200, 200]
    assert Adaptive(start=7, end=7, growth=3.0).period(10**6) == 7


@pytest.mark.parametrize("rule", [Polyak(1.0), Periodic(1)] + [
    RandomPartial(1.0, granularity=g) for g in ("element", "tensor", "layer")
])  # fmt: skip
def test_rules_that_copy_everything_every_time_agree(rule: Sync, toy: Toy) -> None:
    online = toy()
    target = Target(online, TargetConfig(rule), 0)
    run(target, online, 1, 3)
    assert target.lag == 0.0 and target.gap() < 1e-7
    pairs = zip(online.parameters(), target.network.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) and a is not b for a, b in pairs)


@pytest.mark.parametrize("granularity", ["element", "tensor", "layer"])
def test_expected_random_partial_copy_is_polyak(granularity: Any, toy: Toy) -> None:
    """The mean of 2,000 random targets lies within five standard errors of the average with τ = 0.3."""
    old, new = toy(0), toy(1)
    rule, generator = RandomPartial(0.3, granularity=granularity), torch.Generator().manual_seed(0)
    total = 0.0
    with torch.no_grad():
        for _ in range(2000):
            names = (name for name, _ in old.named_parameters())
            tensors = zip(names, new.parameters(), old.parameters(), strict=True)
            pairs = [Pair(name, online, lagging.clone()) for name, online, lagging in tensors]
            rule.move(Clock(1, 1, 0, lambda: 0.0), pairs, generator)
            total = total + torch.cat([pair.lagging.flatten() for pair in pairs])
        start, end = (torch.cat([p.flatten() for p in net.parameters()]) for net in (old, new))
    share, wide = (total / 2000 - start) / (end - start), (end - start).abs() > 0.01
    assert ((share[wide] - 0.3).abs() < 5 * (0.3 * 0.7 / 2000) ** 0.5).all()


def test_what_random_partial_copies_stands_together(toy: Toy) -> None:
    """Per layer a weight and its bias go together, per tensor not always; per element a tensor is a mixture."""
    together, mixed = {"tensor": set(), "layer": set()}, 0
    for seed in range(40):
        for granularity in ("element", "tensor", "layer"):
            online = toy()
            target = Target(online, TargetConfig(RandomPartial(0.5, granularity=granularity)), seed)
            online.wander(1)
            target.follow(1)
            equal = [(pair.online == pair.lagging).float().mean().item() for pair in target.pairs]
            if granularity == "element":
                mixed += 0.4 < equal[0] < 0.6
            else:
                assert set(equal) <= {0.0, 1.0}
                together[granularity].add(equal[0] == equal[1])
    assert together == {"tensor": {True, False}, "layer": {True}} and mixed == 40


@given(st.integers(1, 9))
def test_mean_lag_of_periodic_is_half_the_period_less_one(toy: Toy, every: int) -> None:
    online = toy()
    target = Target(online, TargetConfig(Periodic(every)), 0)
    lags = []
    for update in range(1, 3 * every + 1):
        target.follow(update)
        lags.append(target.lag)
    assert sum(lags) / len(lags) == pytest.approx((every - 1) / 2)
    assert lags[:every] == [*range(1, every), 0.0]


@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0])
def test_lag_of_polyak_tends_to_its_formula(tau: float, toy: Toy) -> None:
    online = toy()
    target = Target(online, TargetConfig(Polyak(tau)), 0)
    for update in range(1, 400):
        target.follow(update)
    assert target.lag == pytest.approx((1 - tau) / tau)


def test_lag_of_random_partial_elements_is_that_of_polyak(toy: Toy) -> None:
    online = toy()
    target = Target(online, TargetConfig(RandomPartial(0.2, granularity="element")), 0)
    lags = []
    for update in range(1, 301):
        target.follow(update)
        lags.append(target.lag)
    assert sum(lags[100:]) / 200 == pytest.approx((1 - 0.2) / 0.2, rel=0.05)


RULES = [
    Periodic(7),
    Polyak(0.1),
    RandomPartial(0.3, every=3, granularity="element"),
    RandomPartial(0.3),
    Adaptive(start=2, end=11, growth=1.7),
    Adaptive(start=30, end=30, growth=1.0, gap=0.2),
]


@pytest.mark.parametrize("pause", [5, 13])
@pytest.mark.parametrize("rule", RULES)
def test_saving_and_restoring_changes_no_period(rule: Sync, pause: int, toy: Toy) -> None:
    online = toy()
    straight = Target(online, TargetConfig(rule), 3)
    moved = run(straight, online, 1, 40, step=0.02)
    assert len(moved) > 2

    online = toy()
    first = Target(online, TargetConfig(rule), 3)
    before = run(first, online, 1, pause, step=0.02)
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    counters = json.loads(json.dumps(first.counters()))
    second = Target(online, TargetConfig(rule), 99)
    second.restore(tensors, counters)
    assert before + run(second, online, pause + 1, 40, step=0.02) == moved
    assert second.counters() == straight.counters()
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, second.tensors()[name])


def test_wrong_settings_say_what_was_expected() -> None:
    for make, words in (
        (lambda: Periodic(0), "every: got 0, expected an integer >= 1"),
        (lambda: Polyak(0.0), "tau: got 0.0"),
        (lambda: RandomPartial(1.5), "probability: got 1.5"),
        (lambda: Adaptive(start=20, end=10), "end: got 10, expected at least start"),
        (lambda: Adaptive(growth=0.5), "growth: got 0.5"),
        (lambda: Adaptive(gap=0.0), "gap: got 0.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
