"""Conversations turn by turn: what a policy that forgets reads of them, and how they are held live."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tokenq.acting.games import Games, Limits, Played, Player
from tokenq.acting.rollout import Writer
from tokenq.errors import DataError
from tokenq.nets.language import LanguageQ
from tokenq.replay.codecs import Joint
from tokenq.replay.offline import episodes_from_rows
from tokenq.replay.tokenise import tokenise_opening
from tokenq.types import Episode

EOS = 1
HI = {"role": "user", "content": "hi"}
YO = {"role": "assistant", "content": "yo"}
OK = {"role": "assistant", "content": "ok"}


def _one(row: dict[str, Any], tokenizer, context: int | None = None, memory: int | None = None) -> Episode:
    (episode,) = episodes_from_rows([row], Joint(tokenizer, [EOS], memory), "scored.jsonl", context)
    return episode


@pytest.mark.parametrize("terminated", [True, False])
def test_a_policy_that_remembers_two_observations(chatty, terminated: bool) -> None:
    talk = [HI, YO, HI, OK, HI, YO, HI][: None if not terminated else -1]
    row = {"messages": talk, "rewards": [1, 2, 3], "terminated": terminated}
    episode = _one(row, chatty, memory=2)
    alone = _one({"messages": talk[:2], "rewards": [1]}, chatty)
    opening = int(alone.decisions[0])  # tokens before the first turn
    length = len(alone.tokens) - opening  # of a turn
    begins = episode.decisions[::length] - opening
    expected = np.repeat(np.array([0, 0, begins[1]]), length).tolist()
    last = begins[1] if terminated else begins[2]
    assert episode.since is not None and episode.since.tolist() == [*expected, last]
    assert _one(row, chatty).since is None
    whole, forgetful = _one(row, chatty), _one(row, chatty, memory=5)
    assert forgetful.since is not None and not forgetful.since.any()
    assert whole.tokens.tolist() == forgetful.tokens.tolist() == episode.tokens.tolist()


def test_a_long_talk_fits_a_policy_that_forgets(chatty) -> None:
    row = {"messages": [HI, YO] * 20, "rewards": [0] * 20}
    with pytest.raises(DataError, match="or set `memory`"):
        _one(row, chatty, context=60)
    assert max(part.stop - part.start for part in _one(row, chatty, context=60, memory=1).readings) < 20


words = st.text("abcdefgh ", max_size=6).filter(lambda text: text.strip())


@given(turns=st.lists(st.tuples(words, words), min_size=1, max_size=4), more=st.booleans())
def test_a_talk_held_turn_by_turn_has_the_tokens_of_the_one_that_is_read(chatty, turns, more: bool) -> None:
    messages = [
        {"role": role, "content": text.strip()}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    messages += [HI] if more else []
    read = _one({"messages": messages, "rewards": [0] * len(turns), "terminated": not more}, chatty)
    tokens: list[int] = []
    decisions: list[int] = []
    for i in range(0, len(messages), 2):
        tokens += tokenise_opening(messages[: i + 1], chatty)
        if i + 1 < len(messages):
            said = [*chatty(messages[i + 1]["content"], add_special_tokens=False)["input_ids"], EOS]
            decisions += range(len(tokens), len(tokens) + len(said))
            tokens += said
    assert tokens == read.tokens.tolist()
    assert decisions == read.decisions.tolist()


LETTERS = "abcdefgh"
END = 3
TAGGED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}h{{ m['content'] }}{{ bos_token }}"
    "{% else %}{{ m['content'] }}{{ eos_token }}g{% endif %}{% endfor %}"
)


def merging() -> PreTrainedTokenizerFast:
    """Letters, of which b and c make one token, and that one and d another; the template tags every message."""
    names = ["<pad>", "<unk>", "<s>", "</s>", *LETTERS, "bc", "bcd"]
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [("b", "c"), ("bc", "d")]))
    made.decoder = decoders.Fuse()
    special = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), names, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TAGGED, **special)


MERGING = merging()


class Dictation:
    """An exploration that lets the model draw one token after another as it is told."""

    def __init__(self, turns: list[list[int]]) -> None:
        self.told = iter(token for turn in turns for token in turn)

    def log_probabilities(self, logits: Tensor, update: int) -> Tensor:
        return torch.full_like(logits, -torch.inf).index_fill(-1, torch.tensor([next(self.told)]), 0.0)


class Answers:
    """Says and pays what it is told to; over after the last answer, or cut off there."""

    def __init__(self, heard: list[str], paid: list[float], cut: bool) -> None:
        self.heard, self.paid, self.cut, self.turn = heard, paid, cut, 0

    def reset(self, *, seed: int | None = None, **row: Any) -> tuple[str, dict[str, Any]]:
        return self.heard[0], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        over = self.turn == len(self.paid)
        return self.heard[self.turn], self.paid[self.turn - 1], over and not self.cut, over and self.cut, {}


@pytest.fixture(scope="module")
def network(tiny: Callable[..., PreTrainedModel]) -> LanguageQ:
    return LanguageQ(tiny("gpt2", len(MERGING), num_hidden_layers=1, max_position_embeddings=128))


def hold(network: LanguageQ, turns: list[list[int]], answers: Answers, memory: int | None = None) -> Played:
    """A game in which the model draws these tokens; a turn without an end has as many as a turn may have."""
    longest = max(map(len, turns))
    player = Player(Writer(network, Joint(MERGING, [END], memory), 128), lambda: answers, Limits(longest, None, 1))
    (game,) = player.play([{}], [0], Dictation(turns), 0)
    return game


@st.composite
def draws(draw: st.DrawFn) -> list[list[int]]:
    """Turns of any tokens: up to an end, or cut off at the longest length that they may have."""
    longest = draw(st.integers(1, 5))
    token = st.sampled_from(MERGING.convert_tokens_to_ids(["b", "c", "bc", "d", "<s>"]))
    ended = st.lists(token, max_size=longest - 1).map(lambda tokens: [*tokens, END])
    clipped = st.lists(token, min_size=longest, max_size=longest)
    return draw(st.lists(clipped | ended, min_size=1, max_size=4))


@given(turns=draws(), memory=st.none() | st.integers(1, 3), cut=st.booleans(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_drawn_is_what_is_learned(network, turns, memory, cut: bool, data) -> None:
    """Token by token, however it might have been spelled; all else is the environment's, the template's or ours."""
    heard = data.draw(st.lists(st.text("abcd", max_size=4), min_size=len(turns) + 1, max_size=len(turns) + 1))
    paid = data.draw(st.lists(st.integers(-3, 3).map(float), min_size=len(turns), max_size=len(turns)))
    game = hold(network, turns, Answers(heard, paid, cut), memory)
    tokens: list[int] = []
    openings: list[int] = []
    places: list[range] = []
    for n, observation in enumerate(heard if cut else heard[:-1]):
        openings.append(len(tokens))
        tokens += MERGING.convert_tokens_to_ids(["g"] if n else []) + MERGING(f"h{observation}<s>")["input_ids"]
        for turn in turns[n : n + 1]:
            places.append(range(len(tokens), len(tokens) + len(turn)))
            tokens += turn if turn[-1] == END else [*turn, END]
    episode = game.episode()
    assert episode.actions.tolist() == [token for turn in turns for token in turn]
    assert episode.tokens.tolist() == tokens and episode.terminated != cut
    assert episode.decisions.tolist() == [i for place in places for i in place]
    rewards = np.zeros(len(tokens))
    rewards[[place[-1] for place in places]] = paid
    assert episode.rewards.tolist() == rewards[episode.decisions].tolist()
    since = [openings[0 if memory is None else max(n + 1 - memory, 0)] for n in range(len(openings))]
    turn_of = [n for n, place in enumerate(places) for _ in place]
    assert episode.starts.tolist() == [since[n] for n in [*turn_of, len(openings) - 1]]


def test_a_log_does_not_say_how_it_was_spelled(network) -> None:
    """b and c, drawn one after the other, are read as bc; the end of a turn that was cut off, as a decision."""
    a, b, c, bc = MERGING.convert_tokens_to_ids(["a", "b", "c", "bc"])
    for drawn, read in (([b, c, END], [bc, END]), ([a], [a, END])):
        game = hold(network, [drawn], Answers(["a", ""], [1.0], False))
        row = {name: column[0] for name, column in Games([game]).table().items()}
        assert game.episode().actions.tolist() == drawn
        assert _one(row, MERGING).actions.tolist() == read
