"""Any model by its folder: causal language models, whole or with LoRA adapters, and encoders as others save them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
)

from tokenq.checkpoint import load_tensors, newest_whole
from tokenq.cli import main
from tokenq.config.parse import from_file, from_mapping
from tokenq.config.train import TrainConfig
from tokenq.run.given import Given
from tokenq.run.train import prepare

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


WORDS = ["good", "bad", "film", "plot", "a"]
RATED = [{"text": f"a {word} {thing}", "label": word} for word in ("good", "bad") for thing in ("film", "plot")]
TASK = {"task": {"type": "classification", "names": ["good", "bad"]}, "target": {"sync": "none"}, "reward_funcs": []}
SIZE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A folder with a BERT of some class, with the tokenizer that comes with it."""

    def make(model: type[PreTrainedModel], **config: Any) -> str:
        folder = tmp_path_factory.mktemp("bert")
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (folder / "vocab.txt").write_text("\n".join(tokens))
        torch.manual_seed(0)
        shape = BertConfig(vocab_size=len(tokens), max_position_embeddings=32, **SIZE, **config)
        model(shape).save_pretrained(folder)
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture(scope="module")
def bandit(online: dict[str, Any], jsonl: Callable[..., str]) -> dict[str, Any]:
    """The configuration of a classification from rewards alone, but for `model`."""
    return online | TASK | {"prompt_dataset": jsonl(RATED), "max_completion_length": 1}


def refused(config: dict[str, Any], place: Path, verb: str = "train") -> bool:
    """Whether a command takes a configuration for a mistake."""
    (place / "config.yaml").write_text(yaml.safe_dump(config | {"output_dir": str(place / "out")}))
    return main([verb, str(place / "config.yaml")]) == 2


def test_a_head_made_for_bandit_feedback_is_kept(
    start: Start, bandit: dict[str, Any], bert: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = start(bandit | {"model": bert(BertForMaskedLM), "max_steps": 1})
    made = json.loads((folder / "start" / "config.json").read_text())
    assert (made["architectures"], made["id2label"]) == (["BertForSequenceClassification"], {"0": "good", "1": "bad"})
    kept = weights(folder / "start")
    assert changed(kept, weights(folder / "model")) >= {"classifier.weight"}
    config = replace(from_file(TrainConfig, folder / "config.yaml"), resume=True, max_steps=2)
    resumed = prepare(config, Given())
    assert changed(kept, resumed.reference.network.causal.state_dict()) == set()
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--eval_samples", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["before"]["kl"] == 0.0


def test_what_only_fills_masks_is_refused_without_a_task(
    start: Start,
    online: dict[str, Any],
    bert: Callable[..., str],
    jsonl: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = "model: got BertForMaskedLM, which fills masks and decides nothing; expected a task"
    model = {"model": bert(BertForMaskedLM)}
    assert refused(online | model, tmp_path) and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    taught = {"finetune": {"max_steps": 1, "dataset": jsonl([{"prompt": "a film", "completion": "good"}])}}
    assert refused(model | taught, tmp_path, "finetune") and message in capsys.readouterr().err
    texts = jsonl([{"text": "a good film"}])
    pretrained = start(model | {"pretrain": {"max_steps": 1, "dataset": texts}}, verb="pretrain")
    for command in (["generate", str(pretrained), "--prompt", "a"], ["evaluate", str(pretrained), "--dataset", texts]):
        assert main(command) == 2
        assert message in capsys.readouterr().err


def test_labels_are_those_of_the_task(
    bandit: dict[str, Any], bert: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unnamed labels take its names in its order, others keep their own numbers: rewards find them either way."""
    for labels, expected in (({}, ["good", "bad"]), ({"id2label": {0: "bad", 1: "good"}}, ["bad", "good"])):
        place = {"output_dir": str(tmp_path / expected[0])}
        model = bert(BertForSequenceClassification, **labels)
        session = prepare(from_mapping(TrainConfig, bandit | place | {"model": model}, "test"), Given())
        assert list(session.network.causal.config.id2label.values()) == expected
        assert session.evaluator is not None and session.evaluator.evaluate().metrics["reward"] > 0
    for labels in ({"num_labels": 3}, {"id2label": {0: "negative", 1: "positive"}}):
        model = bert(BertForSequenceClassification, **labels)
        own = ", ".join(labels.get("id2label", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}).values())
        assert refused(bandit | {"model": model}, tmp_path)
        assert f"task.names: got good, bad, expected the labels of the model, {own}; set" in capsys.readouterr().err


def test_how_long_a_text_may_get_is_nothing_to_a_classifier(
    bandit: dict[str, Any],
    bert: Callable[..., str],
    jsonl: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It decides once: neither its context of 32 nor a prompt that fills it is too short for 64 more tokens."""
    model = {"model": bert(BertForSequenceClassification), "max_completion_length": 64}
    for words, fits in ((30, True), (31, False)):  # beside [CLS] and [SEP]
        rows = jsonl([{**row, "text": " ".join(["a"] * words)} for row in RATED])
        config = bandit | model | {"prompt_dataset": rows, "output_dir": str(tmp_path / str(words))}
        if fits:
            session = prepare(from_mapping(TrainConfig, config, "test"), Given())
            assert session.evaluator is not None and 0 <= session.evaluator.evaluate().metrics["reward"] <= 1
        else:
            assert refused(config, tmp_path) and "row 1" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_patience_needs_rows_to_validate_on(
    stage: str, bandit: dict[str, Any], checkpoint: Callable[..., str], tmp_path: Path, capsys: Any
) -> None:
    config = {name: bandit[name] for name in ("task", "prompt_dataset")} | {"model": checkpoint()}
    assert refused(config | {stage: {"max_steps": 9, "patience": 2}}, tmp_path, stage)
    expected = f"{stage}.patience: got 2 without rows to validate on; set {stage}.eval_dataset, or leave patience out"
    assert expected in capsys.readouterr().err
