"""One update: weighting, accumulation, clipping, schedules, and what must not change."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tokenq.errors import ConfigError, Diverged
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import DQN, DoubleDQN, Plausible, Soft, Vocabulary
from tokenq.learning.offline import MC
from tokenq.learning.scaling import Standardise, WorstIsZero
from tokenq.learning.sync import NoTarget, Polyak
from tokenq.learning.target import HeadOnly, Target, TargetConfig
from tokenq.learning.values import Head, Logits, Raw
from tokenq.nets.language import ValueHead
from tokenq.types import Batch, Episode

LearnerFor = Callable[..., Learner]
Recorded = Callable[..., Batch]
Episodes = Callable[..., list[Episode]]

OBJECTIVES = [
    Soft(Logits(0.3), lam=0.8),
    Soft(Head(0.3, samples=0), lam=0.8),
    DQN(Raw(), Vocabulary()),
    DoubleDQN(Logits(0.3), over=Plausible(3)),
]


@pytest.fixture
def batch(learner_for: LearnerFor, random_episodes: Episodes, recorded: Recorded) -> Batch:
    """Eight episodes of unequal length, a third of the decisions unrated."""
    return recorded(learner_for(Soft()).network, random_episodes(8, unrated=0.3), plausible=3)


def first_gradient(learner: Learner, batch: Batch) -> dict[str, torch.Tensor]:
    """The (unclipped) gradient of an update, read from Adam's first moment: a tenth of it."""
    learner.update(batch)
    state = learner.optimisers[0].state
    return {name: state[p]["exp_avg"] * 10 for name, p in learner.network.named_parameters() if p in state}


def assert_near(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], factor: float = 1.0) -> None:
    assert ours.keys() == theirs.keys() and max(float(g.abs().max()) for g in theirs.values()) > 1e-3
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], factor * gradient, atol=1e-5), name


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulated_gradients_are_those_of_one_big_batch(
    objective: Soft, parts: int, batch: Batch, learner_for: LearnerFor
) -> None:
    whole, split = (learner_for(objective, max_grad_norm=1e9, microbatches=n) for n in (1, parts))
    assert_near(first_gradient(split, batch), first_gradient(whole, batch))
    assert split.update(batch).metrics == pytest.approx(whole.update(batch).metrics, abs=1e-4)


def test_importance_weights_scale_the_gradient(batch: Batch, learner_for: LearnerFor) -> None:
    plain = first_gradient(learner_for(Soft(), max_grad_norm=1e9), batch)
    halved = replace(batch, weight=torch.full((8,), 0.5))
    assert_near(first_gradient(learner_for(Soft(), max_grad_norm=1e9), halved), plain, 0.5)
    # With weight on the first episode alone, only its decisions count, and the mean is still over all.
    first = first_gradient(learner_for(Soft(), max_grad_norm=1e9), replace(batch, weight=torch.eye(8)[0]))
    alone = batch.map(lambda tensor: tensor[:1])
    share = float(alone.rated.sum() / batch.rated.sum())
    assert share < 1
    assert_near(first, first_gradient(learner_for(Soft(), max_grad_norm=1e9), alone), share)


def test_unrated_decisions_have_no_loss_and_no_priority(batch: Batch, learner_for: LearnerFor) -> None:
    rated = batch.rated.clone()
    rated[3] = False
    assert learner_for(Soft()).update(replace(batch, rated=rated)).priority[3] == 0.0
    nothing = replace(batch, rated=torch.zeros_like(batch.rated))
    learner = learner_for(Soft(Logits()), max_grad_norm=1e9)
    assert all((g == 0).all() for g in first_gradient(learner, nothing).values())


