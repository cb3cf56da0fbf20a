"""Settings, data, models and folders that cannot be right: one line says so, status 2, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tokenq.cli import main

TINY = (
    "--task.walks 40 --pretrain.max_steps 2 --pretrain.architecture.layers 1 --pretrain.architecture.width 16 "
    "--pretrain.architecture.heads 2 --pretrain.architecture.context 16 "
    "--max_steps 2 --per_device_train_batch_size 4 --generation_batch_size 4 "
    "--max_completion_length 6 --eval_samples 2"
).split()
GOOD = {"prompt": "a", "completion": "b", "reward": 1}
SPOKEN = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
REWARDS = """
def good(completions, **kwargs):
    return [1.0] * len(completions)
"""

Refused = Callable[..., str]
Rows = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `tokenq train` and return its only line: status 2, no word more, and no folder for a run."""

    def run(*options: str, base: list[str] = TINY, out: Path = tmp_path / "out") -> str:
        before = _content(out)
        assert main(["train", *base, "--output_dir", str(out), *options]) == 2
        assert _content(out) == before
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and printed.err.startswith("tokenq: error: ")
        return printed.err.removeprefix("tokenq: error: ").strip()

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """A file of rows; a text is a line as it stands."""

    def write(*rows: dict[str, Any] | str) -> str:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return str(tmp_path / "rows.jsonl")

    return write


def _content(folder: Path) -> dict[str, bytes | None] | None:
    if not folder.is_dir():
        return None
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--learning_rat 1", "unknown option '--learning_rat'; did you mean '--learning_rate'?"),
        ("--objective.bta 1", "did you mean '--objective."),
        ("--max_steps many", "max_steps: got 'many' (str), expected int"),
        ("--max_steps 2.5", "max_steps: got '2.5' (str), expected int"),
        ("--learning_rate fast", "learning_rate: got 'fast' (str), expected float"),
        ("--temperature -1", "temperature: got -1.0, expected a finite number > 0"),
        ("--seed 9999999999999999999999", "seed: got 9999999999999999999999, expected an integer in 0.."),
        ("--task.walks 0", "task.walks: got 0, expected an integer >= 1"),
        ("--task.graph_seed -1", "task.graph_seed: got -1, expected an integer in 0.."),
        ("--reward_scale per_prompt", "expected at least 2: a completion is compared with the others of its prompt"),
        ("--reward_scale per_prompt --num_generations 2", "per_prompt with 1 updates from scored data"),
        ("--offline_steps 9", "offline_steps: got 9, expected at most max_steps (2)"),
        (
            "--replay.capacity_episodes 39",
            "replay.capacity_episodes: got 39, expected at least 40, the scored",
        ),
        ("--replay.capacity_tokens 99", "replay.capacity_tokens: got 99, expected at least "),
        ("--max_completion_length 16", "max_completion_length: got 16, expected less than 16, the model's context"),
        ("--pretrain.architecture.vocabulary 3", "vocabulary: got 3, expected at least 23"),
        ("--reward_funcs json:lods", "reward_funcs: 'json' has no 'lods'; did you mean 'loads'?"),
        ("--reward_funcs no_such_module:f", "reward_funcs: no module 'no_such_module'; install it, or name a file"),
        ("--reward_funcs no_such_file.py:f", "no_such_file.py"),
        ("--reward_weights 1 --reward_weights 2", "reward_weights: got [1.0, 2.0], expected 1 finite numbers, one for"),
    ],
)
def test_a_setting_that_cannot_be_right(refused: Refused, options: str, message: str) -> None:
    assert message in refused(*options.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\n", "wrong.yaml: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("objective: {type: soft, bta: 1}\n", "unknown key 'objective.bta' (the type of objective is soft); did you"),
        ("max_steps: many\n", "wrong.yaml: max_steps: got 'many' (str), expected int"),
        ("learning_rate: .nan\n", "learning_rate: got nan, expected a finite number > 0"),
        ("temperature: .nan\n", "temperature: got nan, expected a finite number > 0"),
        ("temperature: .inf\n", "temperature: got inf, expected a finite number > 0"),
        ("save_steps: [1]\n", "wrong.yaml: save_steps: got [1] (list), expected int"),
    ],
)
def test_a_file_that_cannot_be_right(refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    assert message in refused(str(tmp_path / "wrong.yaml"), base=[])


def test_a_configuration_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    message = refused(str(tmp_path / "absent.yaml"), base=[])
    assert message == f"{tmp_path / 'absent.yaml'}: No such file or directory; expected a YAML file"


def test_weights_without_functions(refused: Refused, rows: Rows, tmp_path: Path) -> None:
    message = refused("--dataset", rows(GOOD), "--model", str(tmp_path), "--reward_weights", "1", base=[])
    assert message == "reward_weights: got [1.0] without reward_funcs; set both or neither"


# --- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "no reward; expected one of chosen, label, reward, rewards"),
        (GOOD | {"reward": None}, "column 'reward' is missing; expected a finite number"),
        (GOOD | {"reward": float("nan")}, "column 'reward' is NaN; expected a finite number; fix or drop the row"),
        (GOOD | {"reward": float("inf")}, "column 'reward' is inf; expected a finite number; fix or drop the row"),
        (GOOD | {"reward": 10**400}, "expected a finite number"),
        (GOOD | {"reward": "high"}, "column 'reward' is 'high'; expected a finite number"),
        ({"prompt": "a", "reward": 1}, "a reward and no completion"),
        ({"prompt": "a" * 20, "completion": "b", "reward": 1}, "column 'prompt' has 20 tokens; expected at most 10"),
        ({"prompt": "a", "completion": "b" * 20, "reward": 1}, "has 22 tokens; expected at most 16"),
        ({"messages": SPOKEN, "reward": 1}, "the tokenizer has none; set `chat_template`"),
        ('{"prompt": "a",', "is not valid JSON"),
    ],
)
def test_a_bad_row_of_scored_data(refused: Refused, rows: Rows, row: dict[str, Any] | str, message: str) -> None:
    source = rows(GOOD, row)
    line = refused("--dataset", source)
    assert line.startswith(f"{source} row 2: ") and message in line


