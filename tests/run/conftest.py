"""Tiny runs through the command line: one layer, width 16, three updates."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenq.cli import main

REWARDS = """
def vowels(completions, **kwargs):
    return [float(sum(letter in "ae" for letter in text)) for text in completions]
"""
PROMPTS = [{"prompt": letter * (1 + i % 3)} for i, letter in enumerate("abcdefgh")]
SETTINGS = {
    "max_steps": 3,
    "per_device_train_batch_size": 8,
    "generation_batch_size": 8,
    "max_completion_length": 6,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_samples": 4,
}

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="session")
def jsonl(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Rows], str]:
    """A file of rows."""

    def write(rows: Rows) -> str:
        path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def online(
    checkpoint: Callable[..., str], jsonl: Callable[[Rows], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The configuration of a run on fresh text."""
    rewards = tmp_path_factory.mktemp("rewards") / "rewards.py"
    rewards.write_text(REWARDS, encoding="utf-8")
    return SETTINGS | {
        "model": checkpoint(),
        "prompt_dataset": jsonl(PROMPTS),
        "reward_funcs": [f"{rewards}:vowels"],
    }


@pytest.fixture(scope="session")
def offline(checkpoint: Callable[..., str]) -> dict[str, Any]:
    """The configuration of a run on scored rows, but for `dataset`."""
    return SETTINGS | {"model": checkpoint()}


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run `tokenq train` on a configuration; the run's folder."""

    def run(config: Mapping[str, Any], *options: str, verb: str = "train") -> Path:
        place = tmp_path_factory.mktemp("run")
        (place / "config.yaml").write_text(yaml.safe_dump({"output_dir": str(place / "out")} | dict(config)))
        assert main([verb, str(place / "config.yaml"), *options]) == 0
        return place / "out"

    return run
