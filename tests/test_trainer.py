"""QTrainer: TRL's argument names and reward functions over the same parts."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenq import ConfigError, Logits, QTrainer, Soft, TargetConfig, TrainConfig
from tokenq.cli import main
from tokenq.learning.target import Adapter

Checkpoint = Callable[..., str]
ROWS = [{"prompt": letter * 2, "level": i} for i, letter in enumerate("abcdefgh")]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% else %}:{% endif %}{% endfor %}"


def length(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.fixture
def args(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        per_device_train_batch_size=8,
        generation_batch_size=8,
        max_completion_length=5,
        logging_steps=1,
        eval_samples=4,
        learning_rate=0.01,
    )


def first_row(args: TrainConfig) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((Path(args.output_dir or "") / "metrics.jsonl").read_text().splitlines()[0])
    return row


def first_table(args: TrainConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(
        Path(args.output_dir or "") / "completions" / "completions_00000.parquet"
    ).to_pylist()
    return rows


def test_a_folder_and_a_dataset(args: TrainConfig, checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = QTrainer(checkpoint(), length, args, Dataset.from_list(ROWS), eval_dataset=Dataset.from_list(ROWS[:2]))
    before = trainer.evaluate()
    summary = trainer.train()
    assert before == summary.before and before["kl"] == 0.0
    assert summary.reward_calls == 16 and summary.updates == 2
    assert trainer.evaluate() == summary.after
    trainer.save_model(str(tmp_path / "saved"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(again(tokens).logits, trainer.model(tokens).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token == "<end>"
    assert {row["prompt"] for row in first_table(args)} == {row["prompt"] for row in ROWS}


def test_a_model_object_is_trained_in_place_as_its_folder_would_be(
    args: TrainConfig, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint()
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = QTrainer(model, [length], args, ROWS, processing_class=tokenizer)
    summary = given.train()
    other = QTrainer(folder, [length], TrainConfig(**vars(args) | {"output_dir": str(tmp_path / "b")}), ROWS)
    assert other.train().after == summary.after
    assert given.model is model
    fresh = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.equal(model.lm_head.weight, fresh.lm_head.weight)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.model.parameters(), strict=True))


def test_the_tokenizer_is_found_beside_a_model_object(args: TrainConfig, checkpoint: Checkpoint) -> None:
    trainer = QTrainer(AutoModelForCausalLM.from_pretrained(checkpoint()), length, args, ROWS)
    assert trainer.session.tokenizer.eos_token == "<end>"


def test_reward_functions_by_the_contract(args: TrainConfig, checkpoint: Checkpoint) -> None:
    """Keyword columns, several with weights, an asynchronous one, None where it does not apply, and both logs."""
    seen: list[tuple[int, int]] = []

    def by_level(prompts, completions, completion_ids, level, trainer_state, log_extra, log_metric, **_):
        log_extra("shouted", [text.upper() for text in completions])
        log_metric("levels", sum(level))
        seen.append((trainer_state.global_step, trainer_state.max_steps))
        assert all(len(text) <= len(ids) for text, ids in zip(completions, completion_ids, strict=True))
        return [float(number) for number in level]

    async def slow(completions, **_):
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    class Sometimes:
        def __call__(self, prompts, **_):
            return [None if prompt[0] in "abcd" else 3.0 for prompt in prompts]

    weights = TrainConfig(**vars(args) | {"reward_weights": [1.0, 0.5, 2.0]})
    QTrainer(checkpoint(), [by_level, slow, Sometimes()], weights, ROWS).train()
    table = first_table(args)
    assert len(table) == 8 and (0, 2) in seen and (1, 2) in seen
    for row in table:
        level = "abcdefgh".index(row["prompt"][0])
        sometimes = None if level < 4 else 3.0
        assert (row["by_level"], row["slow"], row["Sometimes"]) == (level, 1.0, sometimes)
        assert row["reward"] == level + 0.5 + 2 * (sometimes or 0)
        assert row["shouted"] == row["completion"].upper()
    metrics = first_row(args)
    assert metrics["levels"] == 28 and metrics["rewards/by_level/mean"] == 3.5 and metrics["rewards/Sometimes/std"] == 0
    assert metrics["reward"] == pytest.approx(np.mean([row["reward"] for row in table]))


def test_completions_that_nobody_rates_train_nothing(args: TrainConfig, checkpoint: Checkpoint) -> None:
    folder = checkpoint()

    def silent(completions: list[str], **_: Any) -> list[None]:
        return [None] * len(completions)

    trainer = QTrainer(folder, silent, args, ROWS)
    summary = trainer.train()
    assert summary.reward_calls == 16
    metrics = first_row(args)
    assert metrics["loss"] == 0.0 and metrics["reward"] is None and metrics["q_mean"] is None
    assert [row["reward"] for row in first_table(args)] == [None] * 8
    fresh = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), trainer.model.parameters(), strict=True))


def test_conversations_by_a_chat_template(args: TrainConfig, checkpoint: Checkpoint) -> None:
    def judge(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        assert all(prompt[-1]["role"] == "user" for prompt in prompts)
        assert all(len(answer) == 1 and answer[0]["role"] == "assistant" for answer in completions)
        return [float(len(answer[0]["content"])) for answer in completions]

    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": letter * 2}]} for letter in "abcd"])
    folder = checkpoint()
    with_template = TrainConfig(**vars(args) | {"chat_template": TEMPLATE})
    trainer = QTrainer(folder, judge, with_template, rows, processing_class=AutoTokenizer.from_pretrained(folder))
    trainer.train()
    colon = trainer.session.tokenizer.convert_tokens_to_ids(":")
    for episode in trainer.session.replay.episodes:
        assert episode.tokens[2] == colon and episode.decisions[0] == 3
    table = first_table(args)
    assert [row["reward"] for row in table] == [len(row["completion"][0]["content"]) for row in table]


def test_rated_rows_need_no_reward_function(args: TrainConfig, checkpoint: Checkpoint) -> None:
    rows = [{"prompt": "a", "completion": "bc", "reward": 1.0}, {"prompt": "a", "completion": "d", "reward": 0.0}]
    trainer = QTrainer(checkpoint(), args=args, train_dataset=Dataset.from_list(rows))
    summary = trainer.train()
    assert (summary.before, summary.after, summary.reward_calls) == ({}, {}, 0)
    assert first_row(args)["phase"] == "offline" and first_row(args)["return_max"] == 1.0
    with pytest.raises(ConfigError, match="evaluate: got no reward function"):
        trainer.evaluate()


@pytest.mark.parametrize("wrapped", [False, True], ids=["peft_config", "PEFT model"])
def test_adapters(args: TrainConfig, checkpoint: Checkpoint, tmp_path: Path, wrapped: bool) -> None:
    folder = checkpoint("llama")
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = get_peft_model(base, lora) if wrapped else base
    config = TrainConfig(**vars(args) | {"target": TargetConfig(scope=Adapter()), "objective": Soft(Logits(beta=0.5))})
    trainer = QTrainer(model, length, config, ROWS, peft_config=None if wrapped else lora)
    summary = trainer.train()
    assert summary.target_bytes == 4 * (2 * 16 + 16 * 2)
    assert summary.before["kl"] == 0.0 != summary.after["kl"]
    trainer.save_model(str(tmp_path / "merged"))
    before = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == [
        "model.layers.0.self_attn.q_proj.weight"
    ]


def test_the_run_of_a_model_object_has_no_start_to_compare_with(
    args: TrainConfig, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judge.py").write_text("def length(completions, **_):\n    return [len(text) for text in completions]")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = TrainConfig(**vars(args) | {"prompt_dataset": str(tmp_path / "prompts.jsonl")})
    summary = QTrainer(
        AutoModelForCausalLM.from_pretrained(checkpoint()), f"{tmp_path}/judge.py:length", config
    ).train()
    capsys.readouterr()
    assert main(["evaluate", config.output_dir or "", "--eval_samples", "4"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["before"] is None and figures["after"]["kl"] is None
    assert figures["after"]["reward"] == pytest.approx(summary.after["reward"])
