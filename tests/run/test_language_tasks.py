"""Tasks from rows of data with every class of model: taught, then trained from scores, measured, and gone on with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenq.acting.fluency import Fluency
from tokenq.cli import main
from tokenq.config.train import TrainConfig
from tokenq.envs.questions import QuestionAnswering
from tokenq.errors import DataError
from tokenq.run.data import load_data
from tokenq.run.given import Given

Start = Callable[..., Path]
Jsonl = Callable[..., str]

GOOD, BAD = ["good", "great", "fine"], ["bad", "awful", "poor"]
THINGS = ["film", "plot", "cast", "song", "book", "end"]
ROWS = [{"text": f"a {word} {thing}", "label": int(word in GOOD)} for thing in THINGS for word in (*GOOD, *BAD)]
SIZE = {"layers": 1, "width": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "encoder": SIZE | {"heads": 2, "context": 16},
    "encoder_decoder": SIZE | {"heads": 2, "context": 16},
    "transformer": SIZE | {"heads": 2, "context": 16},
    "recurrent": SIZE | {"cell": "lstm"},
}


@pytest.fixture(scope="session")
def classification(jsonl: Jsonl) -> Callable[..., dict[str, Any]]:
    """The configuration of a classification by a model of some architecture; every label depends on one word."""

    def make(architecture: str, **changes: Any) -> dict[str, Any]:
        return {
            "task": {"type": "classification", "names": ["negative", "positive"], "template": "{text} "},
            "prompt_dataset": jsonl(ROWS[6:]),
            "eval_dataset": jsonl(ROWS[:6]),
            "pretrain": {
                "architecture": {"type": architecture} | ARCHITECTURES[architecture],
                "tokenizer": {"type": "words"},
            },
            "finetune": {"max_steps": 250, "learning_rate": 0.003, "eval_steps": 125},
            "max_steps": 3,
            "offline_steps": 0,
            "per_device_train_batch_size": 8,
            "generation_batch_size": 8,
            "max_completion_length": 2,
            "eval_samples": 6,
            "save_steps": 2,
        } | changes

    return make


def measured(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", str(run), *options]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_model_class_is_taught_trained_and_measured(
    architecture: str, start: Start, classification: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    objective = {"type": "soft", "values": {"type": "head"}, "lam": 1.0} if architecture == "recurrent" else None
    run = start(classification(architecture) | ({"objective": objective} if objective else {}))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["before"]["greedy_reward"] == 1.0, "six words decide"
    figures = measured(run, capsys, "--metrics", "accuracy", "--metrics", "f1", "--metrics", "perplexity")
    assert figures["before"]["accuracy"] == figures["before"]["f1"] == 1.0
    assert 1.0 <= figures["before"]["perplexity"] < 1.5
    assert figures["after"]["accuracy_low"] <= figures["after"]["accuracy"] <= figures["after"]["accuracy_high"]
    assert main(["generate", str(run), "--prompt", "a bad film", "--greedy"]) == 0
    assert "negative" in capsys.readouterr().out


def test_bandit_feedback_alone_teaches_a_classifier(start: Start, classification: Callable[..., Any]) -> None:
    changes = {"finetune": {}, "max_steps": 60, "learning_rate": 0.01, "max_completion_length": 1, "save_steps": 60}
    run = start(classification("encoder", **changes), "--target.sync", "none", "--logging_steps", "60")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["before"]["reward"] < 0.9 and summary["after"]["greedy_reward"] == 1.0
    assert summary["reward_calls"] == 480


def test_a_resumed_run_reads_the_model_it_was_taught(start: Start, classification: Callable[..., Any]) -> None:
    config = classification("encoder", finetune={"max_steps": 2}, max_completion_length=1)
    run = start(config)
    weights = (run / "model" / "model.safetensors").read_bytes()
    for name in ("summary.json", "checkpoints/update-0000003", "checkpoints/3"):
        if (run / name).is_file():
            (run / name).unlink()
    assert main(["train", str(run.parent / "config.yaml"), "--resume", "true"]) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == weights


def test_spans_are_found(start: Start, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["Ann", "Bob", "Eve", "Joe"]
    rows = [
        {"context": f"then {name} came to the {place}", "question": "who came ?", "answer": name}
        for name in names
        for place in ("garden", "house", "lake")
    ]
    config = {
        "task": {"type": "question_answering", "template": "{question}", "score": "exact_match"},
        "prompt_dataset": jsonl(rows),
        "pretrain": {
            "architecture": {"type": "encoder", "context": 32} | SIZE | {"heads": 2},
            "tokenizer": {"type": "words"},
        },
        "finetune": {"max_steps": 60, "learning_rate": 0.01},
        "max_steps": 2,
        "offline_steps": 0,
        "generation_batch_size": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": 2,
        "eval_samples": 12,
    }
    run = start(config)
    assert json.loads((run / "summary.json").read_text())["before"]["greedy_reward"] == 1.0
    assert measured(run, capsys)["before"]["exact_match"] == 1.0


def test_a_scope_of_fine_tuning_leaves_the_rest_alone(
    start: Start, classification: Callable[..., Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    plain = classification(
        "transformer",
        finetune={},
        pretrain={
            "max_steps": 1,
            "architecture": {"type": "transformer"} | ARCHITECTURES["transformer"] | {"layers": 2},
            "tokenizer": {"type": "words"},
        },
    )
    base = start(plain, verb="pretrain") / "model"
    before = load_file(base / "model.safetensors")
    for scope, changed in (
        ({"type": "last_layers", "k": 1}, ("transformer.h.1.", "transformer.ln_f.")),
        ({"type": "lora", "r": 2}, ("transformer.h.",)),
        ({"type": "full"}, ("transformer.",)),
    ):
        taught = start(
            plain | {"model": str(base), "pretrain": {}, "finetune": {"max_steps": 2, "scope": scope}}, verb="finetune"
        )
        after = load_file(taught / "model" / "model.safetensors")
        moved = {name for name, tensor in after.items() if not tensor.equal(before[name])}
        assert moved and all(name.startswith(changed) or name in TIED for name in moved), (scope, moved)


TIED = ("transformer.wte.weight", "lm_head.weight")
"""The output matrix, which belongs to the layers above the last one."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune": {"max_steps": 0}}, "finetune.max_steps: got 0, expected the number of updates to make"),
        (
            {"task": {"type": "classification", "names": ["negative"]}},
            "task.names: got ['negative'], expected",
        ),
        ({"task": {"type": "translation"}}, "row 1: no column 'en'; expected one among text, label"),
        (
            {"task": {"type": "translation", "template": "{fr}"}},
            "task.template: got '{fr}', expected a text with {} or {en}",
        ),
        ({"task": {"type": "translation", "tokenize": "words"}}, "task.tokenize: got 'words'"),
        ({"task": {"type": "babi", "sentences": 0}}, "task.sentences: got 0, expected an integer >= 1"),
        ({"pretrain": {"architecture": {"type": "encoder"}}}, "model: got none, expected a folder or hub id"),
    ],
)
def test_what_cannot_be_taught(
    changes: dict[str, Any],
    message: str,
    classification: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(classification("encoder", **changes)))
    command = ["finetune", str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path / "out")]
    assert main(command) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "train", "evaluated", "finetune"),
    [
        ("train", 0, True, None),
        ("finetune", 0, True, None),
        ("finetune", 1, False, (0, True)),
        ("finetune", 1, True, (0, False)),
    ],
)
def test_a_label_that_is_never_taught_is_named_with_its_row(
    verb: str,
    train: int,
    evaluated: bool,
    finetune: tuple[int, bool] | None,
    classification: Callable[..., Any],
    jsonl: Jsonl,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Evaluation has a label that training lacks; every prompt counts once, and rows are counted all the same."""
    import yaml

    taught = {0: jsonl([{"text": "bad film", "label": 0}] * 2), 1: jsonl([{"text": "a", "label": i} for i in (0, 1)])}
    unseen = jsonl([{"text": "poor plot", "label": 0}] * 3 + [{"text": "fine plot", "label": 1}])
    settings: dict[str, Any] = {"max_steps": 1}
    if finetune is not None:
        settings |= {"dataset": taught[finetune[0]]} | ({"eval_dataset": unseen} if finetune[1] else {})
    changes = {"prompt_dataset": taught[train], "eval_dataset": unseen if evaluated else None, "finetune": settings}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(classification("encoder", **changes)))
    assert main([verb, str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    assert f"{unseen} row 4: has the label 'positive', which no training row has" in capsys.readouterr().err


def test_questions_of_one_paragraph_are_of_one_row(jsonl: Jsonl) -> None:
    asked = [{"question": f"{word}?", "answers": ["film"]} for word in GOOD]
    source = jsonl([{"context": "a film", "qas": asked}, {"context": "a film", "question": "2?", "answer": "film"}])
    data = load_data(TrainConfig(task=QuestionAnswering(), prompt_dataset=source), Given())
    assert list(data.prompt_numbers) == [1, 1, 1, 2]
    with pytest.raises(DataError, match="has 1 rows and no question; expected at least one"):
        load_data(TrainConfig(task=QuestionAnswering(), prompt_dataset=jsonl([{"context": "a", "qas": []}])), Given())


def test_a_lesson_that_does_not_fit_is_named_by_its_row(
    jsonl: Jsonl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"question": f"{word}?", "answers": ["film"]} for word in GOOD]
    long = {"context": "a film " * 20, "question": "2?", "answer": "film"}
    config = {
        "output_dir": str(tmp_path / "run"),
        "task": {"type": "question_answering"},
        "pretrain": {
            "max_steps": 0,
            "architecture": {"type": "transformer", "layers": 1, "width": 16, "heads": 2, "context": 16},
            "tokenizer": {"type": "words"},
        },
        "finetune": {"max_steps": 1, "dataset": jsonl([{"context": "a film", "qas": asked}, long])},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["finetune", str(tmp_path / "config.yaml")]) == 2
    assert f"{config['finetune']['dataset']} row 2: " in capsys.readouterr().err


def test_a_metric_that_does_not_fit_the_task(
    start: Start, jsonl: Jsonl, classification: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = jsonl([{"text": "a good film"}])
    config = {
        "pretrain": {
            "max_steps": 1,
            "dataset": texts,
            "eval_dataset": texts,
            "architecture": {"type": "recurrent"} | ARCHITECTURES["recurrent"],
            "tokenizer": {"type": "words"},
        }
    }
    run = start(config, verb="pretrain")
    assert measured(run, capsys, "--metrics", "perplexity")["after"]["perplexity"] > 1
    assert main(["evaluate", str(run), "--metrics", "bleu"]) == 2
    assert "metrics: got 'bleu', which needs predictions, references; this task has log_probabilities" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", str(run), "--metrics", "blue"]) == 2
    assert "did you mean 'bleu'?" in capsys.readouterr().err


def test_a_counted_model_is_a_reward(start: Start, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]) -> None:
    texts = jsonl([{"text": row["text"]} for row in ROWS])
    counted = {"architecture": {"type": "ngram", "order": 2}, "tokenizer": {"type": "words"}}
    made = start({"pretrain": {"dataset": texts, "eval_dataset": texts} | counted}, verb="pretrain") / "model"
    assert 1 < float(capsys.readouterr().out.split("perplexity ")[1].split()[0]) < 6
    fluent, not_fluent = Fluency(str(made))(["a", "a"], [" good film", " film good"])
    assert fluent > not_fluent
