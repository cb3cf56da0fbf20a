"""Conversations turn by turn: what a policy that forgets reads of them, and how they are held live."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import DataError
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