def test_priority_is_the_mean_error_of_rated_decisions(batch: Batch, learner_for: LearnerFor) -> None:
    learner = learner_for(Soft(lam=0.5))
    with torch.no_grad():
        loss = learner.objective.loss(learner.network(batch), lambda: learner.target_values(batch), batch)
    report = learner.update(batch)
    error = (loss.q - loss.target).abs()
    for row in range(8):
        rated = batch.rated[row]
        expected = float(error[row][rated].mean()) if rated.any() else 0.0
        assert float(report.priority[row]) == pytest.approx(expected, abs=1e-6)
    assert report.metrics["td_abs"] == pytest.approx(float(error[batch.rated].mean()), abs=1e-6)
    assert torch.equal(report.index, batch.index)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_diverged_is_raised_before_anything_changes(value: float, batch: Batch, learner_for: LearnerFor) -> None:
    learner = learner_for(Soft(Head()), target=TargetConfig(Polyak(0.5)))
    learner.update(batch)
    before = copy.deepcopy([learner.network.state_dict(), learner.optimisers[0].state_dict(), learner.target.tensors()])
    bad = replace(batch, rewards=torch.where(batch.rated, value, 0.0))
    with pytest.raises(Diverged, match="update 2: loss or gradient is not finite"):
        learner.update(bad)
    after = [learner.network.state_dict(), learner.optimisers[0].state_dict()["state"], learner.target.tensors()]
    flat = [torch.equal(a, after[0][name]) for name, a in before[0].items()]
    flat += [torch.equal(a, after[2][name]) for name, a in before[2].items()]
    flat += [torch.equal(s[k], after[1][i][k]) for i, s in before[1]["state"].items() for k in s]
    assert all(flat) and learner.update_count == 1
    assert learner.update(batch).update == 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_gradient_reaches_the_target_network(objective: Soft, batch: Batch, learner_for: LearnerFor) -> None:
    learner = learner_for(objective)
    loss = objective.loss(learner.network(batch), lambda: learner.target_values(batch), batch)
    assert not loss.target.requires_grad and not loss.q.requires_grad and loss.per_decision.requires_grad
    loss.per_decision.sum().backward()
    assert all(p.grad is None for p in learner.target.network.parameters())
    # What is shared between both is trained by the online loss alone: with and without sharing the same gradient.
    partly = learner_for(objective, target=TargetConfig(Polyak(0.1), HeadOnly()), max_grad_norm=1e9)
    assert_near(first_gradient(partly, batch), first_gradient(learner_for(objective, max_grad_norm=1e9), batch))


def test_bootstrapping_from_oneself_gives_no_gradient_either(batch: Batch, learner_for: LearnerFor) -> None:
    own = first_gradient(learner_for(Soft(), target=TargetConfig(NoTarget()), max_grad_norm=1e9), batch)
    assert_near(own, first_gradient(learner_for(Soft(), max_grad_norm=1e9), batch))


def test_value_head_never_trains_the_trunk(batch: Batch, learner_for: LearnerFor) -> None:
    """With a head that already has weights, the trunk's gradient is that of the advantage: the head's value is data."""
    learner = learner_for(Soft(Head(0.3, samples=0)))
    torch.nn.init.normal_(learner.network.value_head.outer.weight)
    value = learner.network(batch).state_value
    (trunk,) = torch.autograd.grad(value.sum(), [learner.network.readout.weight], allow_unused=True)
    assert trunk is None
    learner.network(batch).state_value.sum().backward()
    assert all(p.grad is None for p in learner.network.model.parameters())
    assert all(p.grad is not None for p in learner.network.value_head.parameters())


def test_muon_turns_matrices_of_layers_and_leaves_heads_and_the_rest_to_adamw(
    batch: Batch, learner_for: LearnerFor
) -> None:
    objective = Soft(Head(0.3, samples=0, learning_rate=0.5))
    learner = learner_for(objective, optim="muon", learning_rate=0.01, warmup_steps=2, weight_decay=0.0)
    own = dict(learner.network.named_parameters())
    held = [id(p) for o in learner.optimisers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, own.values()))
    before = {name: p.detach().clone() for name, p in own.items()}
    report = learner.update(batch)
    assert report.metrics["learning_rate"] == 0.005
    adamw, turning = learner.optimisers
    assert [group["lr"] for group in (*adamw.param_groups, *turning.param_groups)] == [0.005, 0.25, 0.005]
    still = set()
    for name, p in own.items():
        way = p.detach() - before[name]
        if ".h." in name and way.ndim == 2:
            sizes = torch.linalg.svdvals(way)[:3] / (0.005 * 0.2 * max(way.shape) ** 0.5)
            assert 0.5 < sizes.min() and sizes.max() < 1.4, name
        elif way.any():
            rate = 0.25 if name.startswith("value_head.") else 0.005
            assert way.abs().max() == pytest.approx(rate, rel=0.01), name
        else:
            still.add(name)
    assert {name.split(".")[0] for name in still} == {"value_head"}, "behind an output layer that is zero"


def test_muon_alone_where_nothing_else_is_trained_and_not_without_matrices(
    batch: Batch, learner_for: LearnerFor
) -> None:
    def learner(trained: str) -> Learner:
        whole = learner_for(Soft())
        for name, parameter in whole.network.named_parameters():
            parameter.requires_grad_(trained in name)
        settings = Optimisation(optim="muon")
        return Learner(whole.network, Soft(), whole.target, whole.scale, settings, whole.accelerator)

    only = learner("mlp.c_fc.weight")
    assert [type(o) for o in only.optimisers] == [torch.optim.Muon] and only.update(batch).update == 1
    with pytest.raises(ConfigError, match="no matrix of a layer is trained; expected adamw"):
        learner("wte.weight")


