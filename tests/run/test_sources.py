"""Where scores come from: rated files of every form, our own logs, functions, classifiers, or one after another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pyarrow.parquet
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from tokenq.checkpoint import newest_whole
from tokenq.config.parse import from_file
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError, DataError
from tokenq.nets.loading import character_tokenizer
from tokenq.preparation.sources import Source
from tokenq.replay.codecs import Joint
from tokenq.replay.offline import episodes_from_rows
from tokenq.replay.rows import read_rows
from tokenq.replay.samplers import Uniform
from tokenq.replay.shards import load_replay
from tokenq.run.data import load_data
from tokenq.run.given import Given
from tokenq.types import Episode

Start = Callable[..., Path]
SYMBOLS = "abcdefgh .:|"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% else %}:{% endif %}{% endfor %}"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def episodes_of(folder: Path) -> list[Episode]:
    newest, _ = newest_whole(folder / "checkpoints")
    assert newest is not None
    return list(load_replay(newest.folder / "replay", Uniform(), None, None).episodes)


def written(episodes: list[Episode]) -> list[list[int]]:
    """The tokens that have a text: a random model also says <pad>."""
    pad = character_tokenizer(SYMBOLS).pad_token_id
    return [[token for token in episode.tokens.tolist() if token != pad] for episode in episodes]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


FORMS: dict[str, tuple[list[dict[str, Any]], list[list[float | None]]]] = {
    "reward": (
        [{"prompt": "ab", "completion": "cd", "reward": 0.5}, {"prompt": "ab", "completion": "e", "reward": -1}],
        [[0, 0, 0.5], [0, -1]],
    ),
    "label": (
        [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}],
        [[0, 1], [0, 0]],
    ),
    "preference": ([{"prompt": "a", "chosen": "bc", "rejected": "d"}], [[0, 0, 1], [0, 0]]),
    "messages": (
        [
            {"messages": [user("a"), assistant("bc")], "reward": 2.0},
            {"messages": [user("a"), assistant("b"), user("c"), assistant("d")], "rewards": [None, 0.25]},
        ],
        [[0, 0, 2], [0, None, 0, 0.25]],
    ),
}


def test_every_form_of_rated_rows(start: Start, offline: dict[str, Any], jsonl: Callable[..., str]) -> None:
    rows = [row for form, _ in FORMS.values() for row in form]
    rewards = [episode for _, episodes in FORMS.values() for episode in episodes]
    size = {"per_device_train_batch_size": len(rewards)}
    folder = start(offline | size | {"dataset": jsonl(rows), "chat_template": TEMPLATE})
    expected = [[pytest.approx(float("nan") if r is None else r, nan_ok=True) for r in episode] for episode in rewards]
    assert [episode.rewards.tolist() for episode in episodes_of(folder)] == expected
    metrics = rows_of(folder)
    assert [row["phase"] for row in metrics] == ["offline"] * 3 and "reward" not in metrics[0]
    # The worst return, -1, is learned as 0 and values start at 0: each residual is its shifted reward.
    shifted = [sum(r or 0 for r in episode) + 1 for episode in rewards]
    rated = sum(r is not None for episode in rewards for r in episode)
    assert metrics[0]["loss"] == pytest.approx(0.5 * sum(value**2 for value in shifted) / rated, rel=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["before"], summary["after"], summary["reward_calls"]) == ({}, {}, 0)
    assert not (folder / "completions").exists() and (folder / "calibration.png").is_file()


def test_our_own_log_is_a_rated_file(start: Start, online: dict[str, Any], offline: dict[str, Any]) -> None:
    first = start(online | {"max_steps": 1})
    log = first / "completions" / "completions_00000.parquet"
    table = pyarrow.parquet.read_table(log).to_pylist()
    assert {row["terminated"] for row in table} == {True, False}
    second = start(offline | {"dataset": str(log)})
    old, new = episodes_of(first), episodes_of(second)
    assert written(new) == written(old)
    assert [episode.rewards[-1] for episode in new] == [episode.rewards[-1] for episode in old]
    assert [episode.terminated for episode in new] == [row["terminated"] for row in table]


def test_the_log_of_conversations_is_a_rated_file(
    start: Start, online: dict[str, Any], jsonl: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "judge.py").write_text("def reward(completions, **_):\n    return [len(c) + 0.5 for c in completions]")
    prompts = jsonl([{"prompt": [user("ab")]}, {"prompt": [user("c"), assistant("d"), user("e")]}])
    changes = {"prompt_dataset": prompts, "chat_template": TEMPLATE, "reward_funcs": [f"{tmp_path}/judge.py:reward"]}
    first = start(online | changes | {"max_steps": 1})
    log = first / "completions" / "completions_00000.parquet"
    rows = read_rows(str(log))
    assert rows[0].keys() >= {"rewards/reward", "reward"} and rows[0]["completion"][0]["role"] == "assistant"
    assert all(row["reward"] == row["rewards/reward"] == 1.5 for row in rows)
    tokenizer = character_tokenizer(SYMBOLS)
    tokenizer.chat_template = TEMPLATE
    codec = Joint(tokenizer, [tokenizer.eos_token_id])
    assert written(episodes_from_rows(rows, codec, "log", 64)) == written(episodes_of(first))


def test_offline_then_online_on_one_replay(start: Start, online: dict[str, Any], jsonl: Callable[..., str]) -> None:
    rows = [{"prompt": "a", "completion": "bcd"[: 1 + i % 3], "reward": float(i)} for i in range(6)]
    changes = {"dataset": jsonl(rows), "max_steps": 4, "eval_steps": 2}
    folder = start(online | changes)
    metrics = rows_of(folder)
    assert [row["phase"] for row in metrics] == ["offline", "offline", "online", "online"]
    assert [row["replay_episodes"] for row in metrics] == [6, 6, 14, 22]
    assert ["eval_reward" in row for row in metrics] == [False, True, False, True]
    assert "kl" not in metrics[1] and metrics[2]["reward_calls"] == 8
    assert [e.rewards.sum() for e in episodes_of(folder)[:6]] == [0, 1, 2, 3, 4, 5]


def test_columns_called_like_scores_reach_the_reward_function(
    start: Start, online: dict[str, Any], jsonl: Callable[..., str], tmp_path: Path
) -> None:
    """A label beside a prompt is for the judge, not a rating of a completion that is not there."""
    (tmp_path / "judge.py").write_text("def judge(label, **_):\n    return [10.0 + x for x in label]\n")
    rows = jsonl([{"prompt": "a", "label": 1}, {"prompt": "b", "label": 0}])
    changes = {"dataset": rows, "reward_funcs": [f"{tmp_path}/judge.py:judge"], "max_steps": 1, "prompt_dataset": None}
    metrics = rows_of(start(online | changes))
    assert (metrics[0]["phase"], metrics[0]["reward"]) == ("online", 10.5)


def test_a_classifier_is_a_reward(start: Start, online: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "judge"
    tokenizer = character_tokenizer(SYMBOLS)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=1, initializer_range=1.0, **size
    )
    BertForSequenceClassification(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    folder = start(online | {"reward_funcs": [str(place)], "max_steps": 1})
    rows = pyarrow.parquet.read_table(folder / "completions" / "completions_00000.parquet").to_pylist()
    judge = AutoModelForSequenceClassification.from_pretrained(place).eval()
    for row in rows:
        with torch.no_grad():
            logits = judge(**tokenizer(row["prompt"] + row["completion"], return_tensors="pt")).logits
        assert row["judge"] == pytest.approx(float(logits[0, 0]), abs=1e-4)
    assert len({row["judge"] for row in rows}) > 1


class Echo(gymnasium.Env[str, str]):
    """One turn: 1 for saying "a"."""

    observation_space = gymnasium.spaces.Text(3, charset="say")
    action_space = gymnasium.spaces.Text(6, min_length=0, charset=SYMBOLS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "say", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "say", float("a" in action), True, False, {}


def test_settings_that_make_environments_are_a_factory(tmp_path: Path) -> None:
    """What a configuration names may be the environment itself, or an object with a method that makes one."""
    gymnasium.register("tokenq/Say-v0", entry_point=Echo)
    named = {"path": "tokenq.envs.adapters:GymnasiumText", "args": {"id": "tokenq/Say-v0", "unreadable": -2.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": "unused", "environment_factory": named}))
    try:
        game = load_data(from_file(TrainConfig, tmp_path / "config.yaml"), Given()).game
        assert game is not None
        for said, reward in (("a", 1.0), ("b", 0.0), ("?", -2.0)):
            environment = game.make()
            assert environment.reset(seed=0)[0] == "say" and environment.step(said)[1] == reward
    finally:
        del gymnasium.registry["tokenq/Say-v0"]
    with pytest.raises(ConfigError, match=r"cannot make tokenq/Say-v0: .*; register it first"):
        load_data(from_file(TrainConfig, tmp_path / "config.yaml"), Given())
    with pytest.raises(ConfigError, match="got a Counter, expected an object with the methods reset and step, or with"):
        load_data(TrainConfig(environment_factory="collections:Counter"), Given())


def test_files_to_prepare_in_another_encoding_may_have_wildcards(tmp_path: Path) -> None:
    for name, text in (("a", "schön\n"), ("b", "zwölf\nelf\n")):
        (tmp_path / f"{name}.txt").write_text(text, "latin-1")
    read = Source([f"{tmp_path}/*.txt"], encoding="latin-1").read()
    assert [record.text("text") for record in read.kept] == ["schön", "zwölf", "elf"]
    assert [record.row for record in read.kept] == [1, 2, 3]
    dropped = Source([f"{tmp_path}/*.txt"], on_bad_text="drop").read()
    assert [record.text("text") for record in dropped.kept] == ["elf"] and len(dropped.removed) == 2
    with pytest.raises(DataError, match=r"a\.txt row 1: byte 3 is not UTF-8"):
        Source([f"{tmp_path}/*.txt"]).read()
    with pytest.raises(DataError, match=r"c\*\.txt: no file has such a name"):
        Source([f"{tmp_path}/c*.txt"], encoding="latin-1").read()


def test_translations_to_prepare_may_lie_in_folders_of_one_file_name(tmp_path: Path) -> None:
    for name, text in (("en", "nice\n"), ("de", "schön\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.txt").write_text(text, "latin-1")
    source = Source([f"{tmp_path}/{{en,de}}/t.txt"], ["en", "de"], encoding="latin-1")
    assert [record.values for record in source.read().kept] == [{"en": "nice", "de": "schön"}]
    whole = f"{{{tmp_path}/en,{tmp_path}/de}}/t.txt"
    (found,) = Source([whole], [f"{tmp_path}/de"], encoding="latin-1").read().kept
    assert found.values == {f"{tmp_path}/en": "nice", f"{tmp_path}/de": "schön"}
    assert (tmp_path / "de" / "t.txt").read_text("latin-1") == "schön\n", "copies stay out of the user's folders"
    (tmp_path / "en" / "t.txt").write_text("nice\nmore\n", "latin-1")
    with pytest.raises(DataError) as caught:
        source.read()
    assert str(caught.value).startswith(f"{tmp_path}/{{en,de}}/t.txt: {tmp_path}/en/t.txt has 2 lines, {tmp_path}/de/t")
    (tmp_path / "en" / "t.txt").unlink()
    with pytest.raises(DataError, match=rf"^{tmp_path}/en/t\.txt: no such file; expected one for each of en, de"):
        source.read()


def test_tensorboard_sees_the_same_numbers(start: Start, online: dict[str, Any]) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `logging`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = start(online | {"report_to": ["tensorboard"]})
    (events,) = folder.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events.parent)).Reload()
    for name in ("loss", "reward", "kl", "target_lag"):
        written = [(event.step, event.value) for event in log.Scalars(name)]
        assert written == [(row["update"], pytest.approx(row[name])) for row in rows_of(folder)]
