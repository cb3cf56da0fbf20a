import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tokenq.errors import DataError
from tokenq.replay.codecs import Joint
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows
from tokenq.types import Episode

BOS, EOS, NEWLINE, COLON = 0, 1, 30, 31
HI = {"role": "user", "content": "hi"}
YO = {"role": "assistant", "content": "yo"}
OK = {"role": "assistant", "content": "ok"}


def _ids(text: str) -> list[int]:
    """Token ids of the character tokenizer by hand; `$` stands for EOS."""
    special = {"$": EOS, " ": 29, "\n": NEWLINE, ":": COLON}
    return [special[c] if c in special else ord(c) - ord("a") + 3 for c in text]


def _one(row: dict[str, Any], tokenizer, context: int | None = None) -> Episode:
    episodes = episodes_from_rows([row], Joint(tokenizer, [EOS]), "scored.jsonl", context)
    assert len(episodes) == 1
    return episodes[0]


def _assert_episode(episode: Episode, text: str, decided: str, rewards: list[float]) -> None:
    """`decided` marks the decisions of `text` with ^."""
    assert episode.tokens.tolist() == _ids(text)
    assert episode.decisions.tolist() == [i for i, mark in enumerate(decided) if mark == "^"]
    np.testing.assert_array_equal(episode.rewards, rewards)


def test_prompt_and_completion(characters) -> None:
    episode = _one({"prompt": "ab ", "completion": "cd", "reward": 0.5, "rater": "x"}, characters)
    _assert_episode(episode, "ab cd$", "   ^^^", [0, 0, 0.5])
    assert episode.terminated
    assert episode.columns == {"prompt": "ab ", "rater": "x"}


def test_a_cut_off_completion_has_no_eos(characters) -> None:
    episode = _one({"prompt": "ab", "completion": "cd", "reward": 1, "terminated": False}, characters)
    _assert_episode(episode, "abcd", "  ^^", [0, 1])
    assert not episode.terminated


def test_an_eos_in_the_text_is_not_doubled(characters) -> None:
    _assert_episode(_one({"prompt": "ab", "completion": "c</s>", "reward": 1}, characters), "abc$", "  ^^", [0, 1])


def test_saying_nothing_is_a_decision(characters) -> None:
    _assert_episode(_one({"prompt": "ab", "completion": "", "reward": 1}, characters), "ab$", "  ^", [1])


@pytest.mark.parametrize(("label", "reward"), [(True, 1.0), (False, 0.0)])
def test_labels_are_one_and_zero(characters, label: bool, reward: float) -> None:
    _assert_episode(_one({"prompt": "a", "completion": "b", "label": label}, characters), "ab$", " ^^", [0, reward])


def test_a_preference_is_two_episodes(characters) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "cd", "margin": 2}
    chosen, rejected = episodes_from_rows([row], Joint(characters, [EOS]), "pairs.jsonl", None)
    _assert_episode(chosen, "ab$", " ^^", [0, 1])
    _assert_episode(rejected, "acd$", " ^^^", [0, 0, 0])
    with_ids = {**row, "prompt_ids": [9], "completion_ids": [9]}
    assert (
        episodes_from_rows([with_ids], Joint(characters, [EOS]), "p", None)[1].tokens.tolist()
        == rejected.tokens.tolist()
    )
    assert chosen.columns == rejected.columns == {"prompt": "a", "margin": 2}


def test_exact_tokens_are_kept_as_they_are(characters) -> None:
    row = {"prompt": "x", "completion": "yz", "prompt_ids": [3, 4], "completion_ids": [5, 5], "reward": 2}
    _assert_episode(_one(row, characters), "abcc", "  ^^", [0, 2])


def test_a_token_across_the_seam_belongs_to_the_completion(enclosing) -> None:
    episode = _one({"prompt": "ab", "completion": "cd", "reward": 1}, enclosing)
    # <s> a bc d </s>: the tokenizer's own </s> was dropped and the last decision put in its place.
    assert episode.tokens.tolist() == [0, 2, 6, 5, 1]
    assert episode.decisions.tolist() == [2, 3, 4]


def test_added_special_tokens_are_no_decisions(enclosing) -> None:
    episode = _one({"prompt": "", "completion": "a", "reward": 1, "terminated": False}, enclosing)
    assert (episode.tokens.tolist(), episode.decisions.tolist()) == ([0, 2], [1])


def test_a_conversation_rated_as_a_whole(chatty) -> None:
    episode = _one({"messages": [HI, YO, HI, OK], "reward": 3, "who": "me"}, chatty)
    _assert_episode(episode, "u:hi\na:yo$\nu:hi\na:ok$", "       ^^^        ^^^", [0, 0, 0, 0, 0, 3])
    assert episode.columns == {"prompt": [HI], "who": "me"}


def test_a_conversation_rated_per_turn(chatty) -> None:
    episode = _one({"messages": [HI, YO, HI, OK], "rewards": [None, 3]}, chatty)
    _assert_episode(episode, "u:hi\na:yo$\nu:hi\na:ok$", "       ^^^        ^^^", [0, 0, math.nan, 0, 0, 3])


