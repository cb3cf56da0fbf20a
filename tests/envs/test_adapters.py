"""Gymnasium environments with spaces of text, and games with TextArena's methods, as text environments."""

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete, Text

from tokenq.envs.adapters import GymnasiumGame, GymnasiumText, TextArena, TextArenaGame
from tokenq.errors import ConfigError, DataError


class Echo(gymnasium.Env[str, str]):
    """Say back the letter that is shown; three turns, the second of which may be the last one allowed."""

    observation_space = Text(1, charset="ab")
    action_space = Text(1, charset="ab")

    def __init__(self, limit: int = 9) -> None:
        self.limit, self.turns, self.shown = limit, 0, "a"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.turns, self.shown = 0, (options or {}).get("letter") or "ab"[self.np_random.integers(2)]
        return self.shown, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.shown)
        self.turns, self.shown = self.turns + 1, "ab"[self.np_random.integers(2)]
        return self.shown, reward, self.turns == 3, self.turns == self.limit, {}


def test_a_gymnasium_environment_of_texts() -> None:
    game = GymnasiumGame(Echo(limit=2), unreadable=-2.0)
    assert game.reset(seed=0, letter="b")[0] == "b"
    assert game.step("c") == ("b", -2.0, False, False, {"invalid": True})
    assert game.step(" b\n")[1:] == (1.0, False, False, {})
    assert game.step("?")[1] == -2.0
    assert game.step("a")[2:4] == (False, True)
    with pytest.raises(DataError, match="no game is on"):
        game.step("a")


def test_a_game_of_unreadable_actions_alone_is_cut_off() -> None:
    game = GymnasiumGame(Echo(), unreadable_limit=3)
    game.reset(letter="a")
    assert [game.step(said)[3] for said in ("?", "?", "a", "?", "?")] == [False] * 5, "only in a row"
    assert game.step("?")[1:] == (-1.0, False, True, {"invalid": True})
    with pytest.raises(DataError, match="no game is on"):
        game.step("a")
    game.reset()
    assert not game.step("?")[3]
    with pytest.raises(ConfigError, match="unreadable_limit: got 0, expected an integer >= 1"):
        GymnasiumText("tokenq/Echo-v0", unreadable_limit=0)


def test_what_ends_by_itself_at_its_limit_is_not_cut_off() -> None:
    game = GymnasiumGame(Echo(limit=3))
    game.reset()
    assert [game.step("a")[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]


def test_other_spaces_and_unknown_names_are_refused() -> None:
    silent = Echo()
    silent.action_space = Discrete(2)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"got actions Discrete\(2\), expected gymnasium.spaces.Text"):
        GymnasiumGame(silent)
    with pytest.raises(ConfigError, match="cannot make NoSuchGame-v0"):
        GymnasiumText("NoSuchGame-v0").make()


def test_a_registered_environment_is_made_by_name_with_its_arguments() -> None:
    gymnasium.register("tokenq/Echo-v0", entry_point=Echo)
    try:
        game = GymnasiumText("tokenq/Echo-v0", {"limit": 1}).make()
        game.reset(seed=1)
        assert game.step("a")[3]
    finally:
        del gymnasium.registry["tokenq/Echo-v0"]


class State:
    def __init__(self) -> None:
        self.current_player_id, self.error_count = 0, 0


class Race:
    """Count to five together, one or two at a time; who says five wins. A number that is neither is asked for again.

    It has the methods and the habits of TextArena's games: global random numbers, messages with author and kind.
    """

    def __init__(self) -> None:
        self.state = State()

    def reset(self, num_players: int, seed: int | None = None) -> None:
        random.seed(seed)
        self.players, self.count, self.state = num_players, random.randrange(2), State()
        self.told: list[list[tuple[int, str, str]]] = [[(-1, f"begin at {self.count}", "prompt")] for _ in range(2)]

    def get_observation(self) -> tuple[int, list[tuple[int, str, str]]]:
        player = self.state.current_player_id
        told, self.told[player] = self.told[player], []
        return player, told

    def step(self, action: str) -> tuple[bool, dict[str, Any]]:
        player = self.state.current_player_id
        for heard in self.told:
            heard.append((player, action, "action"))
        if action not in ("1", "2"):
            self.state.error_count += 1
            self.told[player].append((-1, "say 1 or 2", "admin"))
            return False, {}
        self.state.error_count, self.count = 0, self.count + int(action)
        if self.count < 5:
            self.state.current_player_id = (player + 1) % self.players
        return self.count >= 5, {}

    def close(self) -> tuple[dict[int, int], dict[int, dict[str, Any]]]:
        winner = self.state.current_player_id
        rewards = {player: 1 if player == winner else -1 for player in range(self.players)}
        return rewards, {player: {"reason": f"{winner} won", "invalid_move": False} for player in rewards}


