"""Games through the commands: logs first, then played; killed and resumed; by a factory of the user's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokenq import QTrainer
from tokenq.config.evaluate import EvaluateConfig
from tokenq.config.supervised import FinetuneConfig, PretrainConfig
from tokenq.config.train import TrainConfig
from tokenq.envs.maze import Maze
from tokenq.envs.wordle import Wordle
from tokenq.errors import ConfigError
from tokenq.learning.objectives import Soft
from tokenq.learning.scaling import PerPrompt
from tokenq.learning.values import Head
from tokenq.nets.architectures import RotaryTransformer
from tokenq.nets.tokenizers import Words
from tokenq.run.evaluate import evaluate
from tokenq.run.train import train

UPDATES = 8
PLAYED = TrainConfig(
    task=Wordle(games=20, spelled=False),
    pretrain=PretrainConfig(
        max_steps=0,
        architecture=RotaryTransformer(layers=1, width=16, heads=2, context=256),
        tokenizer=Words(),
    ),
    finetune=FinetuneConfig(max_steps=3, per_device_train_batch_size=4),
    objective=Soft(values=Head(samples=2), gamma=0.9),
    clock="turn",
    max_steps=UPDATES,
    offline_steps=4,
    per_device_train_batch_size=4,
    generation_batch_size=4,
    max_completion_length=3,
    save_steps=3,
    logging_steps=1,
    eval_samples=4,
)
FACTORY = """
class Doors:
    def __init__(self, right="b"):
        self.right = right

    def reset(self, *, seed=None, **row):
        return "which door", {}

    def step(self, action):
        return "", float(action == self.right), True, False, {}


class Wall:
    pass
"""


def test_a_killed_run_of_games_leaves_the_same_bytes(
    tmp_path: Path, killed_at: Callable[..., bool], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = (replace(PLAYED, output_dir=str(tmp_path / name)) for name in ("whole", "broken"))
    summary = train(whole)
    assert killed_at(train, broken, 6)
    train(replace(broken, resume=True))
    for name in ("model/model.safetensors", "completions"):
        ours, theirs = tmp_path / "whole" / name, tmp_path / "broken" / name
        pairs = [(ours, theirs)] if ours.is_file() else [(f, theirs / f.name) for f in sorted(ours.iterdir())]
        assert pairs and all(a.read_bytes() == b.read_bytes() for a, b in pairs)
    assert summary.reward_calls == 4 * 4
    assert {"reward", "greedy_reward", "invalid_share", "uniform", "informed"} <= summary.after.keys()
    assert summary.before["kl"] == pytest.approx(0, abs=1e-4)


def test_a_maze_is_read_an_observation_at_a_time(tmp_path: Path) -> None:
    small = RotaryTransformer(layers=1, width=16, heads=2, context=20)
    config = replace(
        PLAYED,
        task=Maze(games=20),
        pretrain=replace(PLAYED.pretrain, architecture=small),
        max_steps=2,
        offline_steps=2,
        max_turns=3,
        eval_samples=2,
        output_dir=str(tmp_path),
    )
    assert config.turns_seen == 1 and replace(config, memory=4).turns_seen == 4
    assert train(config).after["optimal"] == pytest.approx(-6.84)
    figures = evaluate(EvaluateConfig(runs=[str(tmp_path)], eval_samples=2, seed=5))
    assert figures["before"]["kl"] == pytest.approx(0, abs=1e-4) and figures["after"]["turns"] <= 3
    assert figures["bounds"]["uniform"] < figures["bounds"]["optimal"] == pytest.approx(-6.84)
    (tmp_path / "starts.jsonl").write_text('{"start": [7, 6]}\n')
    near = evaluate(EvaluateConfig(runs=[str(tmp_path)], eval_samples=2, dataset=str(tmp_path / "starts.jsonl")))
    assert near["after"]["reward"] >= -12


def test_a_factory_by_name(tmp_path: Path) -> None:
    (tmp_path / "doors.py").write_text(FACTORY)
    (tmp_path / "talks.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": "which door"}, {"role": "assistant", "content": a}]})
            + "\n"
            for a in "abc"
        )
    )
    config = replace(
        PLAYED,
        task=None,
        environment_factory={"path": f"{tmp_path / 'doors.py'}:Doors", "args": {"right": "c"}},
        chat_template="{% for m in messages %}{{ m['content'] }}{{ eos_token if m['role'] == 'assistant' else '<s>' }}"
        "{% endfor %}",
        pretrain=replace(PLAYED.pretrain, dataset=str(tmp_path / "talks.jsonl"), max_steps=2),
        finetune=FinetuneConfig(max_steps=0),
        offline_steps=0,
        output_dir=str(tmp_path / "run"),
    )
    summary = train(config)
    assert summary.after["failed"] == summary.after["greedy_failed"] == 0
    assert 0 <= summary.after["reward"] <= 1 and summary.reward_calls == UPDATES * 4 and summary.task == "doors"
    with pytest.raises(ConfigError, match="got a Wall, expected an object with the methods reset and step"):
        train(replace(config, environment_factory=f"{tmp_path / 'doors.py'}:Wall", output_dir=str(tmp_path / "x")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment_factory": "a.py:A"}, "environment_factory: got one beside a task"),
        ({"reward_funcs": ["a.py:a"]}, "reward_funcs: got some beside a game"),
        ({"reward_scale": PerPrompt(), "num_generations": 2}, "reward_scale: got per_prompt for a game"),
        ({"memory": 0}, "memory: got 0"),
        ({"max_turns": 0}, "max_turns: got 0"),
        ({"environment_timeout": 0.0}, "environment_timeout: got 0"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAYED, **changes)


def test_the_trainer_takes_an_environment_factory(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(FACTORY, scope)
    trainer = QTrainer(
        model=str(tmp_path / "none"),
        args=replace(PLAYED, task=None, output_dir=str(tmp_path / "run")),
        environment_factory=scope["Doors"],
    )
    assert trainer._given.environment_factory is scope["Doors"]