def test_a_conversation_cut_off_in_the_assistants_turn_ends_before_eos(chatty) -> None:
    episode = _one({"messages": [HI, YO], "reward": 1, "terminated": False}, chatty)
    _assert_episode(episode, "u:hi\na:yo", "       ^^", [0, 1])


def test_a_conversation_cut_off_after_the_user_ends_where_the_next_turn_opens(chatty) -> None:
    episode = _one({"messages": [HI, YO, HI], "reward": 1, "terminated": False}, chatty)
    _assert_episode(episode, "u:hi\na:yo$\nu:hi\na:", "       ^^^", [0, 0, 1])
    assert episode.states[-1] == 17


def test_a_terminated_conversation_ends_with_the_last_decision(chatty) -> None:
    _assert_episode(_one({"messages": [HI, YO, HI], "reward": 1}, chatty), "u:hi\na:yo$", "       ^^^", [0, 0, 1])


def test_a_template_without_eos_gets_one_at_the_end(characters) -> None:
    tokenizer = type(characters)(tokenizer_object=characters.backend_tokenizer, eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    episode = _one({"messages": [HI, YO, HI, OK], "reward": 1}, tokenizer)
    _assert_episode(episode, "hi\nyo\nhi\nok\n$", "   ^^^   ^^^^", [0] * 6 + [1])


def test_prompt_and_completion_as_messages(chatty) -> None:
    row = {"prompt": [HI, YO, HI], "completion": [OK], "reward": 1}
    episode = _one(row, chatty)
    _assert_episode(episode, "u:hi\na:yo$\nu:hi\na:ok$", "                  ^^^", [0, 0, 1])
    assert episode.columns == {"prompt": [HI, YO, HI]}


def test_null_columns_count_as_absent(characters) -> None:
    row = {"messages": None, "label": None, "prompt": "a", "completion": "b", "reward": 1.0, "terminated": None}
    _assert_episode(_one(row, characters), "ab$", " ^^", [0, 1])


@given(prompt=st.text("abc :", min_size=1, max_size=8), completion=st.text("abc :", max_size=8), cut=st.booleans())
def test_every_character_keeps_its_side(characters, prompt: str, completion: str, cut: bool) -> None:
    if cut and not completion:
        completion = "a"
    row = {"prompt": prompt, "completion": completion, "reward": 1, "terminated": not cut}
    episode = _one(row, characters)
    text = prompt + completion + ("" if cut else "$")
    _assert_episode(episode, text, " " * len(prompt) + "^" * (len(text) - len(prompt)), episode.rewards.tolist())
    assert episode.total_reward == 1.0


BAD_ROWS = [
    ({"prompt": "a", "completion": "b", "reward": math.nan}, "column 'reward' is NaN; expected a finite number"),
    ({"prompt": "a", "completion": "b", "reward": math.inf}, "column 'reward' is inf; expected a finite number"),
    ({"prompt": "a", "completion": "b", "reward": "5"}, "column 'reward' is '5'; expected a finite number"),
    ({"prompt": "a", "completion": "b", "reward": True}, "column 'reward' is True; expected a finite number"),
    ({"prompt": "a", "completion": "b"}, "column 'reward' is missing; expected a finite number"),
    ({"prompt": "a", "completion": "b", "reward": 1, "label": True}, "columns 'reward' and 'label' are both set"),
    ({"prompt": "a", "completion": "b", "label": "yes"}, "column 'label' is 'yes'; expected true or false"),
    ({"prompt": "a", "completion": "b", "reward": 1, "terminated": "no"}, "column 'terminated' is 'no'"),
    ({"completion": "b", "reward": 1}, "column 'prompt' is missing"),
    ({"prompt": 3, "completion": "b", "reward": 1}, "column 'prompt' is 3; expected a string, or a list of messages"),
    ({"prompt": [HI], "completion": "b", "reward": 1}, "'prompt' and 'completion' are of two kinds"),
    ({"prompt": [HI, YO], "completion": [HI, OK], "reward": 1}, "column 'prompt' ends with an assistant message"),
    ({"prompt": [HI], "completion": [HI, OK], "reward": 1}, "message 1 is from 'user' and follows 'user'"),
    (
        {"prompt": [{"role": "system", "content": "x"}], "completion": [HI], "reward": 1},
        "column 'completion' has no assistant message",
    ),
    ({"prompt": "", "completion": "b", "reward": 1}, "column 'prompt' has no tokens"),
    ({"prompt": "a", "completion": "", "reward": 1, "terminated": False}, "column 'completion' has no tokens"),
    ({"prompt": "a", "completion": "b" * 40, "reward": 1}, "has 42 tokens; expected at most 32"),
    ({"prompt": "a" * 40, "completion": "b", "reward": 1}, "column 'prompt' has 40 tokens; expected fewer than 32"),
    ({"prompt": "a", "completion": "b", "reward": 1, "when": b"x"}, "column 'when' is b'x'; expected a JSON value"),
    ({"prompt_ids": [3], "reward": 1, "completion_ids": [99]}, "column 'completion_ids' is [99]; expected a list of"),
    ({"prompt": "a", "completion_ids": [3], "reward": 1}, "column 'prompt_ids' is missing"),
    ({"text": "a", "stars": 5}, "has the columns text, stars; expected messages + reward"),
    ({}, "has the columns none; expected messages + reward"),
    ({"messages": "hi", "reward": 1}, "column 'messages' is 'hi'; expected a list of messages"),
    ({"messages": [], "reward": 1}, "column 'messages' is []"),
    ({"messages": [{"role": "user"}], "reward": 1}, "column 'messages' is [{'role': 'user'}]"),
    ({"messages": [HI], "reward": 1}, "column 'messages' has no assistant message"),
    ({"messages": [HI, YO]}, "column 'reward' is missing"),
    ({"messages": [HI, YO], "rewards": [None]}, "column 'rewards' rates no turn"),
    ({"messages": [HI, YO], "rewards": [1, 2]}, "column 'rewards' has 2 entries; expected 1"),
    ({"messages": [HI, YO, HI, OK], "rewards": [1]}, "column 'rewards' has 1 entries; expected 2"),
    ({"messages": [HI, YO], "rewards": [math.nan]}, "column 'rewards[0]' is NaN; expected a finite number"),
    ({"messages": [HI, YO], "rewards": 1}, "column 'rewards' is 1; expected a list"),
    ({"messages": [HI, YO], "rewards": [1], "reward": 1}, "column 'rewards' is set beside 'reward' or 'label'"),
    ({"messages": [HI, YO, OK], "reward": 1}, "message 2 is from 'assistant' and follows 'assistant'"),
    ({"messages": [YO], "reward": 1}, "message 0 is from 'assistant' and comes first"),
    ({"messages": [HI, {"role": "bot", "content": ""}], "reward": 1}, "message 1 has the role 'bot'"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS, ids=[message for _, message in BAD_ROWS])
def test_a_bad_row_is_named(chatty, row: dict[str, Any], message: str) -> None:
    good = {"prompt": "a", "completion": "b", "reward": 1}
    with pytest.raises(DataError) as caught:
        episodes_from_rows([good, row], Joint(chatty, [EOS]), "scored.jsonl", 32)
    assert str(caught.value).startswith("scored.jsonl row 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the tokenizer has none; set `chat_template`"),
        ("{{ messages | length }}", "changes earlier text when a message is added"),
        ("{{ raise_exception('no users here') }}", "the chat template refuses the messages: no users here"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "assistant turn 1 has no tokens"),
    ],
)
def test_a_template_that_does_not_fit_is_named(characters, template: str | None, message: str) -> None:
    tokenizer = type(characters)(tokenizer_object=characters.backend_tokenizer, eos_token="</s>")
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=message):
        _one({"messages": [HI, YO], "reward": 1, "terminated": False}, tokenizer)


