"""Games of others as text environments: Gymnasium's with spaces of text, and TextArena's."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Text

from tokenq.envs.text import Answer, Observed, TextEnvironment, no_game
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class GymnasiumText:
    """An environment of Gymnasium's registry whose observations and actions are spaces of text."""

    id: str
    """Its name in the registry."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment."""
    unreadable: float = -1.0
    """Reward of an action that is not in its space; the environment does not see it, and the game goes on."""
    unreadable_limit: int = 10
    """Such actions in a row that cut the game off, >= 1: the environment's own limit never hears of them."""

    def __post_init__(self) -> None:
        if self.unreadable_limit < 1:
            raise ConfigError(f"unreadable_limit: got {self.unreadable_limit}, expected an integer >= 1")

    def make(self) -> TextEnvironment:
        """A new environment; raises `ConfigError` if there is none of this name, or its spaces are others."""
        try:
            made = gymnasium.make(self.id, **self.kwargs)
        except gymnasium.error.Error as error:
            raise ConfigError(f"environment: cannot make {self.id}: {error}; register it first") from error
        return GymnasiumGame(made, self.unreadable, self.unreadable_limit)


class GymnasiumGame:
    """A Gymnasium environment with spaces of text.

    `unreadable` is the reward of an action outside its space; `unreadable_limit` of them in a row truncate the game.
    """

    def __init__(
        self, environment: gymnasium.Env[Any, Any], unreadable: float = -1.0, unreadable_limit: int = 10
    ) -> None:
        for name, space in (("observations", environment.observation_space), ("actions", environment.action_space)):
            if not isinstance(space, Text):
                raise ConfigError(f"environment: got {name} {space}, expected gymnasium.spaces.Text; wrap it")
        self._environment, self._unreadable, self._limit = environment, unreadable, unreadable_limit
        self._last: str | None = None
        self._in_a_row = 0

    def reset(self, *, seed: int | None = None, **row: Any) -> Observed:
        """A new game; the row is its `options`."""
        self._last, info = self._environment.reset(seed=seed, options=row or None)
        self._in_a_row = 0
        return str(self._last), info

    def step(self, action: str) -> Answer:
        """One step, of the action without the white space around it."""
        if self._last is None:
            raise no_game()
        said = action.strip()
        if said not in self._environment.action_space:
            self._in_a_row += 1
            seen, truncated = self._last, self._in_a_row == self._limit
            self._last = None if truncated else seen
            return seen, self._unreadable, False, truncated, {"invalid": True}
        self._in_a_row = 0
        seen, reward, terminated, truncated, info = self._environment.step(said)
        self._last = None if terminated or truncated else seen
        return seen, float(reward), terminated, truncated and not terminated, info


@dataclass(frozen=True)
class TextArena:
    """A game of TextArena (Guertler et al. 2025, arXiv 2504.11442), with rewards at its end.

    Games named "…-raw" tell only what is new, as a conversation needs it; the others repeat everything each time.
    """

    id: str = "GuessTheNumber-v0-raw"
    """Its name in TextArena."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the game."""
    opponent: Callable[[str], str] | None = None
    """What the other player of two says to an observation; None in games for one."""
    seat: int = 0
    """Which of two players is trained: 0, who begins, or 1."""
    unreadable: float = -1.0
    """Added to the reward of a move that the game finds invalid."""

    def __post_init__(self) -> None:
        if self.seat not in range(1 if self.opponent is None else 2):
            raise ConfigError(f"seat: got {self.seat}, expected 0, or with an opponent 0 or 1")

    def make(self) -> TextEnvironment:
        """A new game; raises `ConfigError` without TextArena, or if it has none of this name."""
        try:
            import textarena
        except ImportError as error:
            raise ConfigError(f"environment: {self.id} needs textarena; pip install 'tokenq[games]'") from error
        try:
            made = textarena.make(self.id, **self.kwargs)
        except ValueError as error:
            raise ConfigError(f"environment: cannot make {self.id}: {error}; expected a game of TextArena") from error
        return TextArenaGame(made, self.opponent, self.seat, self.unreadable)


class TextArenaGame:
    """A game with TextArena's methods: `reset(num_players, seed)`, `get_observation`, `step(action)`, `close`.

    All ends are terminations, for TextArena does not say when a limit cut a game off. Rewards come at the end; to that
    of a move that it finds invalid, whether it may be repeated or loses the game, `unreadable` is added. These games
    draw from the global random streams: each one here has its own, put in place while it runs.
    """

    def __init__(
        self, game: Any, opponent: Callable[[str], str] | None = None, seat: int = 0, unreadable: float = -1.0
    ) -> None:
        self._game, self._opponent, self._seat, self._unreadable = game, opponent, seat, unreadable
        self._seeds = random.Random()
        self._stream: tuple[Any, Any] | None = None
        self._playing = False

    def reset(self, *, seed: int | None = None, **_: Any) -> Observed:
        """A new game, up to the first turn of the trained player."""
        if seed is not None:
            self._seeds = random.Random(seed)
        drawn = self._seeds.randrange(2**31) if seed is None else seed
        with self._own_randomness(drawn):
            self._game.reset(num_players=1 if self._opponent is None else 2, seed=drawn)
        self._playing = True
        done = self._others()
        if done:
            raise ConfigError("opponent: the game was over before the trained player's first turn; mend the opponent")
        return self._seen(), {}

    def step(self, action: str) -> Answer:
        """One action, and the other player's answer to it."""
        if not self._playing:
            raise no_game()
        errors = getattr(self._game.state, "error_count", 0)
        with self._own_randomness():
            done, info = self._game.step(action=action)
        invalid = not done and getattr(self._game.state, "error_count", 0) > errors
        done = done or self._others()
        if not done:
            seen, reward = self._seen(), 0.0
        else:
            self._playing = False
            rewards, ended = self._game.close()
            info = dict(ended.get(self._seat, {}))
            invalid = bool(info.get("invalid_move"))
            seen, reward = str(info.get("reason") or "over"), float(rewards[self._seat])
        if invalid:
            return seen, reward + self._unreadable, done, False, {**info, "invalid": True}
        return seen, reward, done, False, info

    def _others(self) -> bool:
        """The turns of the other player, until the trained one is to move; whether the game is over."""
        done = False
        while not done and self._game.state.current_player_id != self._seat:
            assert self._opponent is not None
            said = self._opponent(self._seen())
            with self._own_randomness():
                done, _ = self._game.step(action=said)
        return done

    def _seen(self) -> str:
        """What the player to move has not yet been told, without what it said itself."""
        with self._own_randomness():
            player, told = self._game.get_observation()
        if isinstance(told, str):
            return told
        return "\n".join(message for author, message, _ in told if author != player)

    @contextmanager
    def _own_randomness(self, seed: int | None = None) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
        elif self._stream is not None:
            random.setstate(self._stream[0])
            np.random.set_state(self._stream[1])
        try:
            yield
        finally:
            self._stream = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])
