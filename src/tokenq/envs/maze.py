"""A maze in text: walk to the goal by "move up", "move down", "move left" and "move right".

The maze of LMRL-Gym (Abdulhai et al. 2023, arXiv 2311.18232), rebuilt from its description: the same map, rewards,
limit and information in an observation; the wording is our own. Its logs are rebuilt from their published statistics.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tokenq.envs.maze_values import Cell, behaviour_return, best_seen_return, distances
from tokenq.envs.text import Answer, Observed, TextEnvironment, no_game, play
from tokenq.errors import ConfigError

MAP = (
    "#############",
    "#.....#.....#",
    "###.#####.###",
    "###.#####.###",
    "###.#####.###",
    "###.......###",
    "######.######",
    "######.######",
    "######G######",
    "#############",
)
FREE = frozenset((r, c) for r, line in enumerate(MAP) for c, square in enumerate(line) if square != "#")
GOAL: Cell = next((r, line.index("G")) for r, line in enumerate(MAP) if "G" in line)
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
LIMIT = 100
"""Moves in a game; the step after them fails."""
UNREADABLE = -4.0
"""Reward of an action that is none of the four."""
HISTORY = 20
"""Observations that a state holds if only walls are seen: 40 messages, as published."""
RANDOM = 0.85
"""Share of moves that the log's player draws at random; the others lead to the goal."""
STOP = 0.015
"""Probability that the log ends after a move: with it the mean number of moves is the published 19.7."""


@dataclass(frozen=True)
class Maze:
    """26 squares, a goal, reward −1 for each move but the one that arrives; games begin anywhere."""

    observed: Literal["fully", "partly"] = "fully"
    """What is seen: the position, the goal and the walls around, or the walls alone."""

    games: int = 1240
    """Logged games, >= 1."""

    def __post_init__(self) -> None:
        if self.games < 1:
            raise ConfigError(f"games: got {self.games}, expected an integer >= 1")

    @property
    def memory(self) -> int:
        """Observations in a state."""
        return 1 if self.observed == "fully" else HISTORY

    def make(self) -> TextEnvironment:
        """A new maze."""
        return MazeGame(self.observed == "fully")

    def starts(self) -> list[dict[str, Any]]:
        """Each square but the goal."""
        return [{"start": list(cell)} for cell in sorted(FREE - {GOAL})]

    def rows(self, seed: int = 0) -> list[dict[str, Any]]:
        """The logged games: each one stays in the third of the maze that it starts in, and ends as it leaves it.

        Only games that start near the goal arrive, so a good policy must be stitched together.
        """
        game, player = _Logged(self.make()), Walker(RANDOM)
        return [play(game, player, int(s)) for s in np.random.default_rng(seed).integers(2**31, size=self.games)]

    def bounds(self) -> dict[str, float]:
        """Mean returns over all starts, all but `data` exact.

        `optimal` of what is seen: for walls alone, of a player that begins without knowing where it is and forgets
        nothing. `uniform` and `behaviour` are the random player and the log's player in whole games; `data` is the
        mean of the logged games, most of which were cut off.
        """
        far = distances(FREE, GOAL)
        if self.observed == "fully":
            optimal = -float(np.mean([far[cell] - 1 for cell in FREE - {GOAL}]))
        else:
            optimal = best_seen_return(FREE, GOAL)
        return {
            "optimal": optimal,
            "behaviour": behaviour_return(FREE, GOAL, RANDOM, LIMIT),
            "uniform": behaviour_return(FREE, GOAL, 1.0, LIMIT),
            "data": float(np.mean([sum(row["rewards"]) for row in self.rows()])),
        }


class MazeGame:
    """One maze. `position` is (row, column) from the top left, None where no game is on."""

    def __init__(self, fully: bool) -> None:
        self.position: Cell | None = None
        self._fully = fully
        self._rng = np.random.default_rng()
        self._moves = 0

    def reset(self, *, seed: int | None = None, start: Any = None, **_: Any) -> Observed:
        """A new game from `start`, [row, column], or from a square drawn evenly."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        squares = sorted(FREE - {GOAL})
        cell: Cell = squares[self._rng.integers(len(squares))] if start is None else tuple(start)
        if cell not in squares:
            raise ConfigError(f"start: got {start}, expected [row, column] of a free square that is not the goal")
        self.position, self._moves = cell, 0
        return self.observation(), {}

    def step(self, action: str) -> Answer:
        """Move, or stay where a wall is."""
        if self.position is None:
            raise no_game()
        if self._moves == LIMIT:
            last, self.position = self.observation(), None
            return last, -1.0, False, True, {}
        self._moves += 1
        words = action.split()
        if len(words) != 2 or words[0] != "move" or words[1] not in MOVES:
            return self.observation(), UNREADABLE, False, False, {"invalid": True}
        (row, column), (down, right) = self.position, MOVES[words[1]]
        if (row + down, column + right) in FREE:
            self.position = (row + down, column + right)
        if self.position == GOAL:
            self.position = None
            return "success", 0.0, True, False, {}
        return self.observation(), -1.0, False, False, {}

    def observation(self) -> str:
        """What is seen from where the player stands."""
        assert self.position is not None
        row, column = self.position
        walls = [name for name, (down, right) in MOVES.items() if (row + down, column + right) not in FREE]
        seen = " ".join(["walls", *(walls or ["none"])])
        return f"goal {GOAL[0]} {GOAL[1]} at {row} {column} {seen}" if self._fully else seen


@dataclass(frozen=True)
class Walker:
    """A shortest way to the goal, but with probability `random` one of the four moves, whichever it is."""

    random: float = 0.0
    """Probability of a random move."""

    @cached_property
    def _far(self) -> dict[Cell, int]:
        return distances(FREE, GOAL)

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        """The next move from `environment.position`."""
        if rng.random() < self.random:
            return f"move {tuple(MOVES)[rng.integers(len(MOVES))]}"
        row, column = environment.position
        after = {name: self._far.get((row + down, column + right), np.inf) for name, (down, right) in MOVES.items()}
        return f"move {min(after, key=lambda name: after[name])}"


class _Logged:
    """The maze as its log saw it: cut off by the move that leaves a third of it, or at random."""

    def __init__(self, game: Any) -> None:
        self._game = game
        self._rng = np.random.default_rng()
        self._third = 0

    @property
    def position(self) -> Cell | None:
        return self._game.position  # type: ignore[no-any-return]

    def reset(self, *, seed: int | None = None, **row: Any) -> Observed:
        self._rng = np.random.default_rng(None if seed is None else [seed, 2])
        found: Observed = self._game.reset(seed=seed, **row)
        self._third = third(self._game.position)
        return found

    def step(self, action: str) -> Answer:
        observation, reward, terminated, truncated, info = self._game.step(action)
        if not terminated and not truncated:
            truncated = third(self._game.position) != self._third or bool(self._rng.random() < STOP)
        return observation, reward, terminated, truncated, info


def third(cell: Cell) -> int:
    """Which part of the maze a square is in: 0 left, 1 right, 2 the stem with the squares beside its top."""
    return 2 if abs(cell[1] - GOAL[1]) <= 1 and cell[0] >= 5 else int(cell[1] > GOAL[1])
