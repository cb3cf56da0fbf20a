"""The reward contract: what functions receive, what they may answer, and how answers become one number."""

import asyncio
import math
from functools import partial

import numpy as np
import pytest

from tokenq.acting.rewards import Rewards, Scores, TrainerState, reward_stats
from tokenq.errors import ConfigError, RewardError

STATE = TrainerState(global_step=3, max_steps=10)
PROMPTS = ["one", "two", "three"]
COMPLETIONS = ["a", "bb", "cccc"]
IDS = [[1], [2, 3], [4, 5, 6, 7]]


def length(completions, **kwargs):
    return [float(len(text)) for text in completions]


def only_long(completions, **kwargs):
    return [1.0 if len(text) > 1 else None for text in completions]


def score(*functions, weights=None, columns=None) -> Scores:
    return Rewards(functions, weights)(PROMPTS, COMPLETIONS, IDS, columns or {}, STATE)


def test_functions_receive_every_keyword_of_the_contract() -> None:
    seen = {}

    def spy(prompts, completions, **kwargs):
        seen.update(kwargs, prompts=prompts, completions=completions)
        return [0.0] * len(prompts)

    score(spy, columns={"answer": [7, 8, 9], "prompt": PROMPTS, "completion": COMPLETIONS})
    log_extra, log_metric = seen.pop("log_extra"), seen.pop("log_metric")
    assert callable(log_extra) and callable(log_metric)
    assert seen == {
        "prompts": PROMPTS,
        "completions": COMPLETIONS,
        "completion_ids": IDS,
        "answer": [7, 8, 9],
        "trainer_state": STATE,
    }


def test_total_is_the_weighted_sum_without_the_functions_that_do_not_apply() -> None:
    scores = score(length, only_long, weights=[0.5, 10.0])
    np.testing.assert_array_equal(scores.total, [0.5, 11.0, 12.0])
    assert scores.parts == {"length": [1.0, 2.0, 4.0], "only_long": [None, 1.0, 1.0]}


def test_a_completion_nobody_rated_is_nan_not_zero() -> None:
    scores = score(only_long)
    assert math.isnan(scores.total[0])
    np.testing.assert_array_equal(scores.total[1:], [1.0, 1.0])


def test_stats_leave_none_out_and_say_nan_where_nothing_is_known() -> None:
    stats = reward_stats({"a": [1.0, None, 3.0], "b": [5.0, None, None], "c": [None, None, None]})
    assert stats["rewards/a/mean"] == 2.0
    assert stats["rewards/a/std"] == pytest.approx(math.sqrt(2.0))
    assert stats["rewards/b/mean"] == 5.0
    assert math.isnan(stats["rewards/b/std"])
    assert math.isnan(stats["rewards/c/mean"])


def test_any_number_is_accepted() -> None:
    assert score(lambda **kwargs: (True, np.float32(0.5), 3)).total.tolist() == [1.0, 0.5, 3.0]
    assert score(lambda **kwargs: np.array([1.0, 2.0, 3.0])).total.tolist() == [1.0, 2.0, 3.0]


def test_async_functions_wait_at_the_same_time_and_outside_a_running_loop() -> None:
    async def first(completions, **kwargs):
        ready.set()
        await asyncio.wait_for(answered.wait(), timeout=5)
        return [1.0] * len(completions)

    class Second:
        async def __call__(self, completions, **kwargs):
            await asyncio.wait_for(ready.wait(), timeout=5)
            answered.set()
            return [2.0] * len(completions)

    async def in_a_notebook() -> Scores:
        return score(first, length, Second())

    ready, answered = asyncio.Event(), asyncio.Event()
    scores = asyncio.run(in_a_notebook())
    assert scores.parts == {"first": [1.0] * 3, "length": [1.0, 2.0, 4.0], "Second": [2.0] * 3}


def test_names_are_unique() -> None:
    class Judge:
        def __call__(self, completions, **kwargs):
            return length(completions)

    assert Rewards([length, Judge(), length, partial(length, x=1)]).names == ("length", "Judge", "length_2", "length_3")


def test_log_extra_and_log_metric_reach_the_scores() -> None:
    def talkative(completions, log_extra, log_metric, **kwargs):
        log_extra("first_letter", [text[0] for text in completions])
        log_metric("seen", 1)
        log_metric("seen", 3)
        return length(completions)

    scores = score(talkative)
    assert scores.extras == {"first_letter": ["a", "b", "c"]}
    assert scores.metrics["seen"] == 2.0
    assert scores.metrics["rewards/talkative/mean"] == pytest.approx(7 / 3)


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("note", ["x"], "'note' got 1 values, expected 3"),
        ("prompt", ["x"] * 3, "'prompt' is taken"),
        ("writer", ["x"] * 3, "'writer' is taken"),
    ],
)
def test_an_extra_column_must_fit_the_table(column, values, complaint) -> None:
    def writer(completions, log_extra, **kwargs):
        log_extra(column, values)
        return length(completions)

    with pytest.raises(RewardError, match=complaint):
        score(writer)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5", [1.0], np.array([1.0, 2.0])], ids=repr)
def test_a_value_that_is_no_finite_number_names_function_completion_and_prompt(bad) -> None:
    def judge(**kwargs):
        return [0.0, bad, 0.0]

    with pytest.raises(RewardError, match=r"'judge' answered .* for completion 1 \(prompt 'two'\)") as caught:
        score(judge)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "complaint"), [([1.0], "answered 1 values for 3 completions"), (0.5, "answered float"), (None, "None")]
)
def test_a_wrong_number_of_values_names_the_function(answer, complaint) -> None:
    def judge(**kwargs):
        return answer

    with pytest.raises(RewardError, match=f"'judge'.*{complaint}"):
        score(judge)


def raises(**kwargs):
    raise ValueError("no\nidea")


async def raises_later(**kwargs):
    raise ValueError("no\nidea")


@pytest.mark.parametrize("function", [raises, raises_later])
def test_an_exception_is_chained_and_names_function_and_prompt(function) -> None:
    with pytest.raises(RewardError, match=r"raised ValueError: no idea; .* first prompt 'one'") as caught:
        score(length, function)
    assert function.__name__ in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_long_chat_prompt_is_shortened_in_messages() -> None:
    chat = [{"role": "user", "content": "word " * 100}]
    with pytest.raises(RewardError) as caught:
        Rewards([lambda **kwargs: [math.nan]])([chat], [chat], [[1]], {}, STATE)
    assert "word word" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("weights", [[1.0], [1.0, math.nan]])
def test_weights_must_match_the_functions(weights) -> None:
    with pytest.raises(ConfigError, match="expected 2 finite numbers, one for each of length, only_long"):
        Rewards([length, only_long], weights)


def test_no_function_is_an_error() -> None:
    with pytest.raises(ConfigError, match="got no reward function"):
        Rewards([])


def test_columns_must_fit() -> None:
    with pytest.raises(RewardError, match="'log_extra' has a name"):
        score(length, columns={"log_extra": [1, 2, 3]})
    with pytest.raises(RewardError, match="'answer' has 2 values"):
        score(length, columns={"answer": [1, 2]})
