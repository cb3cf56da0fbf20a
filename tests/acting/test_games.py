"""Games between a model and an environment: tokens in, tokens out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.games import GameRollout, Games, Limits, Player, game_seeds
from tokenq.acting.rollout import PromptOrder, Writer
from tokenq.envs.guard import Guarded
from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.games import GameEvaluator
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import PLAIN
from tokenq.nets.reference import Reference
from tokenq.nets.tokenizers import Characters
from tokenq.replay.codecs import Joint, Paired
from tokenq.replay.offline import episodes_from_rows

LETTERS = "abcdefgh"


class Count:
    """Says how often it was answered; pays for every b; over after `turns`, or cut off there."""

    def __init__(self, turns: int = 3, cut: bool = False) -> None:
        self.turns, self.cut, self.said, self.seeds = turns, cut, 0, []

    def reset(self, *, seed: int | None = None, start: str = "a", **_: Any) -> tuple[str, dict[str, Any]]:
        self.said = 0
        self.seeds.append(seed)
        return start, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.said += 1
        over = self.said == self.turns
        info = {"invalid": True} if not action else {}
        return "h" * self.said, float(action.count("b")), over and not self.cut, over and self.cut, info


@pytest.fixture
def network(tiny: Callable[..., PreTrainedModel]) -> LanguageQ:
    return LanguageQ(tiny("gpt2", vocabulary=5 + len(LETTERS)))


def player(network: LanguageQ, make: Callable[[], Any], memory: int | None = None, **limits: Any) -> Player:
    tokenizer = Characters().train([LETTERS], "bare", sentinels=False)
    tokenizer.chat_template = PLAIN
    codec = Joint(tokenizer, [tokenizer.eos_token_id], memory)
    settings = {"max_completion_length": 4, "max_turns": None, "side_by_side": 3} | limits
    return Player(Writer(network, codec, limits.pop("context", 64)), make, Limits(**settings))


def test_what_is_learned_is_what_was_played(network: LanguageQ) -> None:
    seat = player(network, Count)
    games = seat.play([{}] * 4, [1, 2, 3, 4], Boltzmann(), 0)
    assert len(games) == 4
    for game in games:
        episode, codec = game.episode(), seat.codec
        end, begin = codec.ends[0], codec.tokenizer.bos_token_id
        assert episode.terminated and len(game.turns) == 3
        assert [m["role"] for m in game.messages] == ["user", "assistant"] * 3
        assert [m["content"] for m in game.messages[::2]] == ["a", "h", "hh"]
        # Every decision is a token that the model drew; what stands between turns is the environment's.
        decided = [[int(episode.tokens[i]) for i in turn] for turn in game.turns]
        assert [t for turn in decided for t in turn] == episode.actions.tolist()
        for turn, message in zip(decided, game.messages[1::2], strict=True):
            assert codec.tokenizer.decode(turn, skip_special_tokens=True).strip() == message["content"]
        between = np.delete(episode.tokens, episode.decisions).tolist()
        heard = [[*codec.tokenizer.convert_tokens_to_ids(list(text)), begin] for text in ("a", "h", "hh")]
        cut = [[] if turn[-1] == end else [end] for turn in decided]
        expected = [*heard[0], *cut[0], *heard[1], *cut[1], *heard[2], *cut[2]]
        assert between == expected
        closing = episode.rewards[episode.closes]
        assert closing.tolist() == [float(message["content"].count("b")) for message in game.messages[1::2]]
        assert episode.rewards.sum() == closing.sum() == game.total


class InLetters:
    """Boltzmann over letters and the end: a special token would be lost in the text of a log."""

    def log_probabilities(self, logits: Tensor, update: int) -> Tensor:
        forbidden = logits.clone()
        forbidden[:, [0, 1, 2, 4]] = -torch.inf
        return forbidden.log_softmax(-1)


def test_a_game_from_its_log_has_the_same_tokens(network: LanguageQ) -> None:
    for cut in (False, True):
        seat = player(network, lambda cut=cut: Count(cut=cut), memory=2)
        games = [g for g in seat.play([{}] * 40, list(range(40)), InLetters(), 0) if not g.clipped]
        table = Games(games).table()
        assert games
        for n, game in enumerate(games):
            row = {name: column[n] for name, column in table.items()}
            (read,) = episodes_from_rows([row], seat.codec, "log", None)
            played = game.episode()
            assert read.tokens.tolist() == played.tokens.tolist()
            assert read.decisions.tolist() == played.decisions.tolist()
            assert read.rewards.tolist() == played.rewards.tolist()
            assert read.terminated == played.terminated == (not cut)
            assert read.starts.tolist() == played.starts.tolist()


def test_a_model_that_forgets_reads_the_newest_observation_alone(network: LanguageQ) -> None:
    seat = player(network, Count, memory=1)
    (game,) = seat.play([{}], [0], Greedy(), 0)
    episode = game.episode()
    first = [episode.tokens[part].tolist() for part in episode.readings]
    h, begin = seat.codec.tokenizer.convert_tokens_to_ids(["h", "<s>"])
    assert [part[: 1 + n] for n, part in enumerate(first)][1:] == [[h, begin], [h, h, begin]]


def test_games_depend_on_their_seeds_alone(network: LanguageQ) -> None:
    made: list[Count] = []

    def make() -> Count:
        made.append(Count())
        return made[-1]

    player(network, make, side_by_side=2).play([{}] * 3, [5, 6, 7], Greedy(), 0)
    assert [place.seeds for place in made] == [[5, 7], [6]]
    assert game_seeds(0, 0, 4) == game_seeds(0, 0, 2) + game_seeds(0, 2, 2)
    assert game_seeds(0, 0, 4) != game_seeds(1, 0, 4)


def test_no_turn_or_no_room_left_is_a_truncation(network: LanguageQ) -> None:
    (short,) = player(network, lambda: Count(turns=9), max_turns=2).play([{}], [0], Greedy(), 0)
    assert short.truncated and not short.terminated and len(short.turns) == 2
    assert short.messages[-1]["role"] == "user"
    assert short.episode().states[-1] == len(short.tokens) - 1 > short.turns[-1].stop - 1
    seat = player(network, lambda: Count(turns=99))
    (full,) = seat.play([{}], [0], Greedy(), 0)
    assert full.truncated and len(full.tokens) > 64 - 4
    assert max(turn.stop for turn in full.turns) <= 64
    with pytest.raises(DataError, match="to leave room for 4 of 64"):
        seat.play([{"start": "abcdefgh" * 8}], [0], Greedy(), 0)


class Fragile(Count):
    """Costs 1 a turn; `start` says where it fails: at "x" in the reset, at "y" in the second turn, else nowhere."""

    def reset(self, *, seed: int | None = None, start: str = "y", **_: Any) -> tuple[str, dict[str, Any]]:
        self.start = start
        if start == "x":
            raise RuntimeError("no game")
        return super().reset(seed=seed, start=start)

    def step(self, action: str) -> Any:
        if self.start == "y" and self.said == 1:
            raise RuntimeError("no more")
        observation, _, *ended = super().step(action)
        return observation, -1.0, *ended


STARTS = [{"start": start} for start in "axay"]


def test_an_environment_that_fails_costs_its_game_alone(network: LanguageQ) -> None:
    seat = player(network, lambda: Guarded(Fragile, 5.0))
    games = Games(seat.play(STARTS, [0, 1, 2, 3], Greedy(), 0))
    whole, unbegun, _, broken = games.played
    assert whole.failed is None and whole.total == -3 and len(whole.turns) == 3
    assert unbegun.failed == "reset: RuntimeError: no game" and not unbegun.turns and np.isnan(unbegun.total)
    assert broken.failed == "step: RuntimeError: no more" and len(broken.turns) == 2 and np.isnan(broken.total)
    rewards = broken.episode().rewards
    assert np.isnan(rewards[-1]) and np.nansum(rewards) == -1
    assert len(games.episodes()) == 3


def test_a_game_that_failed_has_no_return(network: LanguageQ) -> None:
    """Whole games earn −3 each: with a failed reset as 0, the mean would be better than the best game."""
    seat = player(network, lambda: Guarded(Fragile, 5.0))
    games = Games(seat.play(STARTS, [0, 1, 2, 3], Greedy(), 0))
    assert games.returns.tolist() == [-3, -3]
    metrics = games.metrics()
    assert (metrics["reward"], metrics["reward_std"], metrics["failed"]) == (-3, 0, 2)
    assert metrics["truncated_share"] == 0.5 and metrics["turns"] == (3 + 0 + 3 + 2) / 4
    figures = GameEvaluator(seat, Reference(network), STARTS, Boltzmann(), samples=4, seed=0).evaluate().metrics
    for name in ("reward", "greedy_reward"):
        assert [figures[f"{name}{end}"] for end in ("_low", "", "_high")] == [-3, -3, -3]
    assert figures["failed"] == figures["greedy_failed"] == 2 and np.isfinite(figures["kl"])


@pytest.mark.parametrize(("start", "reason"), [("x", "reset: RuntimeError: no game"), ("y", "step: .*: no more")])
def test_games_that_all_failed_say_why(network: LanguageQ, start: str, reason: str) -> None:
    seat, rows, reference = player(network, lambda: Guarded(Fragile, 5.0)), [{"start": start}], Reference(network)
    message = rf"got 2 games that failed, expected at least one whole game \(the first: {reason}\); mend it"
    rollout = GameRollout(seat, PromptOrder(rows, 0), Boltzmann(), reference, games=2, seed=0)
    with pytest.raises(DataError, match=message):
        rollout(0)
    assert rollout.order.cursor == 0 and rollout.reward_calls == 0
    with pytest.raises(DataError, match=message):
        GameEvaluator(seat, reference, rows, Boltzmann(), samples=2, seed=0).evaluate()


def test_a_rollout_is_repeated_if_it_fails(network: LanguageQ) -> None:
    seat = player(network, Fragile)
    order = PromptOrder([{"start": "y"}], 0)
    rollout = GameRollout(seat, order, Boltzmann(), Reference(network), games=2, seed=0)
    with pytest.raises(RuntimeError, match="no more"):
        rollout(0)
    assert rollout.order.cursor == 0 and rollout.reward_calls == 0
    fine = GameRollout(player(network, Count), PromptOrder([{}], 0), Boltzmann(), Reference(network), games=2, seed=0)
    episodes = fine(0)
    assert len(episodes) == 2 and fine.order.cursor == 2 and fine.reward_calls == 2
    assert all(episode.record is not None for episode in episodes)
    assert {
        "reward",
        "turns",
        "invalid_share",
        "clipped_share",
        "truncated_share",
        "failed",
        "kl",
    } <= fine.metrics.keys()


def test_only_a_model_that_holds_conversations_plays(network: LanguageQ) -> None:
    writer = Writer(network, Paired(None, [0], 0), None)
    with pytest.raises(ConfigError, match="holds no conversations"):
        Player(writer, Count, Limits(4, None, 1))
