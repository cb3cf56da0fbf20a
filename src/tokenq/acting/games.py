"""Games held between a language model and text environments: tokens in, tokens out, side by side.

What the model wrote is kept as it wrote it and never tokenised again; what the environment says is tokenised once, with
what the chat template puts around it. Environment tokens are no decisions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from tokenq.acting.rollout import Exploration, PromptOrder, Row, Writer, kl_to_reference, repeatable
from tokenq.envs.text import TextEnvironment
from tokenq.errors import ConfigError, DataError
from tokenq.nets.reference import Reference
from tokenq.replay.codecs import Joint, Prompt
from tokenq.replay.tokenise import Tokenised, tokenise_opening
from tokenq.types import Episode


class Played:
    """One game as far as it has come, in messages for people and in tokens for the model."""

    def __init__(self, environment: TextEnvironment, codec: Joint, seed: int, row: Row) -> None:
        self.environment = environment
        self.codec = codec
        self.messages: list[dict[str, str]] = []
        self.tokens: list[int] = []
        self.openings: list[int] = []
        self.turns: list[range] = []
        self.tokenised = Tokenised(self.tokens, self.turns, openings=self.openings, memory=codec.memory)
        self.rewards: list[float] = []
        self.invalid = self.clipped = 0
        observation, info = environment.reset(seed=seed, **row)
        self.failed: str | None = info.get("failed")
        self.terminated, self.truncated = False, self.failed is not None
        self._observe(observation)

    @property
    def over(self) -> bool:
        """Whether the environment is done with it."""
        return self.terminated or self.truncated

    @property
    def state(self) -> list[int]:
        """What the model reads before its next turn."""
        return self.tokens[self.tokenised.seen_since(len(self.openings) - 1) :]

    def step(self, decided: Sequence[int]) -> None:
        """Take in the model's turn, and what the environment answers."""
        self.turns.append(range(len(self.tokens), len(self.tokens) + len(decided)))
        self.tokens += decided
        if not self.codec.ended(decided):
            self.clipped += 1
            self.tokens.append(self.codec.ends[0])
        text = self.codec.tokenizer.decode(list(decided), skip_special_tokens=True).strip()
        self.messages.append({"role": "assistant", "content": text})
        observation, reward, self.terminated, self.truncated, info = self.environment.step(text)
        self.invalid += bool(info.get("invalid"))
        self.failed = info.get("failed")
        self.rewards.append(float("nan") if self.failed is not None else float(reward))
        if not self.terminated:
            self._observe(observation)

    def _observe(self, observation: str) -> None:
        self.messages.append({"role": "user", "content": observation})
        self.openings.append(len(self.tokens))
        self.tokens += tokenise_opening(self.messages, self.codec.tokenizer)

    def episode(self) -> Episode:
        """What is learned from it: each turn's reward on its last decision, none where the environment failed."""
        return self.tokenised.episode(self.rewards, self.terminated, {"messages": self.messages})

    @property
    def total(self) -> float:
        """Its undiscounted return; NaN if its environment failed, for nobody knows what it would have earned."""
        return float("nan") if self.failed is not None else float(np.sum(self.rewards))


@dataclass(frozen=True)
class Limits:
    """How long a turn may be in tokens, how many turns a game may have, and how many games run side by side."""

    max_completion_length: int
    max_turns: int | None
    side_by_side: int


