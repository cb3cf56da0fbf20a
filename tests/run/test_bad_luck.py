"""What goes wrong half-way: reward functions, disks and numbers. The state is saved, and the run goes on from there."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenq.checkpoint import load_tensors, newest_whole
from tokenq.cli import main
from tokenq.run.folder import alone

# A child may be given a disk of its own, as it were.
FORK = multiprocessing.get_context("fork")
TINY = (
    "--task.walks 40 --pretrain.max_steps 2 --pretrain.architecture.layers 1 --pretrain.architecture.width 16 "
    "--pretrain.architecture.heads 2 --pretrain.architecture.context 16 "
    "--per_device_train_batch_size 4 --generation_batch_size 4 --max_completion_length 6 "
    "--eval_samples 2 --logging_steps 1 --save_steps 2 --eval_steps 3 --offline_steps 1 --max_steps 6"
).split()
MOODY = """
import math

def moody(prompts, completions, trainer_state, log_extra, **kwargs):
    if {when}:
        {fails}
    return [float(len(text)) for text in completions]
"""
FINE = MOODY.format(when="False", fails="pass")
ONE_OF_FOUR = "return [1.0, 1.0, {}, 1.0]"

FAILS_AT_3 = MOODY.format(when="trainer_state.global_step == 3", fails="{}")

Train = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    place = tmp_path_factory.mktemp("whole")
    assert _train(place, "run", FINE) == 0
    return place / "run"


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run `tokenq train` with a reward function (its source); the status, and the error line or else all lines."""

    def run(*options: str, rewards: str = FINE) -> tuple[int, str]:
        status = _train(tmp_path, "run", rewards, *options)
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        assert errors == (lines[-1:] if status else [])
        return status, errors[0].removeprefix("tokenq: error: ") if errors else "\n".join(lines)

    return run


def _train(place: Path, name: str, rewards: str, *options: str) -> int:
    (place / "rewards.py").write_text(rewards)
    where = ["--output_dir", str(place / name), "--reward_funcs", f"{place}/rewards.py:moody"]
    return main(["train", *TINY, *where, *options])


def _left_behind(run: Path) -> dict[str, bytes]:
    """Every byte of a finished run that must not depend on what went wrong on the way."""
    newest, _ = newest_whole(run / "checkpoints")
    assert newest is not None and newest.update == 6
    files = [run / "model" / "model.safetensors", run / "metrics.jsonl", *(newest.folder / "replay").iterdir()]
    files += (run / "completions").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    return {path.name: path.read_bytes() for path in files} | {"after": json.dumps(summary["after"]).encode()}


def _steps(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


# --- reward functions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["raise ValueError('no\\nanswer')", "log_extra('note', [1, 'a', 2, 3])"])
def test_a_reward_function_that_fails_half_way_costs_nothing(
    train: Train, tmp_path: Path, whole: Path, fails: str
) -> None:
    status, line = train(rewards=FAILS_AT_3.format(fails))
    saved = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert status == 2 and line.endswith(f"(state saved in {saved}; --resume true goes on from there)")
    status, said = train("--resume", "true")
    assert status == 0 and "resumed from step-00000003" in said
    assert _left_behind(tmp_path / "run") == _left_behind(whole)


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (
            "raise ValueError('no\\nanswer')",
            "raised ValueError: no answer; while scoring completions 0 to 3, first prompt",
        ),
        (ONE_OF_FOUR.format("math.nan"), "answered nan for completion 2 (prompt '"),
        (ONE_OF_FOUR.format("math.inf"), "answered inf for completion 2 (prompt '"),
        (ONE_OF_FOUR.format("'good'"), "answered 'good' for completion 2 (prompt '"),
        ("return [1.0]", "answered 1 values for 4 completions; return one per completion"),
        ("return None", "answered NoneType, expected a list of 4 numbers"),
        ("log_extra('note', [1])", "log_extra column 'note' got 1 values, expected 4, one per completion"),
    ],
)
def test_the_function_and_the_prompt_are_named(train: Train, fails: str, message: str) -> None:
    status, line = train("--max_steps", "4", rewards=FAILS_AT_3.format(fails))
    assert status == 2 and line.startswith("reward function 'moody'") and message in line and "state saved" in line


def test_a_sum_of_rewards_beyond_all_numbers_is_named(train: Train) -> None:
    status, line = train(
        "--reward_weights", "1e300", rewards=MOODY.format(when="True", fails="return [1e300] * len(prompts)")
    )
    assert status == 2 and line.startswith("the weighted sum of moody is not finite; lower reward_weights")


def test_a_reward_function_that_fails_in_an_evaluation_costs_nothing(train: Train, tmp_path: Path, whole: Path) -> None:
    # One evaluation before the first update and one after the third, each with one question for drawn and greedy text.
    (tmp_path / "asked").mkdir()
    asked = f"__import__('pathlib').Path({str(tmp_path / 'asked')!r})"
    question = f"({asked} / str(len(list({asked}.iterdir())))).touch()"
    fourth = f"trainer_state.global_step == 0 and not {question} and len(list({asked}.iterdir())) == 4"
    status, line = train(rewards=MOODY.format(when=fourth, fails="raise ValueError('not now')"))
    assert status == 2 and "not now" in line and "step-00000003" in line
    assert train("--resume", "true")[0] == 0
    assert _left_behind(tmp_path / "run") == _left_behind(whole)


