"""A search from end to end: what it leaves, what a kill costs, what it stops, and what it refuses before it begins."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tokenq.cli import main
from tokenq.config.parse import from_file, from_mapping
from tokenq.config.train import TrainConfig
from tokenq.config.tune import TuneConfig
from tokenq.errors import CheckpointError, ConfigError, TokenqError
from tokenq.run.tune import tune

FORK = multiprocessing.get_context("fork")
STILL = 1e-12
"""A step size that moves nothing: the KL to the reference stays 0, the least there is."""
SHAPE = {"architecture": {"layers": 1, "width": 16, "heads": 2, "context": 16}}
DEFAULT = {
    "task": {"type": "walks", "walks": 40},
    "pretrain": SHAPE | {"max_steps": 2},
    "max_steps": 4,
    "offline_steps": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 6,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_steps": 2,
    "eval_samples": 4,
    "log_completions": False,
}
STUDY = {
    "metric": "eval_kl",
    "direction": "minimize",
    "trials": 3,
    "search": {
        "learning_rate": {"low": "1e-13", "high": STILL, "log": True},
        "target.sync": {"choices": ["polyak", {"type": "periodic", "every": 3}]},
    },
}

Study = Callable[..., TuneConfig]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study in a new folder, with other settings."""

    def make(default: Mapping[str, Any] = {}, **changes: Any) -> TuneConfig:
        place = tmp_path_factory.mktemp("study")
        (place / "walks.yaml").write_text(yaml.safe_dump(DEFAULT | dict(default)))
        settings = {"config": str(place / "walks.yaml"), "output_dir": str(place / "out")}
        return from_mapping(TuneConfig, settings | STUDY | changes, "study.yaml")

    return make


@pytest.fixture(scope="module")
def whole(study: Study) -> Path:
    """A study that nothing happened to."""
    config = study()
    tune(config)
    return _folder(config)


def _folder(config: TuneConfig) -> Path:
    return Path(config.output_dir or "")


def _trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    try:
        return optuna.load_study(study_name="tokenq", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _metrics(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("trials/*/seed-0/metrics.jsonl"))]


# --- what it leaves ------------------------------------------------------------------------------------------------


def test_a_study_finds_the_settings_that_move_nothing(whole: Path) -> None:
    trials = _trials(whole)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    values = [t.value for t in trials if t.value is not None]
    # Trial 0 is the default, whose step size lies outside the range that is searched.
    assert "learning_rate" not in trials[0].params and trials[0].params["target.sync"] == "polyak"
    assert values[0] > 1e-6 and max(values[1:]) < 1e-9
    assert all(1e-13 <= t.params["learning_rate"] <= STILL for t in trials[1:])
    best = from_file(TrainConfig, whole / "best.yaml")
    assert best.learning_rate == trials[1 + values[1:].index(min(values))].params["learning_rate"]
    assert best.output_dir is None and best.eval_samples == 4


def test_a_score_is_that_of_the_last_evaluation(whole: Path) -> None:
    for trial in _trials(whole):
        run = whole / "trials" / f"{trial.number:04d}" / "seed-0"
        assert trial.value == json.loads((run / "summary.json").read_text())["after"]["kl"]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert trial.intermediate_values == {r["update"]: r["eval_kl"] for r in rows if "eval_kl" in r}
        assert rows[-1]["eval_kl"] == trial.value


def test_only_the_best_trial_keeps_what_it_takes_to_go_on(whole: Path) -> None:
    runs = sorted(whole.glob("trials/*/seed-0"))
    kept = [run.parent.name for run in runs if (run / "checkpoints").exists() and (run / "model").exists()]
    best = min(_trials(whole), key=lambda t: t.value)
    assert kept == [f"{best.number:04d}"]
    lean = {"config.yaml", "summary.json", "metrics.jsonl", "curves.png"}
    taught = {"pretrain", "losses.png"}  # by the trial that made the start of all
    names = {run.parent.name: {p.name for p in run.iterdir()} for run in runs}
    assert names["0000"] >= taught
    assert all(found - taught == lean for trial, found in names.items() if trial not in kept)


