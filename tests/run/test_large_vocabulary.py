"""The walks with a vocabulary of 50,257, in less memory than one tensor of batch × time × vocabulary needs.

This file is also the program that the tests start: each use runs in a process of its own, with its address space
limited once everything is imported, and without the checks of annotations, which ask more questions than training does.
"""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tokenq.config.supervised import PretrainConfig
from tokenq.config.train import TrainConfig
from tokenq.envs.walks import Walks
from tokenq.learning.objectives import Soft
from tokenq.learning.values import Head
from tokenq.nets.architectures import Transformer
from tokenq.run.train import train

VOCABULARY, BATCH, TIME = 50_257, 512, 10
ONE_TENSOR = BATCH * TIME * VOCABULARY * 4
ROOM = ONE_TENSOR * 3 // 4
OBJECTIVES = {"head": Soft(values=Head(), lam=0.5)}


def limited(use: str, folder: str) -> None:
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if use == "one tensor":
        torch.zeros(BATCH, TIME, VOCABULARY)
        return
    small = {"layers": 1, "width": 8, "heads": 2, "context": 16, "vocabulary": VOCABULARY}
    train(
        TrainConfig(
            task=Walks(walks=BATCH),
            pretrain=PretrainConfig(max_steps=1, per_device_train_batch_size=BATCH, architecture=Transformer(**small)),
            objective=OBJECTIVES[use],
            max_steps=1,
            offline_steps=1,
            per_device_train_batch_size=BATCH,
            max_completion_length=9,
            eval_samples=4,
            output_dir=folder,
        )
    )


def run(use: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, __file__, use, str(folder)], capture_output=True, text=True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of address space are set the Linux way")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_fits_into_less_than_one_tensor(objective: str, tmp_path: Path) -> None:
    done = run(objective, tmp_path / "run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of address space are set the Linux way")
def test_the_limit_is_too_small_for_one_tensor(tmp_path: Path) -> None:
    done = run("one tensor", tmp_path)
    assert done.returncode != 0 and "memory" in done.stderr


if __name__ == "__main__":
    limited(*sys.argv[1:])
