"""What holds for every game in text, and logged games that the offline reader takes."""

import math
import random
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.envs.adapters import GymnasiumGame, TextArenaGame
from tokenq.envs.guard import Guarded
from tokenq.envs.maze import Maze, Walker
from tokenq.envs.text import Game, ScriptedPolicy, TextEnvironment, mean_return, play, returns
from tokenq.envs.wordle import Guesser, Informed, Wordle
from tokenq.errors import DataError
from tokenq.replay.columns import check_order, turn_scores

from .test_adapters import Echo, Race

MOVES = tuple(f"move {way}" for way in ("up", "down", "left", "right"))
GUESSES = tuple(" ".join(word) for word in ("crane", "toast", "money", "light", "quick"))
CASES: dict[str, tuple[Callable[[], TextEnvironment], tuple[str, ...], float]] = {
    "maze": (Maze().make, MOVES, -4.0),
    "maze, partly": (Maze("partly").make, MOVES, -4.0),
    "wordle": (Wordle().make, GUESSES, -1.0),
    "gymnasium": (lambda: GymnasiumGame(Echo()), ("a", "b"), -1.0),
    "textarena": (lambda: TextArenaGame(Race()), ("1", "2"), -1.0),
    "textarena, two players": (lambda: TextArenaGame(Race(), lambda told: "1"), ("1", "2"), -1.0),
    "guarded": (lambda: Guarded(Maze().make), MOVES, -4.0),
}
every_game = pytest.mark.parametrize(("make", "actions", "penalty"), CASES.values(), ids=CASES)


class Draws:
    """Draws from a few actions."""

    def __init__(self, *actions: str) -> None:
        self.actions = actions

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        return self.actions[rng.integers(len(self.actions))]


@every_game
def test_the_same_seed_and_actions_have_the_same_answers(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float
) -> None:
    assert isinstance(make(), TextEnvironment)
    again = make()
    for seed in (3, 4):
        row = play(make(), Draws(*actions, "?"), seed, max_turns=150)
        random.seed(0)
        assert play(again, Draws(*actions, "?"), seed, max_turns=150) == row


@every_game
def test_games_without_a_seed_follow_from_the_last_seed(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float
) -> None:
    def told(environment: TextEnvironment) -> list[Any]:
        seen: list[Any] = [environment.reset(seed=5)]
        for _ in range(20):
            seen.append(environment.reset())
            seen += [environment.step(action) for action in actions[:1]]
        return seen

    assert told(make()) == told(make())


@every_game
def test_a_game_ends_in_one_way_with_finite_rewards(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float
) -> None:
    environment = make()
    environment.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(200):
        seen, reward, terminated, truncated, info = environment.step(actions[rng.integers(len(actions))])
        assert isinstance(seen, str) and isinstance(info, dict) and "invalid" not in info
        assert type(reward) is float and math.isfinite(reward)
        if terminated or truncated:
            break
    assert terminated != truncated
    with pytest.raises(DataError, match="step: got an action where no game is on, expected a reset first"):
        environment.step(actions[0])


@every_game
def test_a_step_before_a_reset_says_so(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float
) -> None:
    with pytest.raises(DataError, match="no game is on"):
        make().step(actions[0])


@every_game
@given(action=st.text(string.printable + "é水\x00", max_size=12))
@settings(max_examples=25)
def test_what_cannot_be_read_has_its_penalty_and_nothing_crashes(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float, action: str
) -> None:
    environment = make()
    environment.reset(seed=0)
    seen, reward, terminated, truncated, info = environment.step(action)
    if action.strip() not in actions:
        assert reward == penalty and info["invalid"] is True and not (terminated or truncated)
    assert isinstance(seen, str)


@every_game
def test_a_logged_game_is_a_row_that_the_offline_reader_takes(
    make: Callable[[], TextEnvironment], actions: tuple[str, ...], penalty: float
) -> None:
    for most in (1, None):
        row = play(make(), Draws(*actions), 1, max_turns=most)
        check_order(row["messages"], "messages")
        turns = sum(message["role"] == "assistant" for message in row["messages"])
        assert turn_scores(row, turns) == row["rewards"]
        assert row["messages"][-1]["role"] == ("assistant" if row["terminated"] else "user")


@pytest.mark.parametrize("game", [Maze(games=3), Maze("partly", games=3), Wordle(games=3, bound_games=2)])
def test_a_game_has_starts_logs_and_bounds(game: Game) -> None:
    assert isinstance(game, Game) and game.memory in (1, 20, None)
    assert len(game.rows()) == 3 and game.rows(1) == game.rows(1)
    assert all(value <= 0 for value in game.bounds().values())
    for start in game.starts():
        game.make().reset(**start, column="of a row")


@pytest.mark.parametrize("player", [Walker(), Guesser(1.0), Informed(), Draws("a")])
def test_players_are_players(player: ScriptedPolicy) -> None:
    assert isinstance(player, ScriptedPolicy)


class Coin:
    """Earns 1 or 3, drawn from the seed."""

    def reset(self, *, seed: int | None = None, **row: Any) -> tuple[str, dict[str, Any]]:
        self.reward = row.get("reward") or float(1 + 2 * np.random.default_rng(seed).integers(2))
        return "toss", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "over", self.reward, True, False, {}


def test_a_mean_return_and_its_interval_by_hand() -> None:
    """Returns 1, 3, 1, 3: mean 2, deviation sqrt(4/3), error sqrt(1/3)."""
    starts = [{"reward": 1.0}, {"reward": 3.0}]
    assert returns(Coin(), Draws("x"), 4, starts=starts).tolist() == [1, 3, 1, 3]
    found = mean_return(Coin(), Draws("x"), 4, starts=starts)
    assert (found.mean, found.games) == (2.0, 4)
    assert (found.low, found.high) == pytest.approx((2 - 1.96 / 3**0.5, 2 + 1.96 / 3**0.5))


def test_each_game_has_a_seed_of_its_own() -> None:
    found = returns(Coin(), Draws("x"), 400, seed=1)
    assert found.mean() == pytest.approx(2, abs=0.2) and set(found) == {1.0, 3.0}
    assert (found == returns(Coin(), Draws("x"), 400, seed=1)).all()


def test_a_game_by_hand_as_a_row() -> None:
    row = play(Maze().make(), Walker(), 0, start=[6, 6])
    seen = [f"goal 8 6 at {line} 6 walls left right" for line in (6, 7)]
    assert row == {
        "messages": [
            {"role": "user", "content": seen[0]},
            {"role": "assistant", "content": "move down"},
            {"role": "user", "content": seen[1]},
            {"role": "assistant", "content": "move down"},
        ],
        "rewards": [-1.0, 0.0],
        "terminated": True,
    }
    assert play(Maze().make(), Walker(), 0, max_turns=1, start=[6, 6]) == {
        "messages": [*row["messages"][:2], {"role": "user", "content": seen[1]}],
        "rewards": [-1.0],
        "terminated": False,
    }
