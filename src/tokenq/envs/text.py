"""Games in text: what an environment and a scripted player are, one game as a logged row, what a player earns.

An observation is the content of a user message, an action that of the assistant's answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from tokenq.errors import DataError

Observed = tuple[str, dict[str, Any]]
Answer = tuple[str, float, bool, bool, dict[str, Any]]


@runtime_checkable
class TextEnvironment(Protocol):
    """A game in text, with the two methods and the five answers of a Gymnasium environment."""

    def reset(self, *, seed: int | None = None, **row: Any) -> Observed:
        """A new game: its first observation and an info.

        Without a seed it goes on with the random numbers of the last game. `row` says which game, where there are
        several; columns that an environment does not know are no concern of it.
        """

    def step(self, action: str) -> Answer:
        """Observation, reward, terminated, truncated, info.

        Terminated: the game ended by itself; truncated: it was cut off, and the observation is the state in which it
        stands; never both: what ended by itself was not cut off. An action that cannot be read has its own reward and
        `info["invalid"]` true. Raises `DataError` before a reset and after the end.
        """


@runtime_checkable
class ScriptedPolicy(Protocol):
    """A player that looks at the game itself, not at its texts: a bound, or the author of a log."""

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        """The next action in the state that the environment is in."""


@runtime_checkable
class Game(Protocol):
    """A task of several turns: its settings, from which environments, logged games and known returns are made."""

    @property
    def memory(self) -> int | None:
        """How many of the newest observations, with the actions between them, make a state; None: the whole game."""

    def make(self) -> TextEnvironment:
        """A new environment, independent of all others."""

    def starts(self) -> list[dict[str, Any]]:
        """Arguments of `reset` that a measurement should spread its games over evenly; `[{}]`: nothing to choose."""

    def rows(self, seed: int = 0) -> list[dict[str, Any]]:
        """Logged games."""

    def bounds(self) -> dict[str, float]:
        """Mean returns of players that are known beforehand."""


@dataclass(frozen=True)
class MeanReturn:
    """A mean return per game with its 95 % interval (normal approximation), in units of reward."""

    mean: float
    low: float
    high: float
    games: int


def play(
    environment: TextEnvironment,
    policy: ScriptedPolicy,
    seed: int,
    max_turns: int | None = None,
    **row: Any,
) -> dict[str, Any]:
    """One game as a logged row: `messages`, `rewards` (one per assistant message) and `terminated`.

    The observation after the last action stands at the end of a game that did not terminate, for its value is needed.
    The reward of a turn that failed (`envs.guard`) is None. Environment and player draw from streams of their own.
    """
    rng = np.random.default_rng([seed, 1])
    observation, _ = environment.reset(seed=seed, **row)
    messages = [{"role": "user", "content": observation}]
    rewards: list[float | None] = []
    terminated = truncated = False
    while not (terminated or truncated) and (max_turns is None or len(rewards) < max_turns):
        action = policy.act(environment, rng)
        observation, reward, terminated, truncated, info = environment.step(action)
        messages.append({"role": "assistant", "content": action})
        rewards.append(None if "failed" in info else reward)
        if not terminated:
            messages.append({"role": "user", "content": observation})
    return {"messages": messages, "rewards": rewards, "terminated": terminated}


def returns(
    environment: TextEnvironment,
    policy: ScriptedPolicy,
    games: int,
    seed: int = 0,
    starts: Sequence[dict[str, Any]] = ({},),
) -> Float[np.ndarray, "games"]:
    """The undiscounted return of so many whole games, the starts taken in turn; raises `DataError` if one failed."""
    seeds = np.random.default_rng(seed).integers(2**31, size=games)
    rows = [play(environment, policy, int(s), **starts[i % len(starts)]) for i, s in enumerate(seeds)]
    failed = sum(None in row["rewards"] for row in rows)
    if failed:
        raise DataError(f"returns: got {failed} games that failed, expected whole ones; mend the environment")
    return np.array([sum(row["rewards"]) for row in rows])


def mean_return(
    environment: TextEnvironment,
    policy: ScriptedPolicy,
    games: int = 4096,
    seed: int = 0,
    starts: Sequence[dict[str, Any]] = ({},),
) -> MeanReturn:
    """The mean of `returns` and how sure it is."""
    found = returns(environment, policy, games, seed, starts)
    mean, error = float(found.mean()), float(found.std(ddof=1) / games**0.5)
    return MeanReturn(mean, mean - 1.96 * error, mean + 1.96 * error, games)


def no_game() -> DataError:
    """The error of a step where no game is on."""
    return DataError("step: got an action where no game is on, expected a reset first; call reset")
