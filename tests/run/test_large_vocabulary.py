"""The walks with a vocabulary of 50,257, in less memory than one tensor of batch × time × vocabulary needs."""

import multiprocessing
import os
import resource
from pathlib import Path

import torch
from tokenq.config.schema import PretrainConfig, TrainConfig
from tokenq.envs.walks import Walks
from tokenq.learning.objectives import DoubleDQN, Soft
from tokenq.learning.values import Head, Logits
from tokenq.run.train import train

VOCABULARY, BATCH, TIME = 50_257, 1024, 10
ONE_TENSOR = BATCH * TIME * VOCABULARY * 4
ROOM = ONE_TENSOR // 2
FORK = multiprocessing.get_context("fork")


def _limited(use: str, folder: Path) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if use == "one tensor":
        torch.zeros(BATCH, TIME, VOCABULARY)
    else:
        train(_config(use, folder))


def _config(objective: str, folder: Path) -> TrainConfig:
    return TrainConfig(
        task=Walks(walks=BATCH),
        pretrain=PretrainConfig(
            max_steps=1, per_device_train_batch_size=BATCH, layers=1, width=8, heads=2, context=16, vocabulary=VOCABULARY
        ),
        objective={
            "logits": Soft(values=Logits()),
            "head": Soft(values=Head(), lam=0.5),
            "double_dqn": DoubleDQN(),
        }[objective],
        max_steps=2,
        offline_steps=2,
        per_device_train_batch_size=BATCH,
        max_completion_length=9,
        eval_samples=4,
        output_dir=str(folder),
    )


def _exit_code(use: str, folder: Path) -> int | None:
    child = FORK.Process(target=_limited, args=(use, folder))
    child.start()
    child.join()
    return child.exitcode


def test_the_limit_is_too_small_for_one_tensor(tmp_path: Path) -> None:
    assert _exit_code("one tensor", tmp_path) != 0


def test_training_fits_into_the_limit(tmp_path: Path) -> None:
    for objective in ("logits", "head", "double_dqn"):
        folder = tmp_path / objective
        assert _exit_code(objective, folder) == 0, objective
        assert (folder / "summary.json").is_file()
