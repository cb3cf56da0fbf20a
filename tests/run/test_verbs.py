"""The commands from end to end: what a run leaves behind is what was promised, and other programs can use it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tokenq.cli import main
from tokenq.run.loaded import load_run

Start = Callable[..., Path]
EVERYTHING = {
    "README.md",
    "calibration.png",
    "checkpoints",
    "completions",
    "config.yaml",
    "curves.png",
    "metrics.jsonl",
    "model",
    "summary.json",
}
PLAIN = """
import json, sys, warnings
from transformers import pipeline
model, length, *prompts = sys.argv[1:]
write = pipeline("text-generation", model=model)
texts = [write(p, do_sample=False, max_new_tokens=int(length))[0]["generated_text"] for p in prompts]
print(json.dumps([texts, sorted(m for m in sys.modules if m.startswith("tokenq"))]))
"""


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(start: Start, online: dict[str, Any]) -> Path:
    return start(online | {"learning_rate": 0.01})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_finished_run_is_read_back_onto_the_accelerator(finished: Path) -> None:
    run = load_run(str(finished))
    start = run.start()
    assert start is not None and {run.network.device.type, start.device.type} == {"cuda"}


def test_a_run_leaves_the_promised_folder(finished: Path) -> None:
    folder = finished
    assert {path.name for path in folder.iterdir()} == EVERYTHING
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-00000002", "step-00000003"]
    assert {path.name for path in (folder / "model").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    tables = sorted((folder / "completions").iterdir())
    assert [path.name for path in tables] == [f"completions_0000{step}.parquet" for step in (0, 1, 2, 3)]
    table = pyarrow.parquet.read_table(tables[0]).to_pydict()
    assert list(table) == ["step", "prompt", "completion", "vowels", "reward", "terminated"]
    assert table["reward"] == table["vowels"] == [sum(c in "ae" for c in text) for text in table["completion"]]
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == "task seed before after reward_calls updates wall_seconds target_bytes versions".split()
    parameters = sum(tensor.numel() for tensor in load_file(folder / "model" / "model.safetensors").values())
    assert summary["target_bytes"] == 4 * parameters
    assert (summary["task"], summary["seed"], summary["reward_calls"], summary["updates"]) == ("rows", 0, 24, 3)
    assert summary["before"].keys() == summary["after"].keys() >= {"reward", "greedy_reward", "kl", "mean_length"}
    assert summary["before"]["kl"] == 0.0 != summary["after"]["kl"]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "3 updates, 24 reward calls" in card


def test_the_first_row_is_the_calibrated_start(finished: Path) -> None:
    """Every value is 0, so each residual is its standardised reward: loss ½·1·(episodes/decisions)."""
    rows = metrics(finished)
    assert [(row["update"], row["phase"]) for row in rows] == [(1, "online"), (2, "online"), (3, "online")]
    first = rows[0]
    assert first["kl"] == 0.0 and first["q_mean"] == 0.0 and first["reward_calls"] == 8
    assert first["loss"] == pytest.approx(0.5 / first["completions/mean_length"], rel=1e-5)
    assert first["td_abs"] > 0 and rows[1]["q_mean"] != 0.0 and rows[-1]["kl"] != 0.0
    assert first["reward"] == first["rewards/vowels/mean"] > 0


def test_the_stored_configuration_repeats_the_run_byte_for_byte(start: Start, online: dict[str, Any]) -> None:
    first = start(online | {"objective": {"type": "soft", "values": "head", "lam": 0.5}})
    second = first.with_name("second")
    assert main(["train", str(first / "config.yaml"), "--output_dir", str(second)]) == 0
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert files == [path.relative_to(second) for path in second.rglob("*") if path.is_file()]
    # The clock, the command, the folder's name and the random stream that the type checker of the tests draws from.
    own = {"clock.json", "README.md", "summary.json", "config.yaml", "state.safetensors", "manifest.json"}
    for file in files:
        if file.name not in own:
            assert (first / file).read_bytes() == (second / file).read_bytes(), file
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (first, second)]
    assert configs[0] | {"output_dir": None} == configs[1] | {"output_dir": None}


def test_the_model_works_in_plain_transformers(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["ab", "hgf"]
    capsys.readouterr()
    assert main(["generate", str(finished), *(w for p in prompts for w in ("--prompt", p)), "--greedy"]) == 0
    ours = capsys.readouterr().out.splitlines()
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(finished / "model"), "6", *prompts],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    texts, ours_imported = json.loads(done.stdout.splitlines()[-1])
    assert texts == ours and all(len(text) > len(p) for text, p in zip(texts, prompts, strict=True))
    assert ours_imported == []


def test_evaluate_finds_what_the_run_found(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--eval_samples", "4"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["before"] == summary["before"]
    assert figures["after"] == pytest.approx(summary["after"], abs=1e-5)
    other = tmp_path / "others.jsonl"
    other.write_text('{"prompt": "cc"}\n')
    assert main(["evaluate", str(finished), "--eval_samples", "4", "--dataset", str(other)]) == 0
    assert json.loads(capsys.readouterr().out)["after"] != figures["after"]
    other.write_text('{"text": "cc"}\n')
    assert main(["evaluate", str(finished), "--dataset", str(other)]) == 2
    assert "row 1: no prompt" in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--gif", str(tmp_path / "x.gif")]) == 2
    assert "is a language model, which has no episode to look at" in capsys.readouterr().err


def test_generate_draws_by_seed_and_repeats_prompts(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def texts(*options: str) -> list[str]:
        capsys.readouterr()
        assert main(["generate", str(finished), "--prompt", "ab", "--prompt", "c", *options]) == 0
        return capsys.readouterr().out.splitlines()

    drawn = texts("--num_generations", "3", "--seed", "1")
    assert [text[0] for text in drawn] == ["a"] * 3 + ["c"] * 3
    assert texts("--num_generations", "3", "--seed", "1") == drawn != texts("--num_generations", "3", "--seed", "2")
    assert texts("--greedy") == texts("--greedy", "--seed", "9") == texts("--top_k", "1")
    assert all(len(text) <= 4 for text in texts("--max_completion_length", "2"))


def test_pretrain_then_train_from_it(start: Start, online: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    size = {"layers": 1, "width": 16, "heads": 2, "context": 16}
    shape = {"max_steps": 60, "architecture": size, "learning_rate": 0.03}
    task = {"type": "walks", "walks": 40}
    made = start({"task": task, "pretrain": shape, "max_completion_length": 9}, verb="pretrain")
    assert {path.name for path in made.iterdir()} == {"config.yaml", "model", "start", "pretrain", "losses.png"}
    last = (made / "pretrain" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["loss"] < 2.5, "a uniform guess over 23 tokens costs 3.1 nats"
    changes = {"model": str(made / "model"), "learning_rate": 1e-12, "max_completion_length": 4}
    trained = start(online | changes)
    before = load_file(made / "model" / "model.safetensors")
    after = load_file(trained / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert metrics(trained)[0]["kl"] == 0.0
    capsys.readouterr()
    assert main(["evaluate", str(made), "--eval_samples", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["bounds"]["best_stitched"] > 0


def test_python_m_tokenq_trains(online: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(online | {"max_steps": 1, "output_dir": str(tmp_path / "out")}))
    done = subprocess.run([sys.executable, "-m", "tokenq", "train", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "update 1/1" in done.stderr and "before" in done.stdout and "Warning" not in done.stderr
