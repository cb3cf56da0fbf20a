"""Summary, model card and completions table."""

import json
import math
import platform

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tokenq.errors import DataError
from tokenq.learning.values import Guidance
from tokenq.run.report import Origin, Summary, model_card, versions, write_completions, write_summary

SUMMARY = Summary(
    task="walks",
    seed=0,
    before={"reward": 0.1, "greedy_reward": math.nan},
    after={"reward": 0.98765432, "kl": 2.0, "greedy_reward": None},
    reward_calls=1280,
    updates=400,
    wall_seconds=61.5,
    target_bytes=4096,
    versions={"python": "3.11.9", "peft": None},
)


def test_summary_has_the_promised_keys_and_null_where_nothing_is_known(tmp_path) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, SUMMARY)
    assert json.loads(path.read_text()) == {
        "task": "walks",
        "seed": 0,
        "before": {"reward": 0.1, "greedy_reward": None},
        "after": {"reward": 0.98765432, "kl": 2.0, "greedy_reward": None},
        "reward_calls": 1280,
        "updates": 400,
        "wall_seconds": 61.5,
        "target_bytes": 4096,
        "versions": {"python": "3.11.9", "peft": None},
    }
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_versions_of_what_runs_here() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_card_has_front_matter_for_the_hub() -> None:
    card = model_card("walker", SUMMARY, Origin("tokenq train walks.yaml", "soft", base_model='some-org/no: "quotes"'))
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": 'some-org/no: "quotes"',
        "tags": ["tokenq", "reinforcement-learning", "q-learning", "soft"],
    }


def test_a_folder_is_no_base_model_of_the_hub(tmp_path) -> None:
    card = model_card("walker", SUMMARY, Origin("tokenq train walks.yaml", "soft", base_model=str(tmp_path)))
    assert "base_model" not in front_matter(card)
    assert str(tmp_path) in card


def test_the_card_shows_results_command_and_versions() -> None:
    card = model_card("walker", SUMMARY, Origin("tokenq train walks.yaml", "soft"))
    assert "| reward | 0.1 | 0.9877 |" in card
    assert "| greedy_reward | – | – |" in card
    assert "| kl | – | 2 |" in card
    assert "```\ntokenq train walks.yaml\n```" in card
    assert "python 3.11.9" in card and "peft" not in card
    assert "400 updates, 1,280 reward calls" in card
    assert "made from scratch" in card


def test_the_card_names_the_class_that_loads_the_model() -> None:
    origin = Origin("tokenq train sst2.yaml", "mc", "AutoModelForSequenceClassification", guidance=Guidance(16.0))
    card = model_card("critic", SUMMARY, origin)
    assert front_matter(card)["pipeline_tag"] == "text-classification"
    assert 'AutoModelForSequenceClassification.from_pretrained("model")' in card
    assert "q_heads.safetensors" in card and "generate(" not in card
    card = model_card("walker", SUMMARY, Origin("tokenq train walks.yaml", "soft", own_code=True))
    assert 'AutoModelForCausalLM.from_pretrained("model", trust_remote_code=True)' in card


def test_completions_round_trip(tmp_path) -> None:
    chat = [[{"role": "user", "content": "hi"}], [{"role": "user", "content": "ho"}]]
    columns = {"prompt": chat, "completion": ["a", "b"], "length": [1.0, None], "note": [["x"], []]}
    path = write_completions(tmp_path, 12, columns)
    assert path == tmp_path / "completions" / "completions_00012.parquet"
    table = pq.read_table(path)
    assert table.column_names == ["step", "prompt", "completion", "length", "note"]
    assert table.to_pydict() == {"step": [12, 12], **columns}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_completions_are_the_same_bytes_for_the_same_rows(tmp_path) -> None:
    first = write_completions(tmp_path / "a", 1, {"prompt": ["x"], "completion": ["y"]})
    second = write_completions(tmp_path / "b", 1, {"prompt": ["x"], "completion": ["y"]})
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"prompt": ["a", "b"], "completion": ["c"]}, "'prompt': 2, 'completion': 1.*expected one length"),
        ({}, "expected one length"),
        ({"prompt": ["a", 1]}, "column 'prompt': "),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path, columns, complaint) -> None:
    with pytest.raises(DataError, match=complaint):
        write_completions(tmp_path, 1, columns)
    assert not (tmp_path / "completions").exists()
