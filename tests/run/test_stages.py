"""Supervised stages: what they leave behind, and that a killed one goes on as if nothing had happened."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenq.checkpoint import newest_whole
from tokenq.cli import main
from tokenq.config.parse import to_mapping
from tokenq.config.supervised import FinetuneConfig, PretrainConfig
from tokenq.config.train import TrainConfig
from tokenq.envs.classification import Classification
from tokenq.envs.questions import QuestionAnswering
from tokenq.errors import CheckpointError, ConfigError
from tokenq.learning.objectives import Soft
from tokenq.learning.offline import MC
from tokenq.nets.architectures import Encoder, Transformer
from tokenq.nets.loading import Lora
from tokenq.nets.pretext import Causal
from tokenq.nets.tokenizers import Characters, Words
from tokenq.run.finetune import finetune
from tokenq.run.folder import alone

UPDATES = 12


@pytest.fixture(scope="module")
def taught(jsonl: Callable[..., str]) -> TrainConfig:
    """A classifier with dropout, pretrained as a masked model, fine-tuned by adapters, and validated in both stages."""
    rows = [
        {"text": f"{word} {i % 3} film", "label": int(word == "good")} for i in range(8) for word in ("bad", "good")
    ]
    texts, own = jsonl([{"text": row["text"]} for row in rows]), jsonl(rows)
    return TrainConfig(
        task=Classification(["negative", "positive"], template="{text}"),
        prompt_dataset=own,
        eval_dataset=own,
        pretrain=PretrainConfig(
            max_steps=UPDATES,
            per_device_train_batch_size=4,
            optim="muon",
            learning_rate=0.01,
            dataset=texts,
            eval_dataset=texts,
            eval_steps=3,
            architecture=Encoder(layers=1, width=16, heads=2, context=16, dropout=0.2),
            tokenizer=Words(),
        ),
        finetune=FinetuneConfig(
            max_steps=UPDATES, per_device_train_batch_size=4, eval_steps=4, patience=9, scope=Lora(r=2)
        ),
        logging_steps=2,
        save_steps=3,
    )


def _left_behind(folder: Path) -> dict[str, bytes]:
    assert not list(folder.glob("*/checkpoints")), "the model is kept, and nothing goes on from there"
    kept = [folder / "model" / "model.safetensors", folder / "start" / "model.safetensors"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*kept, *folder.glob("*/metrics.jsonl")]}


def test_a_killed_stage_goes_on_and_leaves_the_same_bytes(
    taught: TrainConfig,
    tmp_path: Path,
    child_of: Callable[..., Any],
    killed_at: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also with a tokenizer that would come out otherwise if it were trained again, as one of WordPiece does."""
    whole = replace(taught, output_dir=str(tmp_path / "whole"))
    finetune(whole)
    left = _left_behind(tmp_path / "whole")
    assert len(left) == 4
    for stage, rows in (("pretrain", 2), ("pretrain", 6), ("finetune", 1), ("finetune", 5)):
        own = tmp_path / f"{stage}-{rows}"
        config = replace(taught, output_dir=str(own))
        assert killed_at(finetune, config, rows, stage)
        with monkeypatch.context() as once:
            once.setattr(Words, "train", lambda *_: pytest.fail("trained again"))
            finetune(replace(config, resume=True))
        assert _left_behind(own) == left and not (own / "tokenizer").exists()
    assert "pretraining was done" in (said := capsys.readouterr().err) and "on from update" in said