def test_head_has_its_own_rate_and_its_own_clip(batch: Batch, learner_for: LearnerFor) -> None:
    objective = Soft(Head(0.3, samples=0, learning_rate=0.5, max_grad_norm=1e-3))
    learner = learner_for(objective, learning_rate=1e-4, warmup_steps=2, max_grad_norm=1e-2)
    report = learner.update(batch)
    assert [group["lr"] for group in learner.optimisers[0].param_groups] == [0.5e-4, 0.25]
    assert report.metrics["learning_rate"] == 0.5e-4
    moments = {name: learner.optimisers[0].state[p]["exp_avg"] * 10 for name, p in learner.network.named_parameters()}
    head = torch.cat([m.flatten() for name, m in moments.items() if name.startswith("value_head.")])
    policy = torch.cat([m.flatten() for name, m in moments.items() if not name.startswith("value_head.")])
    assert float(head.norm()) == pytest.approx(1e-3, rel=1e-3)
    assert float(policy.norm()) == pytest.approx(1e-2, rel=1e-3)
    assert report.metrics["grad_norm/value_head"] > 1e-3 and report.metrics["grad_norm/trunk"] > 0


def test_a_head_that_nobody_trains_is_refused(learner_for: LearnerFor) -> None:
    learner = learner_for(Soft())
    learner.network.value_head = ValueHead(16)
    with pytest.raises(ConfigError, match="value head that this objective never trains"):
        Learner(
            learner.network,
            DQN(Raw(), Vocabulary()),
            learner.target,
            learner.scale,
            Optimisation(),
            learner.accelerator,
        )


def test_schedules_multiply() -> None:
    warm = Optimisation(schedule="linear", warmup_steps=4, max_steps=10)
    assert [warm.factor(u) for u in (0, 3, 5, 10)] == pytest.approx([0.25, 0.7, 0.5, 0.0])
    assert Optimisation(schedule="cosine", max_steps=60).factor(20) == pytest.approx(0.75)
    assert Optimisation().factor(10**6) == 1.0


def test_offset_is_added_once_where_an_episode_terminates(learner_for: LearnerFor, recorded: Recorded) -> None:
    """Returns 5 and 1 with the worst at zero: 5 becomes 4 at its end. The truncated episode waits for its end."""
    learner = learner_for(Soft(), scale=WorstIsZero())
    made = [
        Episode(np.arange(4), np.array([1, 2, 3]), np.array([2.0, np.nan, 3.0]), terminated=True),
        Episode(np.arange(2), np.array([1]), np.array([1.0]), terminated=True),
        Episode(np.arange(3), np.array([1, 2]), np.array([1.0, 3.0]), terminated=False),
    ]
    learner.observe(made)
    assert (learner.statistics.count, learner.statistics.smallest, learner.statistics.largest) == (3, 1.0, 5.0)
    batch = recorded(learner.network, made)
    assert learner.scaled(batch).rewards.tolist() == [[2.0, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, 3.0, 0.0]]
    learner.scale = Standardise()
    offset, scale = learner.scale.affine(learner.statistics)
    scaled = learner.scaled(batch).rewards
    assert float(scaled[0].sum()) == pytest.approx(5 * scale + offset)
    assert float(scaled[2].sum()) == pytest.approx(4 * scale)


def test_unrated_episodes_do_not_enter_the_statistics(learner_for: LearnerFor) -> None:
    learner = learner_for(Soft())
    learner.observe([Episode(np.arange(2), np.array([1]), np.array([np.nan]), terminated=True)])
    assert learner.statistics.count == 0


def test_target_follows_once_per_update(batch: Batch, learner_for: LearnerFor) -> None:
    learner = learner_for(Soft(), target=TargetConfig(Polyak(0.5)))
    assert [learner.update(batch).metrics["target_lag"] for _ in range(3)] == [0.5, 0.75, 0.875]
    assert isinstance(learner.target, Target) and learner.update_count == 3


def test_mc_counts_the_unseen_rest_as_the_scale_has_it(learner_for: LearnerFor, recorded: Recorded) -> None:
    """Returns −2 and −50: shifted by 50, 48 where the episode ended, and −2 where the rest is worth zero."""
    learner = learner_for(MC(gamma=1.0), scale=WorstIsZero())
    ended = Episode(np.arange(3), np.array([1, 2]), np.array([-1.0, -1.0]), terminated=True)
    worst = Episode(np.arange(2), np.array([1]), np.array([-50.0]), terminated=True)
    made = [ended, replace(ended, terminated=False), worst]
    learner.observe(made)
    assert learner.scaled(recorded(learner.network, made)).rewards.sum(1).tolist() == [48.0, -2.0, 0.0]
