"""Rows to token ids and back, for models with an encoder, with labels, and with spans."""

from typing import Any

import pytest

from tokenq.errors import DataError
from tokenq.nets.tokenizers import Words
from tokenq.replay.codecs import Codec, Labelled, Paired, Spanned
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows

TEXTS = ["who came home ?", "the old man came home at noon . nobody saw him"]


def tokenizer(frame: Any) -> Any:
    return Words().train(TEXTS, frame, sentinels=False)


def ids(frame: Any, text: str) -> list[int]:
    return tokenizer(frame)(text, add_special_tokens=False)["input_ids"]


def paired() -> Paired:
    end = tokenizer("ended").eos_token_id
    return Paired(tokenizer("ended"), [end], start=end)


def test_an_encoder_reads_the_prompt_and_a_decoder_writes_the_completion() -> None:
    codec = paired()
    (episode,) = episodes_from_rows([{"prompt": TEXTS[0], "completion": "old man", "reward": 2}], codec, "f", None)
    end = codec.start
    assert episode.source.tolist() == [*ids("ended", TEXTS[0]), end]
    assert episode.tokens.tolist() == [end, *ids("ended", "old man"), end]
    assert episode.decisions.tolist() == [1, 2, 3] and episode.rewards.tolist() == [0, 0, 2]
    cut = {"prompt": "man", "completion": "old", "reward": 1, "terminated": False}
    assert episodes_from_rows([cut], codec, "f", None)[0].tokens.tolist() == [end, *ids("ended", "old")]
    prompt = codec.prompt({"prompt": TEXTS[0]})
    assert (prompt.tokens, prompt.source) == ([end], episode.source.tolist())
    assert codec.text(prompt, episode.actions.tolist()).split() == ["old", "man"]
    assert codec.ended(episode.actions.tolist()) and not codec.ended([5])


def test_a_label_is_one_decision() -> None:
    codec = Labelled(tokenizer("enclosed"), ["bad", "good"])
    row = {"prompt": TEXTS[0], "completion": " good", "reward": 1}
    (episode,) = episodes_from_rows([row], codec, "f", None)
    assert (episode.tokens.tolist(), episode.decisions.tolist()) == ([0, 1], [1])
    assert len(episode.source) == len(ids("enclosed", TEXTS[0])) + 2
    assert codec.text(codec.prompt(row), [0]) == "bad"
    with pytest.raises(
        DataError, match=r"f row 1: column 'completion' is .*expected one of the model's labels, bad, good"
    ):
        episodes_from_rows([row | {"completion": "fine"}], codec, "f", None)


def test_a_span_is_two_decisions_that_cover_the_answer() -> None:
    codec = Spanned(tokenizer("enclosed"))
    row = {"prompt": TEXTS[0], "context": TEXTS[1], "completion": "old man", "reward": 1}
    (episode,) = episodes_from_rows([row], codec, "f", None)
    prompt = codec.prompt(row)
    words = [TEXTS[1][start:end] for start, end in prompt.spans]
    assert [words[i] for i in episode.actions] == ["old", "man"]
    assert codec.text(prompt, episode.actions.tolist()) == "old man"
    assert prompt.spans[1] == (0, 0), "a token of the question covers nothing of the paragraph"
    later = row | {"completion": "came", "answer_start": TEXTS[1].index("came")}
    assert codec.text(prompt, episodes_from_rows([later], codec, "f", None)[0].actions.tolist()) == "came"
    with pytest.raises(DataError, match=r"f row 1: .*the answer 'a cat' is not in the paragraph"):
        episodes_from_rows([row | {"completion": "a cat"}], codec, "f", None)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (4, r"answer_start points at 'came', expected 'home'; fix it, or leave answer_start out"),
        (999, r"answer_start points at '', expected 'home'"),
        (-4, r"column 'answer_start' is -4; expected a whole number of characters"),
        ("noon", r"column 'answer_start' is 'noon'; expected a whole number of characters"),
    ],
)
def test_a_start_elsewhere_is_shown(start: Any, message: str) -> None:
    codec = Spanned(tokenizer("enclosed"))
    row = {"prompt": TEXTS[0], "context": TEXTS[0], "completion": "home", "reward": 1}
    digits = episodes_from_rows([row | {"answer_start": str(TEXTS[0].index("home"))}], codec, "f", None)
    assert digits[0].tokens.tolist() == episodes_from_rows([row], codec, "f", None)[0].tokens.tolist()
    with pytest.raises(DataError, match=f"^f row 1: {message}"):
        episodes_from_rows([row | {"answer_start": start}], codec, "f", None)


@pytest.mark.parametrize("codec", [paired(), Labelled(tokenizer("enclosed"), ["a", "b"])])
def test_what_is_too_long_or_a_conversation_is_refused(codec: Codec) -> None:
    assert prompts_from_rows([{"prompt": TEXTS[0]}], codec, "f", 8)
    with pytest.raises(DataError, match=r"f row 1: column 'prompt' has \d+ tokens; expected at most 4"):
        prompts_from_rows([{"prompt": TEXTS[0]}], codec, "f", 4)
    talk = [{"role": "user", "content": "who"}]
    with pytest.raises(DataError, match="this kind of model holds no conversations"):
        prompts_from_rows([{"prompt": talk}], codec, "f", 8)
    said = {"messages": [*talk, {"role": "assistant", "content": "man"}], "reward": 1}
    with pytest.raises(DataError, match="this kind of model holds no conversations"):
        episodes_from_rows([said], codec, "f", 8)
