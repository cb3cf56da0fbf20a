"""Every choice of the configuration trains: objectives, target networks, samplers, exploration, scales, schedules."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenq.config.parse import from_mapping
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.learner import Report
from tokenq.run.given import Given
from tokenq.run.session import Session
from tokenq.run.train import prepare
from tokenq.training import online as fresh_text

Run = Callable[..., tuple[Session, list[Report]]]

OBJECTIVES: dict[str, Any] = {
    "soft logits": {"type": "soft", "values": "logits", "lam": 0.5, "gamma": 0.9},
    "soft head": {"type": "soft", "values": {"type": "head", "samples": 2}},
    **{
        f"{name} {values} {over}": {"type": name, "values": values, "over": over}
        for name in ("dqn", "double_dqn")
        for values, over in (("raw", "vocabulary"), ("logits", "plausible"))
    },
}
RULES: dict[str, Any] = {
    "none": "none",
    "periodic": {"type": "periodic", "every": 2},
    "polyak": {"type": "polyak", "tau": 0.5},
    "random_partial": {"type": "random_partial", "probability": 0.5},
    "adaptive": {"type": "adaptive", "start": 1, "end": 2, "gap": 0.5},
}
SCOPES: dict[str, Any] = {
    "full": {"type": "full"},
    "adapter": {"type": "adapter"},
    "last_layers": {"type": "last_layers", "k": 1},
    "head": {"type": "head"},
}
LORA = {"use_peft": True, "lora_r": 2, "lora_alpha": 4, "lora_target_modules": ["q_proj", "v_proj"]}


@pytest.fixture
def updates(online: dict[str, Any], tmp_path: Path) -> Run:
    """Make the updates of a configuration, without what a run writes at its end."""
    number = itertools.count()

    def make(**changes: Any) -> tuple[Session, list[Report]]:
        mapping = online | {"output_dir": str(tmp_path / str(next(number)))} | changes
        config = from_mapping(TrainConfig, mapping, "config.yaml")
        session = prepare(config, Given())
        return session, [report for report, _ in _updates(session)]

    return make


def _updates(session: Session) -> Iterator[tuple[Report, Any]]:
    config, rollout = session.config, session.rollout
    assert rollout is not None
    return fresh_text(
        session.learner,
        session.replay,
        rollout,
        batch_size=config.per_device_train_batch_size * config.gradient_accumulation_steps,
        since=0,
        until=config.max_steps,
        steps_per_generation=config.steps_per_generation,
        rng=session.rng,
    )


@pytest.fixture(scope="module")
def llama(checkpoint: Callable[..., str]) -> str:
    return checkpoint("llama")


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_objective_with_every_target_network(updates: Run, llama: str, objective: str, scope: str) -> None:
    for rule, sync in RULES.items():
        session, reports = updates(
            model=llama,
            objective=OBJECTIVES[objective],
            target={"sync": sync, "scope": SCOPES[scope]},
            learning_rate=0.01,
            steps_per_generation=3,
            max_completion_length=3,
            **(LORA if scope == "adapter" else {}),
        )
        assert [report.update for report in reports] == [1, 2, 3], rule
        assert all(np.isfinite(list(report.metrics.values())).all() for report in reports), rule
        if "raw" not in objective:
            assert reports[0].metrics["q_mean"] == pytest.approx(0, abs=1e-6), rule
        assert reports[0].metrics["q_mean"] != reports[1].metrics["q_mean"], rule
        target = session.learner.target
        whole = 4 * sum(p.numel() for p in session.network.parameters())
        kind = "nothing" if target.bytes == 0 else "all" if target.bytes == whole else "some"
        assert kind == ("nothing" if rule == "none" else "all" if scope == "full" else "some"), rule
        assert all(not pair.lagging.requires_grad for pair in target.pairs)
        if rule in ("polyak", "periodic"):
            moved = {pair.name for pair in target.pairs if not torch.equal(pair.online, pair.lagging)}
            assert moved and reports[-1].metrics["target_lag"] == {"polyak": 0.875, "periodic": 1.0}[rule]


@pytest.mark.parametrize(
    "objective",
    [
        {"type": "soft", "lam": 1.0},
        {"type": "soft", "values": {"type": "head", "samples": 0}, "lam": 1.0},
        {"type": "dqn", "values": "raw", "over": {"type": "plausible", "k": 3, "probability": 0.0}},
        {"type": "double_dqn", "values": "raw", "over": {"type": "plausible", "k": 3}},
    ],
    ids=str,
)
def test_other_forms_of_the_objectives(updates: Run, objective: Any) -> None:
    _, reports = updates(objective=objective)
    assert all(np.isfinite(list(report.metrics.values())).all() for report in reports)
    assert len({report.metrics["loss"] for report in reports}) == 3


@pytest.mark.parametrize("part", ["element", "tensor", "layer"])
def test_parts_of_a_random_partial_target(updates: Run, part: str) -> None:
    rule = {"type": "random_partial", "probability": 0.5, "granularity": part}
    session, reports = updates(target={"sync": rule}, learning_rate=0.01, max_steps=1, max_completion_length=3)
    same = torch.cat([(pair.online == pair.lagging).flatten() for pair in session.learner.target.pairs])
    assert 0 < same.float().mean() < 1 and 0 < reports[0].metrics["target_lag"] < 1


def test_an_adapter_scope_needs_an_adapter(updates: Run) -> None:
    with pytest.raises(ConfigError, match="set use_peft to true or use full"):
        updates(target={"scope": "adapter"})


@pytest.mark.parametrize(
    "sampler", ["uniform", {"type": "recent", "half_life": 4}, {"type": "prioritised", "anneal": 3}], ids=str
)
def test_every_sampler(updates: Run, sampler: Any) -> None:
    session, reports = updates(replay={"sampler": sampler, "capacity_episodes": 12}, per_device_train_batch_size=6)
    assert len(session.replay) == 12 and session.replay.added == 24
    assert all(len(set(report.index.tolist())) == 6 for report in reports)
    assert min(reports[-1].index.tolist()) >= 12, "the oldest twelve are gone"


def test_epsilon_greedy_explores_less_and_less(updates: Run) -> None:
    exploration = {"type": "epsilon_greedy", "start": 1.0, "end": 0.0, "over": 2}
    session, _ = updates(exploration=exploration, num_generations=4, max_steps=3)
    stored = [episode.tokens.tolist() for episode in session.replay.episodes]
    groups = [{tuple(tokens) for tokens in stored[i : i + 4]} for i in range(0, 24, 4)]
    assert [len(group) for group in groups[:2]] == [4, 4], "random text"
    assert [len(group) for group in groups[4:]] == [1, 1], "greedy text is the same each time"


def test_narrow_sampling_is_greedy(updates: Run) -> None:
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        session, _ = updates(num_generations=8, max_steps=1, **narrow)
        assert len({tuple(episode.tokens) for episode in session.replay.episodes}) == 1


@pytest.mark.parametrize("scale", ["raw_rewards", "worst_is_zero", {"type": "standardise", "floor": 0.01}], ids=str)
def test_every_reward_scale(updates: Run, scale: Any) -> None:
    session, reports = updates(reward_scale=scale, max_steps=1)
    returns = np.array([episode.total_reward for episode in session.replay.episodes])
    learned = {
        "raw_rewards": returns,
        "worst_is_zero": returns - returns.min(),
        "standardise": (returns - returns.mean()) / returns.std(),
    }[scale if isinstance(scale, str) else scale["type"]]
    decisions = sum(len(episode.decisions) for episode in session.replay.episodes)
    assert returns.std() > 0
    assert reports[0].metrics["loss"] == pytest.approx(0.5 * (learned**2).sum() / decisions, rel=1e-5)


@pytest.mark.parametrize("values", ["logits", {"type": "head", "samples": 0}], ids=str)
def test_gradient_accumulation_changes_memory_and_nothing_else(updates: Run, values: Any) -> None:
    ends = []
    for size, steps in ((8, 1), (2, 4)):
        _, reports = updates(
            objective={"type": "soft", "values": values},
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
        )
        assert [len(report.index) for report in reports] == [8, 8, 8]
        ends.append(list(reports[0].metrics.values()))
    assert ends[0] == pytest.approx(ends[1], rel=1e-3, abs=1e-6)


def test_truncated_text_bootstraps_only_if_asked(updates: Run) -> None:
    for asked in (False, True):
        session, _ = updates(bootstrap_truncated=asked, max_completion_length=2, max_steps=1)
        whole = [episode.tokens[-1] == session.tokenizer.eos_token_id for episode in session.replay.episodes]
        assert not all(whole)
        assert [episode.terminated for episode in session.replay.episodes] == (whole if asked else [True] * len(whole))


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [0.5, 1, 1, 1]), ("linear", [0.5, 0.75, 0.5, 0.25]), ("cosine", [0.5, 0.853553, 0.5, 0.146447])],
)
def test_every_schedule(updates: Run, schedule: str, factors: list[float]) -> None:
    _, reports = updates(lr_scheduler_type=schedule, warmup_steps=2, max_steps=4, learning_rate=0.01)
    assert [report.metrics["learning_rate"] / 0.01 for report in reports] == pytest.approx(factors, abs=1e-6)


def test_several_updates_on_each_rollout(updates: Run) -> None:
    session, _ = updates(steps_per_generation=2, max_steps=5)
    assert session.replay.added == 3 * 8 and session.rollout is not None and session.rollout.reward_calls == 24