def test_a_list_of_turn_rewards_of_the_wrong_length(refused: Refused, rows: Rows) -> None:
    source = rows({"messages": SPOKEN, "rewards": [1, 2]})
    line = refused("--dataset", source, "--chat_template", TEMPLATE, "--pretrain.max_steps", "0")
    assert line.startswith(f"{source} row 1: column 'rewards' has 2 entries; expected 1, one per assistant turn")


def test_a_dataset_that_is_not_there_or_empty(refused: Refused, rows: Rows) -> None:
    assert refused("--dataset", "absent.jsonl") == "absent.jsonl: no such file; expected a data file; check the path"
    assert "rows.jsonl: has no rows; expected at least one" in refused("--dataset", rows())
    assert "rows.jsonl: has no rows; expected at least one" in refused("--prompt_dataset", rows())


@pytest.mark.parametrize("option", ["--prompt_dataset", "--eval_dataset"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "abcabcabcab"}, "column 'prompt' has 11 tokens; expected at most 10, to leave room for 6 of 16"),
        ({"prompt": "abc" * 9}, "column 'prompt' has 27 tokens; expected at most 10"),
        ({"prompt": ""}, "column 'prompt' has no tokens"),
        ({"prompt": 5}, "column 'prompt' is 5; expected a string"),
        ({"prompt": SPOKEN[:1]}, "the tokenizer has none; set `chat_template`"),
        ({"question": "a"}, "no prompt; expected a column prompt"),
        ({"text": 5}, "no prompt; expected a column prompt"),
    ],
)
def test_a_bad_prompt(refused: Refused, rows: Rows, option: str, row: dict[str, Any], message: str) -> None:
    source = rows({"prompt": "a"}, {"prompt": "a"}, row)  # each prompt counts once, rows are counted all the same
    line = refused("--offline_steps", "0", "--prompt_words", "2", option, source)
    assert line.startswith(f"{source} row 3: ") and message in line


def test_rows_that_are_good_for_nothing(refused: Refused, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(REWARDS)
    judged = ["--reward_funcs", f"{tmp_path}/rewards.py:good"]
    assert "no row has a prompt or a reward" in refused("--dataset", rows({"text": "a"}), *judged)
    assert "got rows without scores and no reward function" in refused("--dataset", rows({"prompt": "a"}), base=[])


# --- models and folders --------------------------------------------------------------------------------------------


def test_a_tokenizer_without_end_token(refused: Refused, tiny: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny("gpt2").save_pretrained(model)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(model)
    line = refused("--model", str(model))
    assert line.startswith(f"model: the tokenizer of {model} has no end token; set eos_token in its tokenizer_config")


def test_a_model_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert f"model: got {tmp_path}/absent, expected a folder or hub id" in refused("--model", f"{tmp_path}/absent")


def test_a_folder_that_is_someone_elses(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "thesis.txt").write_text("all of it")
    assert "is not empty and holds no run; choose another folder" in refused(out=folder)
    assert "is not empty and holds no run; choose another folder" in refused("--resume", "true", out=folder)


def test_a_configuration_written_by_hand_is_not_written_over(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text("task: walks  # my notes\n")
    assert "already holds a run" in refused(out=folder)


def test_a_file_where_the_folder_should_be(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file is a file; choose a folder" in refused(out=tmp_path / "file")
    assert "cannot be written" in refused(out=tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "x"


def test_an_attempt_that_got_nowhere_is_no_run_and_a_run_is_left_alone(
    refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", *TINY, "--output_dir", str(folder), "--report_to", "nobody"]) == 2
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert "report_to: got ['nobody']" in capsys.readouterr().err
    assert main(["train", *TINY, "--output_dir", str(folder)]) == 0
    capsys.readouterr()
    assert "already holds a run; set resume to true to go on with it, or choose another" in refused(out=folder)
    line = refused("--resume", "true", "--seed", "1", out=folder)
    assert "holds another run: seed 0 there and 1 here; use its settings, or another folder" in line
    assert "holds another run: objective " in refused("--resume", "true", "--objective", "dqn", out=folder)
