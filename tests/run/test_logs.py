"""The example that turns public conversations into scored rows: each set from a row written by hand, and bad rows."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tokenq.errors import DataError

SCRIPT = Path(__file__).parents[2] / "examples" / "logs" / "rows.py"


@pytest.fixture(scope="module")
def rows() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rows", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").rstrip("\n").split("\n")]


def said(conversation: Any) -> list[str]:
    return [f"{m['role'][0]}: {m['content']}" for m in conversation.messages]


DEAL = {
    "counts": [1, 3, 1],
    "values": [10, 0, 0],
    "partner_values": [2, 2, 2],
    "dialogue": "YOU: the book ? <eos> THEM: deal <eos> YOU: <selection>",
    "status": "agree",
    "split": [1, 0, 0],
    "reward": 10,
}


def test_a_deal_ends_with_the_split_that_was_entered(rows: ModuleType) -> None:
    made = rows.deal(DEAL)
    stated = "1 books worth 10, 3 hats worth 0, 1 balls worth 0."
    assert said(made) == [f"u: {stated}", "a: the book ?", "u: deal", "a: take 1 0 0"]
    assert made.rewards == [10.0, None]
    swapped = DEAL["dialogue"].replace("YOU", "ME").replace("THEM", "YOU").replace("ME", "THEM")
    assert made.columns["game"] == rows.deal(DEAL | {"dialogue": swapped}).columns["game"]
    theirs = rows.deal(DEAL | {"dialogue": "THEM: hi <eos> YOU: deal <eos> THEM: <selection>"})
    assert said(theirs) == [f"u: {stated} hi", "a: deal", "u: <selection>", "a: take 1 0 0"]


def test_the_split_is_imitated_and_not_judged(rows: ModuleType) -> None:
    """Only games that went well end in one: a model that is rewarded for it would learn to say `take` at once."""
    judged = rows.deal(DEAL).scored()
    assert said(judged)[-1] == "a: the book ?" and judged.rewards == [10.0]
    assert judged.row(1200)["total"] == 10.0


def test_a_game_without_agreement_ends_with_what_was_said(rows: ModuleType) -> None:
    lost = DEAL | {"status": "disagree", "split": None, "reward": 0}
    over = rows.deal(lost).scored()
    assert said(over)[-1] == "a: the book ?" and over.rewards == [0.0]
    with pytest.raises(rows.Unusable, match="connection"):
        rows.deal(lost | {"status": "disconnect"})


def test_question_and_answer_are_cut_at_the_question_mark(rows: ModuleType) -> None:
    turns = ["Based on this, I ask:\n\n1. Is it big? Yes, it is big. Very.", 'So: "Is it Rome? Yes, my city is Rome.']
    won = rows.city({"word": "rome,italy", "done": True, "turns": turns})
    assert said(won) == ["u: Guess my city.", "a: Is it big?", "u: Yes, it is big.", "a: Is it Rome?"]
    assert won.rewards == [-1.0, 0.0]
    assert rows.city({"word": "rome,italy", "done": False, "turns": turns}).rewards == [-1.0, -1.0]
    with pytest.raises(rows.Unusable, match="turn 1"):
        rows.city({"word": "rome,italy", "done": False, "turns": ["No question."]})


def test_a_donation_is_clipped_and_may_be_unknown(rows: ModuleType) -> None:
    turns = [{"role": "persuader", "text": "Hello."}, {"role": "persuadee", "text": "Hi."}]
    turns += [{"role": "persuader", "text": "Give?"}, {"role": "persuadee", "text": "Yes."}]
    made = rows.persuasion({"donation_persuadee": 10.0, "turns": turns})
    assert said(made) == ["u: (start)", "a: Hello.", "u: Hi.", "a: Give?", "u: Yes."]
    assert made.rewards == [0.0, 2.0]
    with pytest.raises(rows.Unusable) as unknown:
        rows.persuasion({"donation_persuadee": None, "turns": turns})
    assert said(unknown.value.conversation) == said(made)
    with pytest.raises(DataError, match="donation"):
        rows.persuasion({"donation_persuadee": -1.0, "turns": turns})


def test_a_rating_belongs_to_the_turn_before_it(rows: ModuleType) -> None:
    turns = [
        {"role": "user", "text": "A", "satisfaction": [1, 1]},
        {"role": "system", "text": "b"},
        {"role": "user", "text": "C", "satisfaction": [4, 5]},
        {"role": "user", "text": "D", "satisfaction": [3, 3]},
        {"role": "system", "text": "e"},
        {"role": "system", "text": "f"},
    ]
    made = rows.satisfaction({"id": "sgd-1", "overall": [3], "turns": turns})
    assert said(made) == ["u: A", "a: b", "u: C D", "a: e f"]
    assert made.rewards == [0.75, None]
    assert said(made.scored()) == ["u: A", "a: b"] and made.scored().rewards == [0.75]
    unrated = rows.satisfaction({"id": "sgd-1", "overall": [3], "turns": [*turns, {**turns[0], "satisfaction": []}]})
    assert unrated.rewards == [0.75, None]


def test_what_is_too_long_loses_its_oldest_turns_and_their_rewards(rows: ModuleType) -> None:
    made = rows.Conversation({})
    for number in range(3):
        made.say("user", f"u{number}" * 5)
        made.say("assistant", f"a{number}" * 5, float(number))
    assert made.row(72)["dropped"] == 0
    short = made.row(71)
    assert short["dropped"] == 2 and short["rewards"] == [1.0, 2.0] and short["messages"][0]["content"] == "u1" * 5
    assert len(made.row(1)["messages"]) == 2


def test_the_best_tenth_keeps_ties(rows: ModuleType) -> None:
    scored = [{"total": value} for value in (3.0, 1.0, 3.0, *[0.0] * 17)]
    assert rows.best(scored) == [scored[0], scored[2]]


def test_a_conversation_that_was_cut_is_ranked_by_the_whole(rows: ModuleType) -> None:
    made = rows.Conversation({})
    for number in range(3):
        made.say("user", f"u{number}" * 5)
        made.say("assistant", f"a{number}" * 5, -1.0)
    short = made.row(50)
    assert short["rewards"] == [-1.0, -1.0] and short["total"] == -3.0


def test_a_bad_row_is_named(rows: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "deal_or_no_deal"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(DEAL) + "\n" + json.dumps(DEAL | {"dialogue": "WE: hi"}) + "\n")
    with pytest.raises(DataError, match=r"train.jsonl row 2: column 'dialogue'.*'WE'"):
        rows.main(str(tmp_path), str(tmp_path / "out"))
    (folder / "train.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"train.jsonl row 1: is not valid JSON"):
        rows.main(str(tmp_path), str(tmp_path / "out"))


def test_the_real_sets_become_rows(rows: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    rows.main(str(shared_data), str(tmp_path))
    counts = {
        name: [len(read(tmp_path / name / f"{part}.jsonl")) for part in ("train", "dev", "test", "texts")]
        for name in rows.SETS
    }
    for name in rows.SETS:
        for part in ("train", "test"):
            scored = read(tmp_path / name / f"{part}.jsonl")
            assert all(row["messages"][-1]["role"] == "assistant" or name == "persuasion" for row in scored)
            assert all(reward is not None for row in scored for reward in row["rewards"])
    assert counts == {
        "deal": [5964, 1081, 1042, 5964],
        "city": [393, 54, 53, 393],
        "persuasion": [827, 87, 103, 827],
        "satisfaction": [768, 96, 96, 768],
    }
    for name, (least, most) in {"deal": (0, 10), "city": (-20, 0), "persuasion": (0, 2)}.items():
        values = [rows.value(row) for row in read(tmp_path / name / "test.jsonl")]
        assert least <= min(values) < max(values) <= most