def test_a_game_for_one_in_textarenas_terms() -> None:
    game = TextArenaGame(Race())
    first, _ = game.reset(seed=0)
    assert first == "begin at 1"
    assert game.step("three") == ("say 1 or 2", -1.0, False, False, {"invalid": True})
    assert game.step("2") == ("", 0.0, False, False, {})
    assert game.step("2") == ("0 won", 1.0, True, False, {"reason": "0 won", "invalid_move": False})
    with pytest.raises(DataError, match="no game is on"):
        game.step("1")


@pytest.mark.parametrize(("seat", "first", "reward"), [(0, "begin at 1", -1.0), (1, "begin at 1\n1", 1.0)])
def test_a_game_for_two_with_a_given_opponent(seat: int, first: str, reward: float) -> None:
    """From 1 with steps of one: who begins says 2 and 4, the other one 3 and 5."""
    heard = []

    def opponent(told: str) -> str:
        heard.append(told)
        return "1"

    game = TextArenaGame(Race(), opponent, seat)
    assert game.reset(seed=0)[0] == first
    seen, earned, over, *_ = game.step("1")
    assert (seen, earned, over) == ("1", 0.0, False)
    assert game.step("1")[:3] == ("1 won", reward, True)
    assert all("begin" not in told for told in heard[1:])


def test_a_game_has_random_numbers_of_its_own() -> None:
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.rand()
    random.seed(7)
    np.random.seed(7)
    game = TextArenaGame(Race())
    first = [game.reset(seed=seed)[0] for seed in range(8)]
    game.step("1")
    assert (random.random(), np.random.rand()) == expected
    assert first == [game.reset(seed=seed)[0] for seed in range(8)] and len(set(first)) == 2


def test_an_invalid_move_costs_its_own_penalty_and_the_game_goes_on() -> None:
    game = TextArenaGame(Race(), unreadable=-0.25)
    game.reset(seed=0)
    assert [game.step(said)[1:3] for said in ("", "three", "2", "2")] == [
        (-0.25, False),
        (-0.25, False),
        (0.0, False),
        (1.0, True),
    ]


def test_seats_are_those_of_the_players() -> None:
    with pytest.raises(ConfigError, match="seat: got 1, expected 0"):
        TextArena(seat=1)


def test_a_real_game_of_textarena_for_one() -> None:
    pytest.importorskip("textarena", reason="the extra `games` is not installed")
    game = TextArena("GuessTheNumber-v0-raw", {"min_number": 1, "max_number": 8}).make()
    first, _ = game.reset(seed=3)
    assert "between 1 and 8" in first and game.reset(seed=3)[0] == first
    low, high, ends = 1, 8, []
    assert game.step("hm")[1::3] == (-1.0, {"invalid": True})
    while not ends:
        middle = (low + high) // 2
        seen, reward, terminated, truncated, _ = game.step(f"[{middle}]")
        low, high = (middle + 1, high) if "higher" in seen else (low, middle - 1)
        if terminated:
            ends.append((reward, truncated))
        else:
            assert reward == 0.0
    assert ends == [(1.0, False)]
    game.reset(seed=3)
    moves = [game.step("hm") for _ in range(2)]
    assert [move[1:3] for move in moves] == [(-1.0, False), (-1.0, True)] and moves[1][4]["invalid"]


def test_a_real_game_of_textarena_for_two() -> None:
    """The opponent takes 1, 2 and 8: the row 3, 4, 5 wins."""
    pytest.importorskip("textarena", reason="the extra `games` is not installed")
    moves = iter(["[1]", "[2]", "[8]"])
    game = TextArena("TicTacToe-v0-raw", opponent=lambda told: next(moves)).make()
    assert "Player 0" in game.reset(seed=0)[0]
    assert [game.step(f"[{cell}]")[1:3] for cell in (3, 4)] == [(0.0, False)] * 2
    assert game.step("[5]")[1:4] == (1.0, True, False)
    with pytest.raises(ConfigError, match="cannot make NoSuchGame"):
        TextArena("NoSuchGame").make()
