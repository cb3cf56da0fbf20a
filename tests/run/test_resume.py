"""A run that is killed and resumed leaves the very bytes that an unbroken run leaves."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokenq.checkpoint import flatten, load_tensors, newest_whole
from tokenq.config.supervised import PretrainConfig
from tokenq.config.train import ReplayConfig, TrainConfig
from tokenq.envs.walks import Walks
from tokenq.learning.objectives import Soft
from tokenq.learning.sync import Adaptive, RandomPartial
from tokenq.learning.target import TargetConfig
from tokenq.learning.values import Head
from tokenq.nets.architectures import Transformer
from tokenq.replay.samplers import Prioritised, Recent
from tokenq.run.train import train

ChildOf = Callable[[Callable[[Any], Any], Any], Any]
KilledAt = Callable[[Callable[[Any], Any], Any, int], bool]
UPDATES = 24
KILLS = 10

OFFLINE = TrainConfig(
    task=Walks(walks=60),
    pretrain=PretrainConfig(max_steps=3, architecture=Transformer(layers=1, width=16, heads=2, context=16)),
    max_steps=UPDATES,
    offline_steps=UPDATES,
    per_device_train_batch_size=8,
    max_completion_length=9,
    save_steps=5,
    logging_steps=1,
    eval_steps=12,
    eval_samples=4,
    target=TargetConfig(sync=RandomPartial(probability=0.3)),
    replay=ReplayConfig(sampler=Prioritised(anneal=20)),
)
ONLINE = replace(
    OFFLINE,
    offline_steps=8,
    generation_batch_size=6,
    steps_per_generation=3,
    objective=Soft(values=Head(samples=2), lam=0.9),
    optim="muon",
    target=TargetConfig(sync=Adaptive(start=2, end=9)),
    replay=ReplayConfig(capacity_episodes=70, sampler=Recent()),
)


def _left_behind(folder: Path) -> dict[str, bytes]:
    """Every byte that must not depend on interruptions, by file name."""
    newest, _ = newest_whole(folder / "checkpoints")
    assert newest is not None and newest.update == UPDATES
    kept = [
        *sorted((folder / "completions").iterdir()),
        folder / "model" / "model.safetensors",
        folder / "metrics.jsonl",
        *(newest.folder / "replay").iterdir(),
    ]
    return {path.name: path.read_bytes() for path in kept} | _state(newest.folder / "state.safetensors")


def _state(path: Path) -> dict[str, bytes]:
    """The optimiser, the target network, the random streams and the counters, as bytes."""
    state = load_tensors(path)
    # beartype, which checks annotations while the tests run, draws from Python's generator; tokenq does not.
    del state["random"]["python"]
    tensors, structure = flatten(state)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | {"": json.dumps(structure).encode()}


@pytest.mark.parametrize("config", [OFFLINE, ONLINE], ids=["offline", "offline then online"])
def test_a_killed_and_resumed_run_is_byte_identical(
    config: TrainConfig, tmp_path: Path, child_of: ChildOf, killed_at: KilledAt
) -> None:
    whole = replace(config, output_dir=str(tmp_path / "whole"))
    child = child_of(train, whole)
    child.join()
    assert child.exitcode == 0
    expected = _left_behind(tmp_path / "whole")
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    moments = random.Random(0).sample(range(1, UPDATES), KILLS)
    kills = 0
    for moment in moments:
        broken = replace(config, output_dir=str(tmp_path / f"killed-at-{moment}"))
        kills += killed_at(train, broken, moment)
        resumed = child_of(train, replace(broken, resume=True))
        resumed.join()
        assert resumed.exitcode == 0
        folder = Path(broken.output_dir or "")
        assert _left_behind(folder) == expected, f"killed at update {moment}"
        again = json.loads((folder / "summary.json").read_text())
        assert (again["before"], again["after"]) == (summary["before"], summary["after"])
    assert kills == KILLS


def test_a_run_killed_twice_is_byte_identical(tmp_path: Path, child_of: ChildOf, killed_at: KilledAt) -> None:
    whole = replace(ONLINE, output_dir=str(tmp_path / "whole"))
    broken = replace(ONLINE, output_dir=str(tmp_path / "broken"))
    child_of(train, whole).join()
    assert killed_at(train, broken, 7)
    assert killed_at(train, replace(broken, resume=True), 18)
    child_of(train, replace(broken, resume=True)).join()
    assert _left_behind(tmp_path / "broken") == _left_behind(tmp_path / "whole")
