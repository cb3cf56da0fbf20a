from dataclasses import MISSING
from typing import Any

import pytest

from tokenq.acting.explore import Greedy
from tokenq.config.control import ControlConfig
from tokenq.config.evaluate import EvaluateConfig
from tokenq.config.fields import docs_of, fields_of
from tokenq.config.generate import GenerateConfig
from tokenq.config.parse import dump, from_mapping, parse, to_mapping
from tokenq.config.supervised import PretrainConfig
from tokenq.config.train import ReplayConfig, TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.distributional import C51, QRDQN, PaidPolicy
from tokenq.learning.objectives import DQN, DoubleDQN, Plausible, Soft, Vocabulary
from tokenq.learning.sync import NoTarget
from tokenq.learning.values import Head, Raw
from tokenq.replay.samplers import Prioritised


def reachable(cls: type) -> set[type]:
    options = [field.options for field in fields_of(cls) if field.options]
    return {cls}.union(*(reachable(inner) for group in options for inner in group.classes.values()))


@pytest.mark.parametrize("cls", sorted(reachable(TrainConfig) | reachable(ControlConfig), key=str))
def test_every_field_has_help_and_its_default_reads_back(cls: type) -> None:
    assert {field.name for field in fields_of(cls)} <= docs_of(cls).keys()
    if all(field.default is not MISSING for field in fields_of(cls)):  # a classification must name its labels
        assert cls() == from_mapping(cls, to_mapping(cls()), "x")


@pytest.mark.parametrize("cls", [EvaluateConfig, GenerateConfig])
def test_the_other_commands_have_help(cls: type) -> None:
    assert {field.name for field in fields_of(cls)} <= docs_of(cls).keys()


def test_a_long_command_line() -> None:
    argv = "--objective dqn --objective.values raw --objective.over vocabulary --replay.sampler prioritised"
    config = parse(argv.split(), TrainConfig)
    assert config.objective == DQN(Raw(), Vocabulary()) and config.replay.sampler == Prioritised()
    assert from_mapping(TrainConfig, to_mapping(config), "x") == config
    assert "type: prioritised" in dump(config)


def test_values_of_the_default_objective() -> None:
    config = parse(["--objective.values", "head", "--objective.values.samples", "8"], TrainConfig)
    assert config.objective == Soft(Head(samples=8))


def test_the_maximum_runs_over_plausible_tokens_unless_told_otherwise() -> None:
    config = parse(["--objective", "double_dqn", "--objective.over.k", "4"], TrainConfig)
    assert config.objective == DoubleDQN(over=Plausible(k=4)) and config.objective.plausible == 4
    assert parse(["--objective", "dqn"], TrainConfig).objective == DQN(over=Plausible(k=8, probability=0.02))


def test_the_objective_of_an_agent_needs_its_name_alone() -> None:
    """The classes' own defaults are those of language models, an agent's are raw values over all actions."""
    for name, expected in (("dqn", DQN), ("double_dqn", DoubleDQN)):
        assert parse(["--objective", name], ControlConfig).objective == expected(Raw(), Vocabulary(), 0.99)
    config = parse(["--objective", "c51", "--objective.low", "0", "--objective.high", "9"], ControlConfig)
    assert config.objective == C51(0.0, 9.0) and from_mapping(ControlConfig, to_mapping(config), "x") == config
    whole = {"objective": {"type": "qr_dqn", "follows": {"type": "paid_policy", "alpha": 0.5}}}
    assert from_mapping(ControlConfig, whole, "x").objective == QRDQN(follows=PaidPolicy(alpha=0.5))
    assert parse(["--exploration", "greedy"], ControlConfig).exploration == Greedy()


def test_no_target_is_called_none() -> None:
    config = parse(["--target.sync", "none"], TrainConfig)
    assert config.target.sync == NoTarget() and to_mapping(config)["target"]["sync"] == {"type": "none"}


WRONG: list[tuple[type, dict[str, Any], str]] = [
    (TrainConfig, {"seed": -1}, "seed: got -1, expected an integer in 0.."),
    (TrainConfig, {"max_steps": 0}, "max_steps: got 0, expected an integer >= 1"),
    (TrainConfig, {"eval_steps": 0}, "eval_steps: got 0, expected an integer >= 1"),
    (TrainConfig, {"save_total_limit": 1}, "save_total_limit: got 1, expected an integer >= 2"),
    (TrainConfig, {"offline_steps": 401}, "offline_steps: got 401, expected at most max_steps (400)"),
    (TrainConfig, {"temperature": -1.0}, "temperature: got -1.0, expected a finite number > 0"),
    (TrainConfig, {"top_p": 0.0}, "top_p: got 0.0"),
    (TrainConfig, {"learning_rate": float("nan")}, "learning_rate: got nan, expected a finite number > 0"),
    (TrainConfig, {"max_grad_norm": float("inf")}, "max_grad_norm: got inf, expected a finite number > 0"),
    (TrainConfig, {"weight_decay": -0.1}, "weight_decay: got -0.1"),
    (TrainConfig, {"lora_r": 0}, "lora_r: got 0, expected an integer >= 1"),
    (
        TrainConfig,
        {"objective": {"type": "dqn", "over": "vocabulary"}},
        "objective.over: got vocabulary with calibrated",
    ),
    (
        TrainConfig,
        {"objective": {"type": "dqn", "over": {"k": 0}}},
        "objective.over.k: got 0, expected an integer >= 1",
    ),
    (TrainConfig, {"num_generations": 5}, "generation_batch_size: got 32, expected a multiple of num_generations (5)"),
    (TrainConfig, {"replay": {"capacity_tokens": 0}}, "replay.capacity_tokens: got 0, expected an integer >= 1"),
    (TrainConfig, {"replay": {"sampler": {"type": "recent", "half_life": 0}}}, "replay.sampler.half_life: got 0.0"),
    (
        TrainConfig,
        {"pretrain": {"architecture": {"width": 101}}},
        "pretrain.architecture.width: got 101, expected a multiple",
    ),
    (
        TrainConfig,
        {"pretrain": {"architecture": {"context": 1}}},
        "pretrain.architecture.context: got 1, expected an integer >= 2",
    ),
    (ControlConfig, {"objective": {"type": "c51", "low": 0}}, "objective.high: missing, expected float"),
    (ControlConfig, {"objective": {"type": "c51", "low": 2, "high": 1}}, "objective.low, high: got 2.0, 1.0"),
    (ControlConfig, {"network": {"noisy": -1}}, "network.noisy: got -1.0, expected a finite number > 0, or null"),
    (PretrainConfig, {"max_steps": -1}, "max_steps: got -1, expected an integer >= 0"),
    (ReplayConfig, {"capacity_episodes": 0}, "capacity_episodes: got 0"),
    (EvaluateConfig, {"runs": ["a"], "eval_samples": 0}, "eval_samples: got 0"),
    (EvaluateConfig, {"runs": ["a"], "temperature": 0}, "temperature: got 0.0, expected a finite number > 0"),
    (GenerateConfig, {"run": "a"}, "prompt: got none, expected at least one --prompt TEXT"),
    (GenerateConfig, {"run": "a", "prompt": ["x"], "top_k": -1}, "top_k: got -1"),
]


@pytest.mark.parametrize(("cls", "mapping", "message"), WRONG)
def test_a_value_out_of_range(cls: type, mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(cls, mapping, "config.yaml")
    assert str(caught.value).startswith(message)
