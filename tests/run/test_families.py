"""Any causal language model by its folder, whole or with LoRA adapters."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tokenq.checkpoint import load_tensors, newest_whole
from tokenq.cli import main

Start = Callable[..., Path]
LORA = {
    "use_peft": True,
    "lora_r": 2,
    "lora_alpha": 8,
    "lora_target_modules": ["q_proj", "v_proj"],
    "learning_rate": 0.01,
}
# Rank 2: (2·16 + 16·2) numbers for 16 -> 16, and (2·16 + 8·2) for 16 -> 8, at four bytes.
ADAPTER_BYTES = 4 * (64 + 48)


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
def test_families_by_path(start: Start, online: dict[str, Any], checkpoint: Callable[..., str], family: str) -> None:
    model = checkpoint(family)
    folder = start(online | {"model": model, "objective": {"type": "soft", "values": "head"}})
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kl"] == 0.0 and first["q_mean"] == pytest.approx(0, abs=1e-6)
    assert first["grad_norm/trunk"] > 0 and first["grad_norm/value_head"] > 0
    assert (folder / "model" / "value_head.safetensors").is_file()
    assert AutoModelForCausalLM.from_pretrained(folder / "model").config.model_type == family
    assert len(changed(weights(model), weights(folder / "model"))) > 5


def test_number_type_is_that_of_the_configuration(start: Start, online: dict[str, Any]) -> None:
    shape = {"max_steps": 2, "architecture": {"layers": 1, "width": 16, "heads": 2, "context": 16}}
    fresh = {"model": None, "task": {"type": "walks", "walks": 20}, "pretrain": shape, "reward_funcs": []}
    for changes in ({}, fresh | {"prompt_dataset": None}):
        folder = start(online | {"dtype": "bfloat16"} | changes)
        assert {tensor.dtype for tensor in weights(folder / "model").values()} == {torch.bfloat16}
        first, *_ = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        assert first["loss"] is not None


def test_lora_trains_adapters_only_leaves_a_merged_model_and_goes_on_as_if_never_interrupted(
    start: Start, online: dict[str, Any], checkpoint: Callable[..., str]
) -> None:
    model = checkpoint("llama")
    config = online | LORA | {"model": model, "target": {"scope": "adapter"}}
    folder = start(config)
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["kl"] == 0.0
    assert changed(weights(model), weights(folder / "model")) == {
        f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")
    }
    assert "peft" not in (folder / "model" / "config.json").read_text()
    newest, _ = newest_whole(folder / "checkpoints")
    assert newest is not None
    saved = load_tensors(newest.folder / "state.safetensors")["parameters"]
    assert len(saved) == 4 and all("lora_" in name for name in saved)
    assert json.loads((folder / "summary.json").read_text())["target_bytes"] == ADAPTER_BYTES

    broken = start(config | {"max_steps": 2})
    assert main(["train", str(broken / "config.yaml"), "--max_steps", "3", "--resume", "true"]) == 0
    assert changed(weights(folder / "model"), weights(broken / "model")) == set()
    assert (folder / "metrics.jsonl").read_bytes() == (broken / "metrics.jsonl").read_bytes()