class Player:
    """A model that plays, and environments that are used again."""

    def __init__(self, writer: Writer, make: Callable[[], TextEnvironment], limits: Limits) -> None:
        if not isinstance(writer.codec, Joint):
            raise ConfigError("environment_factory: got a model that holds no conversations; use a decoder-only one")
        self.writer = writer
        self.codec = writer.codec
        self.limits = limits
        self._environments = [make() for _ in range(limits.side_by_side)]

    def play(self, rows: Sequence[Row], seeds: Sequence[int], exploration: Exploration, update: int) -> list[Played]:
        """One game for each row and seed, each to its end."""
        games: list[Played] = []
        for start in range(0, len(rows), self.limits.side_by_side):
            part = slice(start, start + self.limits.side_by_side)
            begun = zip(self._environments, seeds[part], rows[part], strict=False)
            games += self._play(
                [Played(place, self.codec, seed, row) for place, seed, row in begun], exploration, update
            )
        return games

    def _play(self, games: list[Played], exploration: Exploration, update: int) -> list[Played]:
        length = self.limits.max_completion_length
        while going := [game for game in games if not game.over]:
            for game in going:
                game.truncated = self._is_at_its_limit(game)
            going = [game for game in going if not game.over]
            if going:
                states = [Prompt({}, game.state, "", []) for game in going]
                for game, said in zip(going, self.writer.complete(states, exploration, length, update), strict=True):
                    game.step(said)
        return games

    def _is_at_its_limit(self, game: Played) -> bool:
        """Whether no turn is left, or no room for one; raises `DataError` if there never was any."""
        room, length = self.writer.context, self.limits.max_completion_length
        if not game.turns:
            Prompt({}, game.state, "", []).fits(room, length)
        full = room is not None and len(game.state) + length > room
        return full or len(game.turns) == self.limits.max_turns


@dataclass(frozen=True, eq=False)
class Games:
    """Games that are over: what people read and what the log counts. Raises `DataError` if every one of them failed."""

    played: list[Played]

    def __post_init__(self) -> None:
        if not len(self.returns):
            raise DataError(
                f"environment: got {self.failed} games that failed, expected at least one whole game "
                f"(the first: {self.played[0].failed}); mend it, or set environment_timeout higher if it is slow"
            )

    @property
    def returns(self) -> Float[np.ndarray, "n"]:
        """The undiscounted returns of the whole games; one that failed has none."""
        return np.array([game.total for game in self.played if game.failed is None])

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return len(self.played) - len(self.returns)

    def episodes(self) -> list[Episode]:
        """One for each game in which a turn was taken."""
        return [game.episode() for game in self.played if game.turns]

    def metrics(self) -> dict[str, float]:
        """Mean return of the whole games, turns of all, and how often something went wrong."""
        turns = sum(len(game.turns) for game in self.played)
        return {
            "reward": float(self.returns.mean()),
            "reward_std": float(self.returns.std()),
            "turns": turns / len(self.played),
            "invalid_share": sum(game.invalid for game in self.played) / turns,
            "clipped_share": sum(game.clipped for game in self.played) / turns,
            "truncated_share": float(np.mean([game.truncated for game in self.played])),
            "failed": float(self.failed),
        }

    def table(self) -> dict[str, list[Any]]:
        """The columns of the completions table, which reads back as scored data."""
        return {
            "messages": [game.messages for game in self.played],
            "rewards": [[None if np.isnan(r) else r for r in game.rewards] for game in self.played],
            "terminated": [game.terminated for game in self.played],
        }


@dataclass
class GameRollout:
    """Fresh games for the replay; its whole state is how many were begun, so that a resumed run plays the same ones."""

    player: Player
    order: PromptOrder
    exploration: Exploration
    reference: Reference
    games: int
    seed: int
    reward_calls: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    completions: Games | None = None

    def __call__(self, update: int) -> list[Episode]:
        """Fresh episodes for the replay."""
        with repeatable(self):
            first = self.order.cursor
            rows = self.order.take(self.games, 1)
            seeds = game_seeds(self.seed, first, self.games)
            done = Games(self.player.play(rows, seeds, self.exploration, update))
        self.reward_calls += len(rows)
        self.completions = done
        episodes = self.reference.record(done.episodes())
        kl = kl_to_reference(self.player.writer.network, episodes)
        self.metrics = done.metrics() | {"kl": float(np.mean(kl)), "reward_calls": self.reward_calls}
        return episodes


def game_seeds(seed: int, first: int, count: int) -> list[int]:
    """Seeds of the games from number `first` on."""
    return [int(np.random.default_rng([seed, n]).integers(2**31)) for n in range(first, first + count)]
