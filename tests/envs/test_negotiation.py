"""The negotiation game: what is said to whom, when it ends, and what it brings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.envs.negotiation import (
    SELECTION,
    Agreeable,
    Negotiation,
    Scenario,
    Stubborn,
    entered,
    read_scenarios,
    stated,
)
from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.self_play import self_play

GAME = Scenario((1, 3, 1), (4, 1, 3), (10, 0, 0))
ROW = {"counts": [1, 3, 1], "values": [4, 1, 3], "partner_values": [10, 0, 0]}


def test_a_deal_brings_points_to_both() -> None:
    game = Negotiation(Agreeable(), [GAME])
    observation, _ = game.reset(seed=0, opens=True)
    assert observation == "1 books worth 4, 3 hats worth 1, 1 balls worth 3."
    assert game.step("i take 0 3 1") == ("deal", 0.0, False, False, {})
    assert game.step("take 0 3 1")[1:] == (6.0, True, False, {"agreed": True, "partner_points": 10.0})
    with pytest.raises(DataError, match="reset"):
        game.step("take 0 3 1")


def test_the_partner_may_open_and_may_enter_first() -> None:
    game = Negotiation(Stubborn(turns=1))
    observation, _ = game.reset(**ROW, opens=False)
    assert observation == f"{stated((1, 3, 1), (4, 1, 3))} i want everything"
    assert game.step("no way") == (SELECTION, 0.0, False, False, {})
    # Everything for the partner leaves nothing to take: agreement at 0 points.
    assert game.step("take 0 0 0") == ("", 0.0, True, False, {"agreed": True, "partner_points": 10.0})


@pytest.mark.parametrize("answer", ["take 1 3 1", "take 0 0 1", "take 9 9 9", "hello"])
def test_splits_that_do_not_fit_bring_nothing(answer: str) -> None:
    game = Negotiation(Stubborn(turns=0))
    game.reset(**ROW, opens=True)
    assert game.step("hi")[0] == SELECTION
    _, reward, terminated, truncated, info = game.step(answer)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert not info["agreed"] and info["partner_points"] == 0.0 and info.get("invalid", False) == (answer == "hello")


def test_the_partner_sees_its_own_values_and_the_talk() -> None:
    seen = []

    def partner(messages: object) -> str:
        seen.append(messages)
        return " so \n be  it " if len(seen) == 1 else ""

    game = Negotiation(partner)
    game.reset(**ROW, opens=True)
    assert game.step("  give me\nall ")[0] == "so be it"
    observation, reward, _, _, info = game.step(" ")
    assert (observation, reward, info) == ("...", 0.0, {"invalid": True})
    mine = stated((1, 3, 1), (10, 0, 0))
    assert [m["content"] for m in seen[-1]] == [f"{mine} give me all", "so be it", "..."]  # type: ignore[attr-defined]


def test_a_game_is_cut_off_after_its_turns() -> None:
    game = Negotiation(Agreeable(), [GAME], turns=3)
    game.reset(seed=1)
    assert [game.step("hm")[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(DataError, match="over"):
        game.step("hm")


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(0, 2**31))
def test_garbage_never_crashes_it_and_seeds_repeat(actions: list[str], seed: int) -> None:
    scenarios = [GAME, Scenario((2, 2, 2), (1, 2, 2), (0, 0, 5))]

    def played() -> list[object]:
        game = Negotiation(
            lambda messages: actions[len(messages) % len(actions)] if actions else "", scenarios, turns=4
        )
        seen: list[object] = [game.reset(seed=seed)]
        for action in actions:
            seen.append(game.step(action))
            if seen[-1][2] or seen[-1][3]:  # type: ignore[index]
                break
        return seen

    assert played() == played()


def test_the_games_of_a_scenario_are_resampled_together() -> None:
    """Two scenarios, ten games of each: 1 and 3 points. A resample holds one of them, or both: means 1, 2 and 3."""
    scenarios = [Scenario((1, 0, 0), (points, 0, 0), (0, 0, 0)) for points in (1, 3)]

    def taker(messages: Sequence[Mapping[str, str]]) -> str:
        return "take 1 0 0"

    def giver(messages: Sequence[Mapping[str, str]]) -> str:
        return "take 0 0 0" if messages[-1]["content"].endswith(SELECTION) else "hm"

    found = self_play(taker, giver, scenarios, games=20, seed=0)
    for name in ("points", "points_per_agreement"):
        score = found[name]
        assert (score.value, score.low, score.high, score.n) == (2.0, 1.0, 3.0, 20)
    alone = self_play(taker, giver, scenarios[:1], games=4, seed=0)["points"]
    assert (alone.value, alone.low, alone.high) == (1.0, 1.0, 1.0)


def test_what_enters_a_split() -> None:
    assert entered(" Take 1  0 2\n") == (1, 0, 2)
    for talk in ("take 1 0", "i take 1 0 2", "take 1 0 2 .", "take ٣ 0 0", "take -1 0 0", ""):
        assert entered(talk) is None


def test_contexts_are_read_in_pairs(tmp_path: Path) -> None:
    file = tmp_path / "contexts.txt"
    file.write_text("1 0 1 1 3 3\n1 1 1 0 3 3\n")
    assert read_scenarios(file) == [Scenario((1, 1, 3), (0, 1, 3), (1, 0, 3))]
    for content, what in (
        ("1 0 1 1 3 3\n", "pairs"),
        ("1 0 1 1 3\n1 0\n", "row 1"),
        ("1 0 1 1 3 3\n2 1 1 0 3 3\n", "row 2"),
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=what):
            read_scenarios(file)
    with pytest.raises(ConfigError, match="no such file"):
        read_scenarios(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="values"):
        Negotiation(Agreeable()).reset(counts=[1, 1, 1], values=[1])
    with pytest.raises(ConfigError, match="scenario"):
        Negotiation(Agreeable()).reset(seed=0)