def test_a_reward_function_that_fails_from_the_start(train: Train, tmp_path: Path, whole: Path) -> None:
    status, line = train(rewards=MOODY.format(when="True", fails="raise KeyError('x')"))
    assert status == 2 and line.endswith("(before the first update; --resume true tries again)")
    assert train("--resume", "true")[0] == 0
    assert _left_behind(tmp_path / "run") == _left_behind(whole)


def test_a_reward_function_that_fails_at_the_very_end(train: Train, tmp_path: Path, whole: Path) -> None:
    when = f"__import__('pathlib').Path({str(tmp_path / 'run' / 'model')!r}).exists()"
    status, line = train(rewards=MOODY.format(when=when, fails="return []"))
    assert status == 2 and line.endswith("(all updates are done and saved; --resume true repeats only the end)")
    assert train("--resume", "true")[0] == 0
    assert _left_behind(tmp_path / "run") == _left_behind(whole)


def test_a_reward_function_without_an_opinion_ends_without_a_crash(train: Train, tmp_path: Path) -> None:
    nothing = MOODY.format(when="True", fails="return [None] * len(prompts)")
    assert train("--max_completion_length", "1", rewards=nothing)[0] == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["after"]["reward"] is None


# --- checkpoints ---------------------------------------------------------------------------------------------------


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over(train: Train, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    _moved(tmp_path / "run", whole.parent)
    assert _steps(tmp_path / "run") == ["step-00000004", "step-00000006"]
    _altered(tmp_path / "run" / "checkpoints" / "step-00000006" / "state.safetensors")
    status, said = train("--resume", "true")
    assert status == 0 and "resumed from step-00000004" in said
    assert "skipped a damaged checkpoint, step-00000006: state.safetensors " in said
    assert _left_behind(tmp_path / "run") == _left_behind(whole)


def test_nothing_is_made_up_where_all_checkpoints_are_damaged(train: Train, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    _moved(tmp_path / "run", whole.parent)
    for step in _steps(tmp_path / "run"):
        _truncated(tmp_path / "run" / "checkpoints" / step / "manifest.json")
    before = _content(tmp_path / "run")
    status, line = train("--resume", "true")
    assert status == 2 and line.endswith("none of 2 checkpoints is whole; start in another folder")
    assert _content(tmp_path / "run") == before


def test_a_run_that_another_process_makes_is_left_to_it(train: Train, tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    _moved(tmp_path / "run", whole.parent)
    before = _content(tmp_path / "run")
    with alone(tmp_path / "run", wait=False):
        status, line = train("--resume", "true", "--max_steps", "8")
    assert status == 2 and line == f"output_dir: {tmp_path}/run is in use by another process; choose another"
    assert _content(tmp_path / "run") == before
    assert train("--resume", "true", "--max_steps", "8")[0] == 0


def _moved(run: Path, place: Path) -> None:
    """Let a copied run name the reward function at its new place."""
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace(str(place), str(run.parent)))


def _content(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _on_a_small_disk(size: int, place: Path) -> None:
    """Resume where no file can grow beyond `size` bytes; the child exits with the status."""
    sys.stdout = sys.stderr = (place / "said").open("w")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    status = _train(place, "run", FINE, "--resume", "true")
    sys.stderr.flush()
    os._exit(status)


def test_a_full_disk_costs_only_what_it_refused(train: Train, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    assert train(rewards=FAILS_AT_3.format("raise ValueError"))[0] == 2
    before = _content(run)
    refusals = {500: "output_dir: ", 1_500: "cannot be written", 5_000: "not saved", 40_000: "not saved"}
    for size, refused in refusals.items():
        child = FORK.Process(target=_on_a_small_disk, args=(size, tmp_path))
        child.start()
        child.join()
        last = (tmp_path / "said").read_text().splitlines()[-1]
        assert child.exitcode == 2 and last.startswith("tokenq: error: ") and refused in last, (size, last)
        assert not any(path.name.startswith(".tmp") or path.suffix == ".tmp" for path in run.rglob("*"))
        assert {path: content for path, content in _content(run).items() if "checkpoints" in path.parts} == {
            path: content for path, content in before.items() if "checkpoints" in path.parts
        }
        assert (run / "config.yaml").read_bytes() == before[run / "config.yaml"]
    assert train("--resume", "true")[0] == 0
    assert _left_behind(run) == _left_behind(whole)


# --- divergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fails"),
    [
        (["--learning_rate", "1e6", "--offline_steps", "6"], "pass"),
        (["--reward_scale", "raw_rewards"], "return [1e30] * len(prompts)"),
    ],
)
def test_a_run_that_diverges_is_saved(train: Train, tmp_path: Path, options: list[str], fails: str) -> None:
    status, line = train(*options, rewards=FAILS_AT_3.format(fails))
    assert status == 1 and "loss or gradient is not finite" in line
    newest, skipped = newest_whole(tmp_path / "run" / "checkpoints")
    assert newest is not None and skipped == []
    assert line.endswith(f"(state saved in {newest.folder}; start again in another folder)")
    state = load_tensors(newest.folder / "state.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in state["parameters"].values())
