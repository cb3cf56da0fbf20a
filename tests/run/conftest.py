"""Tiny runs through the command line: one layer, width 16, three updates."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenq.checkpoint import flatten, load_tensors, newest_whole
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


# Forked children share the imports of this process; they are killed, so nothing of theirs must be waited for.
FORK = multiprocessing.get_context("fork")
Run = Callable[[Any], Any]


def quietly(run: Run, config: Any) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        run(config)


@pytest.fixture(scope="session")
def child_of() -> Callable[[Run, Any], Any]:
    """A process of its own, started, that runs a configuration and says nothing."""

    def start(run: Run, config: Any) -> Any:
        child = FORK.Process(target=quietly, args=(run, config))
        child.start()
        return child

    return start


@pytest.fixture(scope="session")
def killed_at(child_of: Callable[[Run, Any], Any]) -> Callable[..., bool]:
    """Start a run and kill it once it, or a stage of it, has logged so many rows; whether it was still alive."""

    def kill(run: Run, config: Any, update: int, stage: str = "") -> bool:
        child, metrics = child_of(run, config), Path(config.output_dir) / stage / "metrics.jsonl"
        while child.is_alive() and (not metrics.is_file() or metrics.read_bytes().count(b"\n") < update):
            time.sleep(0.002)
        alive: bool = child.is_alive()
        if alive:
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        return alive

    return kill


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


@pytest.fixture(scope="session")
def saved() -> Callable[[Path], tuple[Any, ...]]:
    """Metrics and newest checkpoint of an agent's run, but for the time that it took."""

    def read(folder: Path) -> tuple[Any, ...]:
        newest, _ = newest_whole(folder / "checkpoints")
        assert newest is not None
        state = load_tensors(newest.folder / "state.safetensors")
        del state["random"]["python"]  # beartype draws from it while the tests run
        parts = [flatten(part) for part in (state, load_tensors(newest.folder / "replay.safetensors"))]
        tensors = [{name: tensor.numpy().tobytes() for name, tensor in part[0].items()} for part in parts]
        tensors += [{path.name: path.read_bytes() for path in (newest.folder / "steps").iterdir()}]
        return (folder / "metrics.jsonl").read_bytes(), tensors, [part[1] for part in parts]

    return read


@pytest.fixture(scope="session")
def left(saved: Callable[[Path], tuple[Any, ...]]) -> Callable[[Path], tuple[Any, ...]]:
    """The same of a finished run, and the weights that it found."""
    return lambda folder: (*saved(folder), (folder / "model" / "network.safetensors").read_bytes())
