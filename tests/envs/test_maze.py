"""The maze: its facts, its rules, returns by hand, and the statistics of its log."""

from typing import Any, Literal

import numpy as np
import pytest

from tokenq.envs.maze import FREE, GOAL, LIMIT, Maze, Walker, third
from tokenq.envs.maze_values import behaviour_return, best_seen_return, distances
from tokenq.envs.text import mean_return, play
from tokenq.errors import ConfigError, DataError


def test_the_facts_of_the_map() -> None:
    far = distances(FREE, GOAL)
    assert len(FREE) == 26 and GOAL == (8, 6) and max(far.values()) == 12
    assert np.mean([far[cell] for cell in FREE - {GOAL}]) == pytest.approx(7.84)
    assert [start["start"] for start in Maze().starts()] == [list(cell) for cell in sorted(FREE - {GOAL})]


def test_the_published_bounds() -> None:
    bounds = Maze(games=100).bounds()
    assert bounds["optimal"] == pytest.approx(-6.84) and bounds["uniform"] == pytest.approx(-85.9, abs=0.05)
    assert bounds["behaviour"] == pytest.approx(-51.84, abs=0.005)
    assert Maze("partly", games=1).bounds()["optimal"] == pytest.approx(-7.24)


def test_exact_returns_are_those_of_games() -> None:
    starts = Maze().starts()
    shortest = mean_return(Maze().make(), Walker(), 25, starts=starts)
    assert shortest.mean == pytest.approx(-6.84)
    played = mean_return(Maze().make(), Walker(0.85), 300, starts=starts)
    assert played.low - 1 < behaviour_return(FREE, GOAL, 0.85, LIMIT) < played.high + 1


CORRIDOR = frozenset((1, column) for column in range(1, 6))


def test_returns_in_a_corridor_by_hand() -> None:
    """Goal in the middle of five squares. Its neighbours look alike: whoever tries left first pays 2 on the left side.

    From the ends 1 each, from the neighbours 0 and 2: 4 over 4 starts. A player who knows pays 1 + 0 + 0 + 1.
    """
    assert best_seen_return(CORRIDOR, (1, 3)) == -1.0
    assert behaviour_return(CORRIDOR, (1, 3), 0.0, 10) == -0.5


def test_a_random_player_in_a_corridor_by_hand() -> None:
    """Two squares: one move in four arrives. At most one move: 3/4·1, and if that failed the end costs 1 more."""
    assert behaviour_return(frozenset({(1, 1), (1, 2)}), (1, 2), 1.0, 1) == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("observed", "first", "second"),
    [
        ("fully", "goal 8 6 at 7 6 walls left right", "goal 8 6 at 6 6 walls left right"),
        ("partly", "walls left right", "walls left right"),
    ],
)
def test_a_game_by_hand(observed: Literal["fully", "partly"], first: str, second: str) -> None:
    game = Maze(observed).make()
    assert game.reset(start=[7, 6]) == (first, {})
    assert game.step("move left") == (first, -1.0, False, False, {})
    assert game.step("jump") == (first, -4.0, False, False, {"invalid": True})
    assert game.step(" move up\n") == (second, -1.0, False, False, {})
    assert game.step("move down")[1:4] == (-1.0, False, False)
    assert game.step("move down") == ("success", 0.0, True, False, {})
    with pytest.raises(DataError, match="no game is on"):
        game.step("move down")


def test_after_a_hundred_moves_the_next_one_fails_where_the_player_stands() -> None:
    game = Maze().make()
    first, _ = game.reset(start=[7, 6])
    for _ in range(LIMIT):
        assert game.step("move left") == (first, -1.0, False, False, {})
    assert game.step("move down") == (first, -1.0, False, True, {})


def test_what_is_seen_where_there_are_no_walls_and_where_a_start_may_be() -> None:
    game = Maze("partly").make()
    assert game.reset(start=[5, 6])[0] == "walls up" and game.reset(start=[1, 1])[0] == "walls up down left"
    for wrong in ([0, 0], list(GOAL)):
        with pytest.raises(ConfigError, match="start: got"):
            game.reset(start=wrong)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return Maze().rows()


def test_the_log_has_the_published_statistics(rows: list[dict[str, Any]]) -> None:
    """Published: 1.24 k games, success 0.11, mean length 19.7, its deviation 24.5."""
    moves = np.array([len(row["rewards"]) for row in rows])
    assert len(rows) == 1240 and np.mean([row["terminated"] for row in rows]) == pytest.approx(0.11, abs=0.015)
    assert moves.mean() == pytest.approx(19.7, abs=1.2) and moves.std() == pytest.approx(20.0, abs=1.2)


def test_a_logged_game_stays_in_its_third_until_the_move_that_leaves_it(rows: list[dict[str, Any]]) -> None:
    crossings = 0
    for row in rows:
        seen = [m["content"].split()[4:6] for m in row["messages"] if m["role"] == "user"]
        thirds = [third((int(r), int(c))) for r, c in seen]
        crossings += thirds[-1] != thirds[0]
        assert len(set(thirds[:-1] or thirds)) == 1
        assert row["terminated"] == (row["rewards"][-1] == 0) and (not row["terminated"] or thirds[0] == 2)
        assert len(seen) == len(row["rewards"]) + (not row["terminated"])
    assert crossings > 300, "without them nothing could be stitched together"


def test_both_kinds_log_the_same_games_and_a_seed_repeats_them() -> None:
    fully, partly = Maze(games=60).rows(3), Maze("partly", games=60).rows(3)
    assert [row["rewards"] for row in fully] == [row["rewards"] for row in partly]
    assert all("at" not in m["content"].split() for row in partly for m in row["messages"])
    assert fully == Maze(games=60).rows(3) != Maze(games=60).rows(4)


def test_a_player_and_its_environment_draw_from_streams_of_their_own() -> None:
    """From one stream, the first draw of the player would follow from the start that the environment drew."""
    first: dict[str, set[str]] = {}
    game, player = Maze().make(), Walker(1.0)
    for seed in range(1500):
        row = play(game, player, seed, max_turns=1)
        first.setdefault(row["messages"][0]["content"], set()).add(row["messages"][1]["content"])
    assert all(len(actions) == 4 for actions in first.values()) and len(first) == 25


def test_wrong_settings_say_what_was_expected() -> None:
    with pytest.raises(ConfigError, match="games: got 0, expected an integer >= 1"):
        Maze(games=0)