def test_a_tokenizer_without_eos_cannot_end_a_text(characters) -> None:
    tokenizer = type(characters)(tokenizer_object=characters.backend_tokenizer)
    with pytest.raises(DataError, match="no EOS token"):
        _one({"prompt": "a", "completion": "b", "reward": 1}, tokenizer)


def test_prompts_come_back_with_their_columns(chatty) -> None:
    rows = [{"prompt": "ab", "answer": 3}, {"prompt": [HI]}]
    assert prompts_from_rows(rows, Joint(chatty, [EOS]), "prompts.jsonl", 32) == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "column 'prompt' is missing"),
        ({"prompt": ""}, "column 'prompt' has no tokens"),
        ({"prompt": "abcdefgh"}, "column 'prompt' has 8 tokens; expected fewer than 8"),
        ({"prompt": [HI, YO]}, "column 'prompt' ends with an assistant message"),
        ({"prompt": [HI, HI]}, "message 1 is from 'user' and follows 'user'"),
    ],
)
def test_a_bad_prompt_is_named(chatty, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"prompts.jsonl row 2: .*{message}"):
        prompts_from_rows([{"prompt": "a"}, row], Joint(chatty, [EOS]), "prompts.jsonl", 8)


def test_the_prompts_opening_counts_towards_the_context(chatty) -> None:
    # u:hi, newline, a: are seven tokens.
    assert prompts_from_rows([{"prompt": [HI]}], Joint(chatty, [EOS]), "p", 8)
    with pytest.raises(DataError, match="has 7 tokens; expected fewer than 7"):
        prompts_from_rows([{"prompt": [HI]}], Joint(chatty, [EOS]), "p", 7)


def test_a_real_tokenizer_keeps_the_text(shared_data) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "checkpoints" / "stories260K-hf")
    prompt, completion = "Once upon a time, there was a", " little dog. It's \u00e9t\u00e9!"
    episode = _one({"prompt": prompt, "completion": completion, "reward": 1, "terminated": False}, tokenizer)
    assert tokenizer.decode(episode.tokens, skip_special_tokens=True) == prompt + completion
    assert tokenizer.decode(episode.tokens[: episode.decisions[0]], skip_special_tokens=True) == prompt
    ended = _one({"prompt": prompt, "completion": completion, "reward": 1}, tokenizer)
    assert ended.tokens.tolist() == [*episode.tokens, tokenizer.eos_token_id]
