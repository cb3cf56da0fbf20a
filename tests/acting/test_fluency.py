"""Fluency as a reward: a saved n-gram model, found by its name in a configuration."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenq.acting.fluency import Fluency
from tokenq.acting.loading_by_name import load_reward
from tokenq.acting.rewards import Rewards, TrainerState
from tokenq.errors import ConfigError, RewardError
from tokenq.nets.ngram import NGram
from tokenq.nets.smoothing import KneserNey

WORDS = ["<end>", "<unk>", "the", "cat", "sat", "on", "mat", "c"]
TEXTS = ["the cat sat on the mat", "the cat sat", "the mat sat on the cat", "on the mat the cat sat"]


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    NGram.estimate(map(ids, TEXTS), 3, len(WORDS), KneserNey(0.75), end=0).save(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def mean(folder: Path, text: str, start: int) -> float:
    """The mean log-probability of the words of a text from number `start` on."""
    return float(NGram.load(folder).log_probabilities(ids(text))[start:].mean())


def test_the_mean_log_probability_of_the_completion_given_its_prompt(folder: Path) -> None:
    answers = Fluency(str(folder))(["the cat", "the ", ""], [" sat on the mat", "cat", "the cat"], trainer_state=None)
    expected = [mean(folder, "the cat sat on the mat", 2), mean(folder, "the cat", 1), mean(folder, "the cat", 0)]
    assert answers == pytest.approx(expected, abs=1e-12)


def test_a_word_cut_by_the_end_of_the_prompt_counts_for_the_completion(folder: Path) -> None:
    assert Fluency(str(folder))(["the c"], ["at sat"]) == pytest.approx([mean(folder, "the cat sat", 1)], abs=1e-12)


def test_fluent_text_scores_higher(folder: Path) -> None:
    fluent, shuffled, unknown = Fluency(str(folder))(["the"] * 3, [" cat sat on", " on sat cat", " zebra zebra zebra"])
    assert fluent is not None and shuffled is not None and unknown is not None
    assert fluent > shuffled > unknown


def test_a_completion_without_tokens_is_not_rated(folder: Path) -> None:
    assert Fluency(str(folder))(["the cat", ""], ["", " "]) == [None, None]


def test_a_reply_is_a_text_of_its_own(folder: Path) -> None:
    question = [{"role": "user", "content": "sat on"}]
    reply = [{"role": "assistant", "content": "the cat sat"}]
    assert Fluency(str(folder))([question], [reply]) == pytest.approx([mean(folder, "the cat sat", 0)], abs=1e-12)
    with pytest.raises(RewardError, match="content None"):
        Fluency(str(folder))([question], [[{"role": "assistant", "content": None}]])


def test_by_its_name_in_a_configuration(folder: Path) -> None:
    reward = load_reward({"path": "tokenq.acting.fluency:Fluency", "args": {"path": str(folder)}})
    scores = Rewards([reward])(["the"], [" cat"], [[3]], {}, TrainerState(0, 1))
    assert scores.parts == {"Fluency": [pytest.approx(mean(folder, "the cat", 1))]}


def test_what_is_missing_is_said_before_anything_is_scored(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"it has no tokenizer\.json"):
        load_reward({"path": "tokenq.acting.fluency:Fluency", "args": {"path": str(folder)}})
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="expected a tokenizer of the tokenizers library"):
        Fluency(str(folder))(["the"], [" cat"])


def test_a_tokenizer_that_is_not_the_models(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["more"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ConfigError, match="got 9 tokens, expected at most the model's 8"):
        Fluency(str(folder))(["the"], [" cat"])