def test_all_trials_start_from_one_pretrained_model(whole: Path) -> None:
    (shared,) = whole.glob("starts/seed-0/model.safetensors")
    (used,) = whole.glob("trials/*/seed-0/start/model.safetensors")
    assert used.read_bytes() == shared.read_bytes()
    assert ["pretraining" in log.read_text() for log in sorted(whole.glob("trials/*/log.txt"))] == [True, False, False]


def test_the_report_tells_it_all(whole: Path) -> None:
    report = (whole / "report.md").read_text()
    assert report.count("\n| 0 |") == report.count("\n| 1 |") == report.count("\n| 2 |") == 1
    assert "| `learning_rate` | 0.01 |" in report and "Importance" in report
    assert all((whole / name).read_bytes().startswith(b"\x89PNG") for name in ("history.png", "importance.png"))


def test_the_best_configuration_trains_as_it_did(whole: Path, tmp_path: Path) -> None:
    assert main(["train", str(whole / "best.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    best = min(_trials(whole), key=lambda t: t.value)
    was = whole / "trials" / f"{best.number:04d}" / "seed-0"
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (was / "metrics.jsonl").read_bytes()


# --- what interrupts it --------------------------------------------------------------------------------------------


def _tune_quietly(config: TuneConfig) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        tune(config)


def test_a_study_that_is_killed_and_resumed_loses_and_repeats_nothing(study: Study, whole: Path) -> None:
    config = study(trials=2)
    folder = _folder(config)
    for trial, lines in ((0, 3), (1, 2)):
        child = FORK.Process(target=_tune_quietly, args=(config,))
        child.start()
        awaited = folder / "trials" / f"{trial:04d}" / "seed-0" / "metrics.jsonl"
        while child.is_alive() and not (awaited.is_file() and awaited.read_bytes().count(b"\n") >= lines):
            time.sleep(0.002)
        assert child.is_alive() and child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert [t.state.name for t in _trials(folder)] == ["COMPLETE"] * trial + ["RUNNING"]
        config = replace(config, resume=True)
    tune(replace(config, trials=3))
    ours, theirs = _trials(folder), _trials(whole)
    assert [t.state.name for t in ours] == ["COMPLETE"] * 3
    assert [(t.params, t.value, t.intermediate_values) for t in ours] == [
        (t.params, t.value, t.intermediate_values) for t in theirs
    ]
    assert _metrics(folder) == _metrics(whole)


def test_a_study_of_other_settings_is_not_gone_on_with(study: Study, whole: Path) -> None:
    config = study(output_dir=str(whole))
    with pytest.raises(CheckpointError, match="already holds a study; set resume to true"):
        tune(config)
    other = replace(config, resume=True, search={"learning_rate": {"low": 1, "high": 2}})
    with pytest.raises(CheckpointError, match=r"a study of other settings \(search differ\)"):
        tune(other)
    with pytest.raises(CheckpointError, match=r"\(max_steps of .*walks.yaml differ\)"):
        tune(replace(study({"max_steps": 5}), output_dir=str(whole), resume=True))


def test_two_searches_do_not_share_a_folder(study: Study) -> None:
    config = study()
    _folder(config).mkdir()
    (_folder(config) / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="is not empty and holds no study"):
        tune(config)


# --- what it stops -------------------------------------------------------------------------------------------------


def test_hopeless_and_diverging_trials_end_early(study: Study) -> None:
    changes = {"search": {"learning_rate": {"choices": [0.1, 1e6]}}, "pruner": {"type": "median", "startup_trials": 1}}
    config = study({"learning_rate": STILL, "pretrain": SHAPE}, trials=4, **changes)
    tune(config)
    first, *others = _trials(_folder(config))
    assert first.state.name == "COMPLETE" and {t.state.name for t in others} == {"PRUNED"}
    notes = {t.params["learning_rate"]: t.user_attrs["note"] for t in others}
    assert notes["0.1"] == "stopped early, after update 2" and "not finite" in notes["1000000.0"]
    assert from_file(TrainConfig, _folder(config) / "best.yaml").learning_rate == STILL
    stopped = next(t.number for t in others if t.params["learning_rate"] == "0.1")
    rows = (_folder(config) / "trials" / f"{stopped:04d}" / "seed-0" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["update"] for row in rows] == [1, 2]


def test_a_pretraining_that_diverges_is_a_trial_without_a_score(study: Study) -> None:
    config = study(search={"pretrain.learning_rate": {"choices": [1e30]}}, trials=2)
    tune(config)
    _, diverged = _trials(_folder(config))
    assert diverged.state.name == "PRUNED" and "lower pretrain.learning_rate" in diverged.user_attrs["note"]


def test_settings_that_do_not_go_together_are_a_trial_without_a_score(study: Study) -> None:
    # Alone each of them goes with the default, width 12 and 2 heads.
    search = {"pretrain.architecture.width": {"choices": [16]}, "pretrain.architecture.heads": {"choices": [3]}}
    config = study({"pretrain": {"architecture": SHAPE["architecture"] | {"width": 12}}}, search=search, trials=2)
    tune(config)
    default, refused = _trials(_folder(config))
    assert (default.params, default.state.name, refused.state.name) == ({}, "COMPLETE", "PRUNED")
    assert refused.user_attrs["note"] == "pretrain.architecture.width: got 16, expected a multiple of heads (3)"
    assert "Not known: that needs two trials" in (_folder(config) / "report.md").read_text()


# --- what it refuses -----------------------------------------------------------------------------------------------


def test_a_search_that_cannot_be_made_is_refused_before_it_begins(study: Study) -> None:
    config = study(search={"learning_rate": {"low": 1e-4, "high": 0}})
    with pytest.raises(ConfigError, match=r"search\.learning_rate: low: got 0\.0001, expected at most high"):
        tune(config)
    assert list(_folder(config).parent.iterdir()) == [Path(config.config or "")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "config: got none, expected the YAML file"),
        ({"search": {}}, "search: got none"),
        ({"trials": 0}, "trials: got 0"),
        ({"workers": 0}, "workers: got 0"),
        ({"seeds": []}, "seeds: got .., expected at least one"),
        ({"seeds": [1, 1]}, "seeds: got .1, 1."),
        ({"timeout": 0}, "timeout: got 0"),
        ({"direction": "up"}, "direction: got 'up'"),
        ({"sampler": {"type": "tpe", "startup_trials": 0}}, "sampler.startup_trials: got 0"),
        ({"pruner": {"type": "hyperband", "reduction": 1}}, "pruner.reduction: got 1"),
    ],
)
def test_a_setting_out_of_range(study: Study, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(**changes)


def test_a_pruner_needs_evaluations_on_the_way(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"pruner: needs evaluations on the way; set eval_steps in walks\.yaml"):
        tune(study({"eval_steps": None}, pruner="median"))


def test_a_metric_that_no_evaluation_has_is_named_with_those_there_are(study: Study) -> None:
    config = study({"pretrain": SHAPE}, metric="eval_rewrad")
    with pytest.raises(
        ConfigError, match=r"metric: got 'eval_rewrad', which no evaluation has; expected .*eval_reward"
    ):
        tune(config)
    assert [t.state.name for t in _trials(_folder(config))] == ["WAITING"]


def test_without_a_score_there_is_a_report_and_no_best(study: Study) -> None:
    config = study({"learning_rate": 1e6, "pretrain": SHAPE}, trials=1)
    with pytest.raises(TokenqError, match="none of 1 trials has a score"):
        tune(config)
    assert "not finite" in (_folder(config) / "report.md").read_text()
    assert not (_folder(config) / "best.yaml").exists()


# --- several at a time ---------------------------------------------------------------------------------------------


def test_workers_share_the_trials(study: Study, whole: Path) -> None:
    config = study(workers=2, trials=2)
    tune(config)
    trials = _trials(_folder(config))
    assert [t.state.name for t in trials] == ["COMPLETE"] * 2
    assert trials[0].value == pytest.approx(_trials(whole)[0].value)
    began = [t.datetime_start for t in trials]
    assert began[1] < trials[0].datetime_complete, "the second trial did not wait for the first"