def test_a_stage_leaves_rows_of_metrics_and_a_picture(taught: TrainConfig, tmp_path: Path) -> None:
    finetune(replace(taught, output_dir=str(tmp_path / "run")))
    for stage, every in (("pretrain", 3), ("finetune", 4)):
        rows = [json.loads(line) for line in (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()]
        validated = [row["update"] for row in rows if "validation_loss" in row]
        assert validated == list(range(every, UPDATES + 1, every))
        assert [row["update"] for row in rows] == sorted({*validated, *range(2, UPDATES + 1, 2)})
        assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    assert (tmp_path / "run" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_two_processes_cannot_teach_in_one_folder(taught: TrainConfig, tmp_path: Path) -> None:
    config = replace(taught, output_dir=str(tmp_path / "run"))
    with alone(tmp_path / "run", wait=False), pytest.raises(CheckpointError, match="in use by another process"):
        finetune(config)


def test_a_stage_that_diverges_says_what_to_lower(
    start: Callable[..., Path], taught: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = to_mapping(replace(taught, output_dir=str(tmp_path / "run")))
    settings["finetune"] |= {"learning_rate": 1e30, "scope": {"type": "full"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["finetune", str(tmp_path / "config.yaml")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "fine-tuning, update " in line and "lower finetune.learning_rate and start in another folder" in line


def test_a_damaged_state_is_named(
    taught: TrainConfig, tmp_path: Path, killed_at: Callable[..., bool], capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(taught, output_dir=str(tmp_path / "run"))
    assert killed_at(finetune, config, 3, "finetune")
    newest, _ = newest_whole(tmp_path / "run" / "pretrain" / "checkpoints")
    assert newest is not None
    (newest.folder / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pretrain/checkpoints: .*remove that folder to repeat pretraining"):
        finetune(replace(config, resume=True))


def test_both_stages_are_told_of_noise(jsonl: Callable[..., str], tmp_path: Path) -> None:
    """After a few updates of a model that can say everything, noise bounds what a token can cost, ln(4/ε) here."""
    right = jsonl([{"prompt": "a", "completion": "b"}] * 4)
    config = TrainConfig(
        dataset=right,
        prompt_dataset=right,
        pretrain=PretrainConfig(
            max_steps=2,
            learning_rate=1.0,
            architecture=Transformer(layers=1, width=16, heads=2, context=8),
            tokenizer=Characters(),
        ),
        finetune=FinetuneConfig(max_steps=2, learning_rate=1.0),
        logging_steps=1,
    )

    def losses(name: str, noise: float) -> list[float]:
        objective = replace(config.pretrain, objective=Causal(noise))
        noisy = replace(config, pretrain=objective, finetune=replace(config.finetune, noise=noise))
        finetune(replace(noisy, output_dir=str(tmp_path / name)))
        rows = [
            json.loads(line)
            for stage in ("pretrain", "finetune")
            for line in (tmp_path / name / stage / "metrics.jsonl").read_text().splitlines()
        ]
        return [row["loss"] for row in rows if "loss" in row]

    exact, noisy = losses("exact", 0.0), losses("noisy", 0.5)
    assert len(exact) == len(noisy) == 4
    assert all(a != b for a, b in zip(exact, noisy, strict=True))
    assert max(exact) > 5 > math.log(20 / 0.5) > max(noisy)


@pytest.mark.parametrize("make", [lambda: FinetuneConfig(noise=1.0), lambda: Causal(noise=-0.1)])
def test_noise_that_is_no_share_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="noise"):
        make()


@pytest.mark.parametrize("where", ["finetune", "objective"])
def test_a_reader_of_spans_is_not_told_of_noise(where: str, tmp_path: Path, jsonl: Callable[..., str]) -> None:
    rows = jsonl([{"context": "a b", "question": "b", "answers": {"text": ["b"], "answer_start": [2]}}])
    config = TrainConfig(
        task=QuestionAnswering(),
        prompt_dataset=rows,
        pretrain=PretrainConfig(max_steps=1, architecture=Encoder(layers=1, width=16, heads=2), tokenizer=Words()),
        finetune=FinetuneConfig(max_steps=1, noise=0.2 if where == "finetune" else 0.0),
        objective=MC(noise=0.2) if where == "objective" else Soft(),
        output_dir=str(tmp_path / "run"),
    )
    with pytest.raises(ConfigError, match=rf"{where}\.noise: got 0\.2 for a reader"):
        finetune(config)
    assert not (tmp_path / "run" / "pretrain").exists()
