"""Runs with Q heads through the commands: what they leave, how they are read back, and how they go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tokenq.cli import main

Start = Callable[..., Path]
WALKS = {
    "task": {"type": "walks", "walks": 60},
    "pretrain": {"max_steps": 3, "architecture": {"layers": 1, "width": 16, "heads": 2, "context": 16}},
    "max_steps": 6,
    "offline_steps": 3,
    "per_device_train_batch_size": 8,
    "generation_batch_size": 8,
    "max_completion_length": 9,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_samples": 4,
    "learning_rate": 0.01,
    "target": {"scope": "head"},
}
HEADS = {"ilql": {"q.first", "q.second", "value"}, "cql": {"q.first"}, "mc": {"q.first"}}
AFTERSTATES = {"values": {"type": "afterstates", "ahead": 2, "learning_rate": 0.01}, "conservative": 0}


def run_of(start: Start, name: str, special: dict[str, Any] | None = None, **changes: Any) -> Path:
    objective = {"type": name, "guidance": {"beta": 30, "top_k": 12, "min_p": 0.01}, "values": {"learning_rate": 0.01}}
    return start(WALKS | {"objective": objective | (special or {})} | changes)


@pytest.fixture(scope="module", params=[*HEADS, "afterstates"])
def finished(request: pytest.FixtureRequest, start: Start) -> Path:
    folder = run_of(start, "mc", AFTERSTATES) if request.param == "afterstates" else run_of(start, request.param)
    assert json.loads((folder / "summary.json").read_text())["updates"] == 6
    return folder


def test_the_model_is_a_plain_checkpoint_with_heads_beside_it(finished: Path) -> None:
    named = {**HEADS, "afterstates": {"worth"}}
    name = [name for name in named if f"type: {name}\n" in (finished / "config.yaml").read_text()][-1]
    heads = load_file(finished / "model" / "q_heads.safetensors")
    assert {key.removesuffix(".outer.weight") for key in heads if key.endswith("outer.weight")} == named[name]
    assert all(heads[f"{head}.outer.weight"].abs().max() > 0 for head in named[name])
    assert AutoModelForCausalLM.from_pretrained(finished / "model").config.vocab_size == 23
    assert 'load_q_heads("model", beta=30.0, top_k=12, min_p=0.01)' in (finished / "README.md").read_text()
    size = sum(tensor.numel() * tensor.element_size() for tensor in heads.values())
    assert json.loads((finished / "summary.json").read_text())["target_bytes"] == size
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert all(row["grad_norm/q_heads"] > 0 for row in rows)
    assert rows[-1]["phase"] == "online" and rows[-1]["kl"] is not None


def test_evaluate_measures_the_guided_policy_and_zero_beta_the_model_alone(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(*options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["evaluate", str(finished), "--eval_samples", "4", *options]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    trained = json.loads((finished / "summary.json").read_text())
    guided, alone = figures(), figures("--beta", "0")
    assert guided["after"] == {key: trained["after"][key] for key in guided["after"]}
    assert guided["before"] == alone["before"]
    assert guided["after"]["kl"] != alone["after"]["kl"]


def test_generate_is_guided(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def text(beta: str) -> str:
        capsys.readouterr()
        options = ["--prompt", "b", "--prompt", "c", "--prompt", "d", "--greedy", "true"]
        assert main(["generate", str(finished), *options, "--beta", beta]) == 0
        return capsys.readouterr().out

    assert text("1000") != text("0")


def test_afterstates_where_the_model_forgets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "maze.yaml"
    config.write_text(
        "task: {type: maze}\nmemory: 1\n"
        "objective: {type: mc, values: {type: afterstates}, conservative: 0, guidance: {top_k: 2}}\n"
    )
    assert main(["train", str(config)]) == 2
    assert "sees 1 observations" in capsys.readouterr().err


def test_beta_without_heads_is_refused(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    folder = start(WALKS | {"max_steps": 1, "offline_steps": 1})
    assert main(["generate", str(folder), "--prompt", "b", "--beta", "1"]) == 2
    assert "trained without Q heads" in capsys.readouterr().err


def test_adapters_learn_from_afterstates_by_muon_and_leave_a_merged_model(start: Start) -> None:
    lora = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["c_attn"], "optim": "muon"}
    folder = run_of(start, "mc", AFTERSTATES, target={"sync": "none"}, **lora)
    before, after = (load_file(folder / place / "model.safetensors") for place in ("start", "model"))
    assert before.keys() == after.keys()
    assert {name for name in before if not before[name].equal(after[name])} == {"transformer.h.0.attn.c_attn.weight"}
    assert load_file(folder / "model" / "q_heads.safetensors")["worth.outer.weight"].abs().max() > 0
    assert main(["generate", str(folder), "--prompt", "b", "--beta", "3"]) == 0


def test_a_run_that_is_taken_up_again_leaves_the_same_bytes(start: Start) -> None:
    whole, broken = run_of(start, "ilql"), run_of(start, "ilql", max_steps=4)
    assert main(["train", str(broken / "config.yaml"), "--max_steps", "6", "--resume", "true"]) == 0
    for file in ("metrics.jsonl", "model/q_heads.safetensors", "model/model.safetensors"):
        assert (whole / file).read_bytes() == (broken / file).read_bytes()


@pytest.mark.parametrize("objective", HEADS)
def test_heads_of_a_classifier_tell_right_logged_labels_from_wrong_ones(
    objective: str, start: Start, jsonl: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every label was logged for every text, so that what is cloned decides nothing and the heads decide all."""
    labels = {"good": "positive", "fine": "positive", "bad": "negative", "poor": "negative"}
    texts = {f"a {word} {thing} ": label for word, label in labels.items() for thing in ("film", "plot", "cast", "end")}
    logs = [
        {"prompt": text, "completion": name, "reward": float(name == right)}
        for text, right in texts.items()
        for name in ("negative", "positive")
    ]
    rows = jsonl([{"text": text.strip(), "label": right} for text, right in texts.items()])
    run = start(
        {
            "task": {"type": "classification", "names": ["negative", "positive"], "template": "{text} "},
            "dataset": jsonl(logs),
            "prompt_dataset": rows,
            "pretrain": {
                "architecture": {"type": "encoder", "layers": 1, "width": 32, "heads": 2, "context": 16},
                "tokenizer": {"type": "words"},
            },
            "objective": {
                "type": objective, "cloning": 0.2, "guidance": {"beta": 30}, "values": {"learning_rate": 0.01}
            },
            "max_steps": 150, "offline_steps": 150, "save_steps": 150, "logging_steps": 150, "learning_rate": 0.01,
            "per_device_train_batch_size": 8, "max_completion_length": 1, "eval_samples": 16,
        }
    )  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["before"]["reward"] < 0.9 < summary["after"]["reward"]
    assert summary["after"]["greedy_reward"] == 1.0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--dataset", rows, "--metrics", "accuracy"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["accuracy"] == 1.0
    assert 'AutoModelForSequenceClassification.from_pretrained("model")' in (run / "README.md").read_text()
