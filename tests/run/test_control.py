"""Agents through the command line: trained, measured, killed, resumed, refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokenq.acting.explore import Boltzmann, EpsilonGreedy, Greedy
from tokenq.cli import main
from tokenq.config.control import ControlConfig, TransitionsConfig
from tokenq.config.parse import from_mapping
from tokenq.envs.control import Gymnasium
from tokenq.errors import CheckpointError, ConfigError
from tokenq.learning.distributional import C51, QRDQN, Double, PaidPolicy
from tokenq.learning.losses import Huber
from tokenq.learning.objectives import DQN, Munchausen, Vocabulary
from tokenq.learning.q_lambda import QLambda
from tokenq.learning.sync import NoTarget
from tokenq.learning.target import Adapter, TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import Mlp
from tokenq.nets.table import Table
from tokenq.replay.samplers import Prioritised
from tokenq.run.control import control, prepare
from tokenq.run.drive import updates

Read = Callable[[Path], tuple[Any, ...]]

SHORT = ControlConfig(
    num_envs=2,
    environment_steps=260,
    learning_starts=60,
    steps_per_rollout=10,
    updates_per_rollout=3,
    network=Mlp(1, 16),
    replay=TransitionsConfig(capacity=150, n_step=3, sampler=Prioritised(anneal=50)),
    exploration=EpsilonGreedy(over=30),
    per_device_train_batch_size=8,
    logging_steps=1,
    eval_steps=20,
    eval_samples=2,
    save_steps=7,
)


RAINBOW = replace(
    SHORT,
    network=Mlp(1, 16, dueling=True, noisy=0.5),
    objective=C51(0.0, 100.0, 11, follows=Double()),
    exploration=Greedy(),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agent") / "run"
    control(replace(SHORT, output_dir=str(folder)))
    return folder


def test_a_run_leaves_what_the_documentation_says(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["updates"] == 60 and summary["reward_calls"] == 260 and summary["task"] == "CartPole-v1"
    assert {"return", "return_low", "return_high", "return_iqm", "length"} <= summary["after"].keys()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, 61))
    assert [row["update"] for row in rows if "eval_return" in row] == [20, 40, 60]
    # Ten steps, all environments together, before the first update and after every third.
    assert [row["environment_steps"] for row in rows[:7]] == [70, 70, 70, 80, 80, 80, 90]
    assert rows[-1]["replay_steps"] == 150 and rows[29]["epsilon"] == pytest.approx(0.05)
    assert (whole / "curves.png").stat().st_size > 0 and "CartPole-v1" in (whole / "README.md").read_text()


@pytest.mark.parametrize("update", [2, 23, 41])
def test_a_killed_run_goes_on_to_the_same_bytes(
    whole: Path, tmp_path: Path, update: int, killed_at: Callable[[Callable[[Any], Any], Any, int], bool], left: Read
) -> None:
    config = replace(SHORT, output_dir=str(tmp_path / "run"))
    assert killed_at(control, config, update)
    control(replace(config, resume=True))
    assert left(tmp_path / "run") == left(whole)


@pytest.fixture(scope="module")
def rainbow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rainbow") / "run"
    control(replace(RAINBOW, output_dir=str(folder)))
    return folder


@pytest.mark.parametrize("update", [5, 38])
def test_a_killed_run_with_noise_goes_on_to_the_same_bytes(
    rainbow: Path, tmp_path: Path, update: int, killed_at: Callable[[Callable[[Any], Any], Any, int], bool], left: Read
) -> None:
    config = replace(RAINBOW, output_dir=str(tmp_path / "run"))
    assert killed_at(control, config, update)
    control(replace(config, resume=True))
    assert left(tmp_path / "run") == left(rainbow)


def test_measuring_and_logging_take_no_noise(
    rainbow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: Read
) -> None:
    """A run that is neither measured nor logged on the way ends with the same weights."""
    quiet = tmp_path / "quiet"
    control(replace(RAINBOW, output_dir=str(quiet), eval_steps=None, logging_steps=60))
    assert left(quiet)[-1] == left(rainbow)[-1]
    capsys.readouterr()
    assert main(["evaluate", str(rainbow), "--eval_samples", "2"]) == 0
    first = capsys.readouterr().out
    assert main(["evaluate", str(rainbow), "--eval_samples", "2"]) == 0
    assert capsys.readouterr().out == first


def test_a_killed_run_on_stacks_of_frames_goes_on_to_the_same_bytes(
    tmp_path: Path, killed_at: Callable[[Callable[[Any], Any], Any, int], bool], left: Read
) -> None:
    stacked = replace(
        SHORT, environment=Gymnasium("CartPole-v1", frames=3), replay=TransitionsConfig(capacity=90), eval_steps=None
    )
    control(replace(stacked, output_dir=str(tmp_path / "whole")))
    config = replace(stacked, output_dir=str(tmp_path / "run"))
    assert killed_at(control, config, 31)
    control(replace(config, resume=True))
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_a_game_is_learned_from_frames_and_gone_on_with(tmp_path: Path, saved: Read) -> None:
    """Up to the last evaluation, whose hundred games take their time."""
    pytest.importorskip("ale_py", reason="needs ale-py (pip install 'tokenq[atari]')")
    game = {"type": "atari", "id": "ALE/Breakout-v5", "max_episode_steps": 30}
    settings = {"environment_steps": 56, "learning_starts": 20, "logging_steps": 1, "save_steps": 3, "eval_samples": 1}
    network = {"type": "nature_cnn", "width": 8}
    config = from_mapping(ControlConfig, {"environment": game, "network": network, **settings}, "x")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert len(list(updates(prepare(replace(config, output_dir=str(whole)))))) == 9
    rows = updates(prepare(replace(config, output_dir=str(run))))
    assert [next(rows)["update"] for _ in range(5)][-1] == 5
    rows.close()
    again = [row["update"] for row in updates(prepare(replace(config, output_dir=str(run), resume=True)))]
    assert again == [4, 5, 6, 7, 8, 9]
    assert saved(run) == saved(whole)


def test_evaluate_plays_the_agent(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(whole), "--eval_samples", "3"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(whole), "--eval_samples", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == first and first["samples"] == 3
    assert first["after"]["return"] == first["after"]["length"] >= 1
    assert main(["evaluate", str(whole), "--metrics", "bleu"]) == 2
    assert "is an agent" in capsys.readouterr().err
    assert main(["generate", str(whole), "--prompt", "left or right?"]) == 2
    assert "which is an agent, expected the run of a language model" in capsys.readouterr().err


def test_the_command_line_takes_an_environment_for_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("environment: {id: FrozenLake-v1}\nenvironment_steps: 40\nlearning_starts: 20\neval_samples: 2\n")
    assert main(["train", str(file), "--output_dir", str(tmp_path / "lake")]) == 0
    assert "return: before" in capsys.readouterr().out
    assert main(["train", "--environment.id", "CartPol-v1"]) == 2
    assert "CartPole" in capsys.readouterr().err


def test_the_folder_of_another_environment_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    other = replace(SHORT, output_dir=str(folder), resume=True, environment=Gymnasium("Acrobot-v1"))
    with pytest.raises(CheckpointError, match=r"holds another run: environment .*CartPole-v1.*Acrobot-v1"):
        control(other)
    assert main(["train", "--task", "walks", "--output_dir", str(folder), "--resume", "true"]) == 2
    with pytest.raises(CheckpointError, match="already holds a run"):
        control(replace(SHORT, output_dir=str(folder)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment_steps": 60}, "environment_steps: got 60, expected at least 70"),
        ({"steps_per_rollout": 5}, r"steps_per_rollout: got 5, expected a multiple of num_envs \(2\)"),
        ({"objective": DQN()}, "set objective.values to raw"),
        ({"learning_starts": 0}, "learning_starts"),
        ({"replay": TransitionsConfig(capacity=5, length=3)}, "replay.capacity: got 5, expected at least 6"),
        ({"target": TargetConfig(scope=Adapter())}, "target.scope: got adapter"),
    ],
)
def test_a_setting_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SHORT, **change)


def test_sequences_have_one_reward_a_step() -> None:
    with pytest.raises(ConfigError, match="n_step: got 3 with length 4"):
        TransitionsConfig(n_step=3, length=4)


def test_the_number_of_environments_changes_no_period() -> None:
    """A period in updates stays one, however many environments step together (SB3 divides it by their number)."""
    assert replace(SHORT, num_envs=1).max_steps == SHORT.max_steps == replace(SHORT, num_envs=10).max_steps


def test_softmax_exploration_and_munchausen_work_as_well(tmp_path: Path) -> None:
    summary = control(replace(SHORT, output_dir=str(tmp_path / "run"), exploration=Boltzmann(temperature=0.5)))
    assert summary.updates == 60
    hot = replace(SHORT, output_dir=str(tmp_path / "other"), objective=Munchausen(error=Huber()))
    assert control(hot).updates == 60


LAKE = replace(
    SHORT,
    environment=Gymnasium("FrozenLake-v1", {"is_slippery": False}),
    network=Table(initial=1.0),
    objective=DQN(Raw(), Vocabulary(), 0.9),
    target=TargetConfig(NoTarget()),
    replay=TransitionsConfig(),
    optim="sgd",
    learning_rate=6.4,
    max_grad_norm=1e6,
    per_device_train_batch_size=64,
    environment_steps=1560,
    logging_steps=200,
    eval_steps=300,
    save_steps=100,
)


def test_a_table_finds_the_best_way_over_the_ice(
    tmp_path: Path,
    killed_at: Callable[[Callable[[Any], Any], Any, int], bool],
    capsys: pytest.CaptureFixture[str],
    left: Read,
) -> None:
    """Six steps, the reward with the last; interrupted, resumed and evaluated again it is the same."""
    whole = control(replace(LAKE, output_dir=str(tmp_path / "whole")))
    assert whole.after["start_value"] == pytest.approx(0.9**5) == whole.after["optimal_start_value"]
    assert whole.before["start_value"] == 0.0
    assert "start value: 0.5905, of the best policy 0.5905" in capsys.readouterr().out
    half = replace(LAKE, output_dir=str(tmp_path / "half"))
    assert killed_at(control, half, 3)  # lines of metrics, of updates 1, 200 and 300
    control(replace(half, resume=True))
    capsys.readouterr()
    assert left(tmp_path / "half") == left(tmp_path / "whole")
    assert main(["evaluate", str(tmp_path / "half"), "--eval_samples", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["start_value"] == pytest.approx(0.9**5)


def test_a_deep_network_is_held_against_the_same_optimum(tmp_path: Path) -> None:
    deep = replace(LAKE, network=Mlp(1, 8), optim="adamw", learning_rate=1e-3, objective=QLambda(0.9))
    after = control(replace(deep, environment_steps=160, output_dir=str(tmp_path))).after
    assert after["start_value"] <= after["optimal_start_value"] == pytest.approx(0.9**5)


def test_a_table_of_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got table for observations of shape"):
        control(replace(SHORT, network=Table(), output_dir=str(tmp_path / "run")))
    with pytest.raises(ConfigError, match="got table for an objective of distributions"):
        control(replace(LAKE, objective=QRDQN(), output_dir=str(tmp_path / "lake")))


def test_quantiles_and_a_paid_policy_work_as_well(tmp_path: Path) -> None:
    objective = QRDQN(quantiles=5, follows=PaidPolicy())
    config = replace(SHORT, output_dir=str(tmp_path / "run"), objective=objective, network=Mlp(1, 16, norm=True))
    assert control(config).updates == 60
