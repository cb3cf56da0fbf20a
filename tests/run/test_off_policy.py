"""A run on rated conversations, imitated first, and its off-policy evaluation through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from tokenq.cli import main

TEMPLATE = "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '>' }}{% endfor %}"


def conversation(rng: np.random.Generator) -> dict[str, Any]:
    said = ["".join(rng.choice(list("abc"), size=3)) for _ in range(4)]
    roles = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    return {"messages": messages, "rewards": [None, float(said[3].count("a"))]}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of rows, and the folder of a finished run on the first of them."""
    folder, rng = tmp_path_factory.mktemp("logs"), np.random.default_rng(0)
    rows = {part: [conversation(rng) for _ in range(40)] for part in ("train", "test")}
    found = {part: write(folder / f"{part}.jsonl", made) for part, made in rows.items()}
    found["texts"] = write(folder / "texts.jsonl", [{"text": "abc>abc</s>cab>bca"}] * 8)
    found["run"] = str(folder / "run")
    config = {
        "dataset": found["train"],
        "output_dir": found["run"],
        "chat_template": TEMPLATE,
        "pretrain": {
            "dataset": found["texts"],
            "max_steps": 2,
            "architecture": {"type": "transformer", "layers": 1, "width": 16, "heads": 2, "context": 120},
            "tokenizer": {"type": "bpe", "vocabulary": 500},
        },
        "finetune": {"dataset": found["train"], "max_steps": 2, "eval_dataset": found["test"]},
        "max_steps": 2,
        "max_completion_length": 8,
        "objective": {"type": "soft", "values": "head", "lam": 1.0},
        "target": {"sync": "none"},
        "learning_rate": 1e-2,
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["train", str(file)]) == 0
    return found


FAST = ("--off_policy", "fitted_q", "--off_policy.updates", "3", "--off_policy.fits", "2")


def test_estimates_of_a_run_and_of_its_start(logs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", logs["run"], "--dataset", logs["test"], *FAST, "--seed", "3"]) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    rows = [json.loads(line) for line in Path(logs["test"]).read_text().splitlines()]
    assert figures["logged"]["return"] == pytest.approx(np.mean([row["rewards"][1] for row in rows]))
    before, after = figures["before"], figures["after"]
    assert before["wis"] == pytest.approx(figures["logged"]["return"])
    assert before["effective_sample_size"] == pytest.approx(40) and after["effective_sample_size"] < 40
    for name in ("fqe", "wis", "pdis", "dr", "wdr"):
        assert after[f"{name}_low"] <= after[name] <= after[f"{name}_high"] and after[name] != before[name]
    assert figures["gain"]["fqe"] == pytest.approx(after["fqe"] - before["fqe"], abs=1e-5)
    assert "effective sample size" in printed.err
    assert ("do not believe them" in printed.err) == (after["effective_sample_size"] < 30)
    assert (Path(logs["run"]) / "calibration_deciles.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_one_conversation_are_drawn_together(
    logs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every row twice: drawn apart, they would pass for twice as many."""
    rows = [json.loads(line) for line in Path(logs["test"]).read_text().splitlines()]
    named = [row | {"game": n} for n, row in enumerate(rows)]
    path, widths = write(tmp_path / "twice.jsonl", named * 2), []
    for cluster in ("null", "game"):
        assert main(["evaluate", logs["run"], "--dataset", path, *FAST, "--off_policy.cluster", cluster]) == 0
        figures = json.loads(capsys.readouterr().out)["logged"]
        widths.append(figures["return_high"] - figures["return_low"])
    assert widths[0] == pytest.approx(widths[1] / np.sqrt(2), rel=0.1)
    assert main(["evaluate", logs["run"], "--dataset", path, *FAST, "--off_policy.cluster", "gmae"]) == 2
    assert "'gmae', expected one of game" in capsys.readouterr().err


def test_values_can_be_fitted_on_rows_that_the_run_did_not_learn_from(
    logs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fitted row earned 7, so 7 is what the heads promise, whatever the run's own rows earned."""
    rng = np.random.default_rng(1)
    other = write(tmp_path / "other.jsonl", [conversation(rng) | {"rewards": [None, 7.0]} for _ in range(20)])
    named = ["--dataset", logs["test"], "--off_policy", "fitted_q", "--off_policy.updates", "100"]
    assert main(["evaluate", logs["run"], *named, "--fitted_on", other]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["before"]["fqe"] == pytest.approx(7, abs=0.3) and figures["logged"]["return"] < 2
    assert main(["evaluate", logs["run"], "--dataset", other, *named[2:], "--fitted_on", other]) == 2
    assert "which values are fitted on" in capsys.readouterr().err
    everything = str(Path(logs["test"]).parent / "t*t.jsonl")
    assert main(["evaluate", logs["run"], *named, "--fitted_on", everything]) == 2
    assert "which values are fitted on" in capsys.readouterr().err
    assert main(["evaluate", logs["run"], "--fitted_on", other]) == 2
    assert "fitted_on: got" in capsys.readouterr().err


def test_what_cannot_be_estimated_is_said(logs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, what in (
        (["--dataset", logs["train"]], "which the run learned from"),
        ([], "name --dataset"),
        (["--dataset", logs["test"], "--temperature", "0.5"], "temperature"),
        (["--dataset", logs["test"], "--off_policy.fits", "0"], "fits"),
    ):
        assert main(["evaluate", logs["run"], *FAST, *wrong]) == 2
        assert what in capsys.readouterr().err


def test_a_clock_of_turns_is_not_estimated_by_tokens(
    logs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(logs["run"], tmp_path / "run")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["clock"], settings["objective"]["gamma"] = "turn", 0.9
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["evaluate", str(run), "--dataset", logs["test"], *FAST]) == 2
    assert "--off_policy.gamma 1" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--dataset", logs["test"], *FAST, "--off_policy.gamma", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["gamma"] == 1


def test_a_behaviour_of_other_tokens_is_refused(
    logs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(Path(logs["run"]) / "model", tmp_path / "own")
    named = ["--dataset", logs["test"], *FAST, "--behaviour", str(own)]
    assert main(["evaluate", logs["run"], *named]) == 0
    capsys.readouterr()
    tokenizer = AutoTokenizer.from_pretrained(own)
    tokenizer.add_tokens(["☃"])
    tokenizer.save_pretrained(own)
    assert main(["evaluate", logs["run"], *named]) == 2
    assert "other tokens" in capsys.readouterr().err


def test_the_model_negotiates_with_its_start(
    logs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenq.envs.negotiation.TURNS", 1)
    scenarios = tmp_path / "contexts.txt"
    scenarios.write_text("1 4 1 4 1 2\n1 0 1 2 1 8\n")
    command = ["evaluate", logs["run"], "--self_play", str(scenarios), "--eval_samples", "2"]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["games"] == 2 and figures["before"].keys() == figures["after"].keys()
    for played in (figures["before"], figures["after"]):
        assert 0 <= played["agreement_rate_low"] <= played["agreement_rate"] <= played["agreement_rate_high"] <= 1
        assert (played["points_per_agreement"] is None) == (played["agreement_rate"] == 0)
    for wrong, what in (
        ([*command, "--dataset", logs["test"]], "beside it"),
        (["evaluate", logs["run"], "--self_play", str(tmp_path / "none.txt")], "no such file"),
    ):
        assert main(wrong) == 2
        assert what in capsys.readouterr().err
