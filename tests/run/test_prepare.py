"""`tokenq prepare` from end to end: the folder, the report, and one line for what is wrong."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tokenq.cli import main
from tokenq.config.fields import docs_of, fields_of
from tokenq.config.parse import from_file, parse
from tokenq.config.prepare import PrepareConfig
from tokenq.errors import ConfigError

TRANSLATORS = """
def there(texts):
    return [text.upper() for text in texts]

class Back:
    def __init__(self, mark):
        self.mark = mark

    def __call__(self, texts):
        return [self.mark + text.lower() for text in texts]
"""


def rows(n: int = 60) -> list[dict[str, Any]]:
    """Random sentences over the letters that the test tokenizer knows, with a label."""
    rng = np.random.default_rng(0)
    words = [["".join(rng.choice(list("abcdefgh"), size=4)) for _ in range(8)] for _ in range(n)]
    return [{"text": " ".join(sentence), "label": i % 2} for i, sentence in enumerate(words)]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Sixty good rows, then an empty one, an exact and a near duplicate, one with control characters, a short one."""
    good = rows()
    bad = [
        {"text": " ", "label": 0},
        {"text": good[0]["text"].upper(), "label": 0},
        {"text": good[1]["text"] + ".", "label": 1},
        {"text": "abcd\x07 " * 3 + good[2]["text"][::-1], "label": 0},
        {"text": "ab", "label": 1},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*good, *bad]))
    return str(path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_folder_and_its_report(
    file: str, tmp_path: Path, checkpoint: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = f"--files {file} --output_dir {out} --length.min_words 2 --split.stratify label --split.test 0.1"
    options += f" --tokenise.tokenizer {checkpoint()} --tokenise.max_length 40 --augment.swap.probability 0.3"
    assert main(["prepare", *options.split()]) == 0
    assert {path.name for path in out.iterdir()} == {
        "train.jsonl", "valid.jsonl", "test.jsonl", "tokenised", "report.json", "report.md", "report.png", "config.yaml"
    }  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    reasons = {"empty": 1, "fewer than 2 words": 1, "exact duplicate": 1, "near duplicate": 1}
    assert report["rows"] == {"read": 65, "kept": 61, "removed": reasons}
    (near,) = [step for step in report["steps"] if step["step"] == "near"]
    (example,) = near["removed"]["near duplicate"]["examples"]
    assert (example["file"], example["row"]) == (file, 63)
    assert example["detail"] == f"of {file} row 2, similarity 1.00"
    parts = {part: lines(out / f"{part}.jsonl") for part in ("train", "valid", "test")}
    originals = [row for part in parts.values() for row in part if row["augmented"] is None]
    assert len(originals) == 61
    assert {row["augmented"] for row in parts["train"]} == {None, "swap"}
    assert all(row["augmented"] is None for part in ("valid", "test") for row in parts[part])
    tokenised = datasets.load_from_disk(out / "tokenised")
    for part, found in parts.items():
        table = tokenised[part]
        assert [{name: row[name] for name in found[0]} for row in table] == found
        assert report["parts"][part]["rows"] == len(found)
        assert report["parts"][part]["tokens"] == sum(map(len, table["input_ids"]))
    assert report["parts"]["train"]["truncated"] == sum(len(row["text"]) > 40 for row in parts["train"]) > 0
    printed = capsys.readouterr().out
    assert "rows read" in printed and "removed: near duplicate" in printed and str(out / "report.md") in printed
    page = (out / "report.md").read_text()
    assert "Removed, near duplicate: 1" in page and "Changed, control characters stripped: 1" in page


def test_pretraining_reads_stored_tokens_and_refuses_those_of_another_tokenizer(
    file: str, tmp_path: Path, checkpoint: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint()
    out = tmp_path / "out"
    options = f"--files {file} --output_dir {out} --tokenise.tokenizer {model} --split.valid 0.2"
    assert main(["prepare", *options.split()]) == 0
    stage = ["--pretrain.max_steps", "2", "--pretrain.eval_steps", "1", "--model", model]
    texts = ["--pretrain.dataset", str(out / "train.jsonl"), "--pretrain.eval_dataset", str(out / "valid.jsonl")]
    assert main(["pretrain", *stage, *texts, "--output_dir", str(tmp_path / "texts")]) == 0
    stage += ["--pretrain.dataset", str(out / "tokenised"), "--pretrain.eval_dataset", str(out / "tokenised" / "valid")]
    assert main(["pretrain", *stage, "--output_dir", str(tmp_path / "run")]) == 0
    for left in ("model/model.safetensors", "pretrain/metrics.jsonl"):
        assert (tmp_path / "run" / left).read_bytes() == (tmp_path / "texts" / left).read_bytes()
    capsys.readouterr()
    other = ["--model", "null", "--pretrain.tokenizer.type", "words", "--pretrain.architecture.layers", "1"]
    assert main(["pretrain", *stage, *other, "--output_dir", str(tmp_path / "other")]) == 2
    assert "tokenised row 1: its input_ids are not those of the run's tokenizer" in capsys.readouterr().err


def test_the_same_settings_give_the_same_bytes(file: str, tmp_path: Path, checkpoint: Callable[..., str]) -> None:
    out = tmp_path / "out"
    options = f"--files {file} --output_dir {out} --split.test 0.2 --augment.dropout.probability 0.2"
    assert main(["prepare", *options.split(), "--tokenise.tokenizer", checkpoint()]) == 0
    first = content(out)
    assert main(["prepare", str(out / "config.yaml"), "--overwrite", "true"]) == 0
    assert content(out) == first
    assert main(["prepare", str(out / "config.yaml"), "--overwrite", "true", "--seed", "1"]) == 0
    assert content(out)["test.jsonl"] != first["test.jsonl"]
    assert not from_file(PrepareConfig, out / "config.yaml").overwrite


def test_translations_against_a_test_set(tmp_path: Path) -> None:
    sides = {"en": [f"line {i} here" for i in range(40)], "de": [f"Zeile {i} hier" for i in range(40)]}
    for side, texts in sides.items():
        (tmp_path / f"train.{side}").write_text("\n".join(texts) + "\n")
        (tmp_path / f"test.{side}").write_text("\n".join(texts[:3]) + "\n")
    options = f"--files {tmp_path}/train.{{en,de}} --text_column en --target_column de --ratio.most 2"
    options += f" --against.files {tmp_path}/test.{{en,de}} --output_dir {tmp_path}/out --split null"
    assert main(["prepare", *options.split()]) == 0
    assert [row["de"] for row in lines(tmp_path / "out" / "train.jsonl")] == sides["de"][3:]
    assert {path.name for path in (tmp_path / "out").glob("*.jsonl")} == {"train.jsonl"}


def test_back_translation_through_functions_of_ones_own(file: str, tmp_path: Path) -> None:
    (tmp_path / "translators.py").write_text(TRANSLATORS)
    way = {"forward": f"{tmp_path}/translators.py:there",
           "backward": {"path": f"{tmp_path}/translators.py:Back", "args": {"mark": "h "}}}  # fmt: skip
    options = ["--files", file, "--output_dir", f"{tmp_path}/out", "--augment.back_translation", json.dumps(way)]
    assert main(["prepare", *options]) == 0
    train = lines(tmp_path / "out" / "train.jsonl")
    originals = [row for row in train if row["augmented"] is None]
    copies = [row for row in train if row["augmented"] == "back_translation"]
    assert [(row["text"], row["label"]) for row in copies] == [("h " + row["text"], row["label"]) for row in originals]


def test_back_translation_through_a_model_and_a_run(
    start: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"en": f"{a} {b}", "de": f"{a}{a} {b}{b}"} for a in "abcd" for b in "efgh"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    shape = {"type": "encoder_decoder", "layers": 1, "width": 32, "heads": 2, "context": 16}
    run = start(
        {
            "task": {"type": "translation", "template": "say {}"},
            "prompt_dataset": f"{tmp_path}/rows.jsonl",
            "pretrain": {"architecture": shape, "tokenizer": {"type": "words"}},
            "finetune": {"max_steps": 30, "learning_rate": 0.01},
            "max_completion_length": 6,
        },
        verb="finetune",
    )
    texts = [row["en"] for row in pairs]
    capsys.readouterr()
    prompts = [option for text in texts for option in ("--prompt", f"say {text}")]
    assert main(["generate", str(run), *prompts, "--greedy"]) == 0
    said = capsys.readouterr().out.splitlines()
    expected = [line.removeprefix(f"say {text}") for line, text in zip(said, texts, strict=True)]
    # The same model twice, once as it was trained to be asked, and once as any encoder–decoder.
    ways = {"forward": str(run), "backward": {"path": f"{run}/model", "args": {"prefix": "say ", "max_new_tokens": 7}}}
    options = ["--files", f"{tmp_path}/rows.jsonl", "--text_column", "en", "--output_dir", f"{tmp_path}/out"]
    options += ["--near", "null", "--split", "null", "--augment.back_translation", json.dumps(ways)]
    assert main(["prepare", *options]) == 0
    copies = [row["en"] for row in lines(tmp_path / "out" / "train.jsonl") if row["augmented"] is not None]
    prompts = [option for text in expected for option in ("--prompt", f"say {text}")]
    capsys.readouterr()
    assert main(["generate", str(run), *prompts, "--greedy"]) == 0
    back = [
        line.removeprefix(f"say {t}") for line, t in zip(capsys.readouterr().out.splitlines(), expected, strict=True)
    ]
    assert copies == [text for text in back if text] and copies


def test_what_cannot_translate(
    file: str, tmp_path: Path, checkpoint: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint()
    for way, message in (
        (model, f"got {model}, a GPT2LMHeadModel, expected an encoder–decoder, a finished run, or a function"),
        (f"{tmp_path}/none", f"got {tmp_path}/none, expected a folder or hub id with a tokenizer"),
        ({"path": model, "args": {"beams": 4}}, "got args {'beams': 4}, expected prefix (a text) and max_new_tokens"),
    ):
        ways = json.dumps({"forward": way, "backward": way})
        options = ["--files", file, "--output_dir", f"{tmp_path}/out", "--augment.back_translation", ways]
        assert main(["prepare", *options]) == 2
        assert f"augment.back_translation.forward: {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_copies_that_leak_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("".join(f"{row['text']}\n" for row in rows()))
    (tmp_path / "translators.py").write_text("def same(texts):\n    return ['held out text'] * len(texts)\n")
    (tmp_path / "held.txt").write_text("Held out TEXT\n")
    way = {name: f"{tmp_path}/translators.py:same" for name in ("forward", "backward")}
    options = ["--files", f"{tmp_path}/rows.txt", "--against.files", f"{tmp_path}/held.txt"]
    options += ["--output_dir", f"{tmp_path}/out", "--augment.back_translation", json.dumps(way)]
    assert main(["prepare", *options]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (step,) = [step for step in report["steps"] if step["step"] == "augment"]
    assert step["added"] == {} and step["facts"]["too_near_to_held_out_rows"] == report["parts"]["train"]["rows"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text_column", "body"], "rows.jsonl row 1: no column 'body'; there is text, label; set text_column"),
        (["--length.min_words", "99"], "length: no row is left of 65 (empty 1, fewer than 99 words 64)"),
        (["--split.group", "title"], "rows.jsonl row 1: column 'title' is not there, only text, label"),
        (["--split.valid", "0.6", "--split.test", "0.6"], "split.valid, test: got 0.6 and 0.6"),
        (["--augment.synonyms.vectors", "no.txt"], "no.txt: no such file; expected word vectors"),
        (["--ratio.most", "2"], "ratio: got 2 without a target_column"),
        (["--target_column", "text"], "target_column: got 'text', expected another column"),
        (["--tokenise.tokenizer", "/no/folder"], "tokenise.tokenizer: "),
        (["--against.files", "no.txt"], "no.txt: no such file"),
        (["--normalise.form", "NFD"], "normalise.form: got 'NFD' (str), expected one of NFC, NFKC or null"),
    ],
)
def test_one_line_for_what_is_wrong_and_no_folder(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str], message: str
) -> None:
    out = tmp_path / "out"
    assert main(["prepare", "--files", file, "--output_dir", str(out), *options]) == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("tokenq: error: ")]
    assert len(errors) == 1 and message in errors[0] and printed.out == ""
    assert not out.exists() and [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_only_what_prepare_left_is_replaced(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("precious: true\n")
    for overwrite in ("false", "true"):
        assert main(["prepare", "--files", file, "--output_dir", str(mine), "--overwrite", overwrite]) == 2
        assert "is not empty and not from tokenq prepare" in capsys.readouterr().err
    assert content(mine) == {"config.yaml": b"precious: true\n"}
    out = str(tmp_path / "out")
    assert main(["prepare", "--files", file, "--output_dir", out]) == 0
    assert main(["prepare", "--files", file, "--output_dir", out]) == 2
    assert "already holds prepared data; set overwrite to true" in capsys.readouterr().err


def test_every_field_has_help() -> None:
    def reachable(cls: type) -> set[type]:
        options = [field.options for field in fields_of(cls) if field.options]
        return {cls}.union(*(reachable(inner) for group in options for inner in group.classes.values()))

    for cls in reachable(PrepareConfig):
        assert {field.name for field in fields_of(cls)} == docs_of(cls).keys(), cls


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[2] / "examples" / "prepare_stories.yaml"
    assert from_file(PrepareConfig, example).split is not None
    with pytest.raises(ConfigError, match="files: got none"):
        parse([], PrepareConfig)
