"""Fresh episodes: prompts, completions, scores, order, and what happens when a reward function fails."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokenq.acting.explore import Boltzmann, Greedy
from tokenq.acting.rewards import Rewards, TrainerState
from tokenq.acting.rollout import PromptOrder, Rollout, RolloutSettings, Writer, kl_to_reference, write_and_score
from tokenq.errors import DataError, RewardError
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import character_tokenizer
from tokenq.nets.reference import Reference
from tokenq.replay.codecs import Joint
from tokenq.types import Episode

LETTERS = "abcdefgh"
END = len(LETTERS)
ROWS = [{"prompt": letter * (1 + i % 3), "level": i} for i, letter in enumerate(LETTERS)]


@pytest.fixture
def writer(tiny: Callable[..., PreTrainedModel]) -> Writer:
    return Writer(LanguageQ(tiny("gpt2", vocabulary=END + 2)), Joint(character_tokenizer(LETTERS), [END]), context=64)


def length(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def rollout(writer: Writer, function: Callable[..., Any] = length, **changes: Any) -> Rollout:
    settings = {"completions": 6, "num_generations": 2, "max_completion_length": 5, "max_steps": 9}
    return Rollout(
        writer,
        PromptOrder(ROWS, seed=0),
        Rewards([function]),
        Boltzmann(),
        Reference(writer.network),
        RolloutSettings(**(settings | {"bootstrap_truncated": False} | changes)),
    )


def test_prompts_are_tokens_without_an_end(writer: Writer) -> None:
    assert writer.prompt({"prompt": "abc"}, 5).tokens == [0, 1, 2]
    assert writer.prompt({"prompt": "ab<end>"}, 5).tokens[:2] == [0, 1]
    with pytest.raises(DataError, match="column 'prompt' has no tokens"):
        writer.prompt({"prompt": ""}, 5)
    with pytest.raises(DataError, match="has 3 tokens; expected at most 2, to leave room for 62 of 64"):
        writer.prompt({"prompt": "abc"}, 62)
    with pytest.raises(DataError, match="chat template"):
        writer.prompt({"prompt": [{"role": "user", "content": "ab"}]}, 5)


def test_messages_go_through_the_template_and_are_answered_as_messages(writer: Writer) -> None:
    writer.codec.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}h"
    seen: list[Any] = []

    def judge(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        seen.extend([prompts, completions])
        return [1.0]

    row = {"prompt": [{"role": "user", "content": "ab"}]}
    prompt = writer.prompt(row, 5)
    assert prompt.tokens == [0, 1, 7] and prompt.text == "abh"
    done = write_and_score(writer, [prompt], Rewards([judge]), Greedy(), 5, TrainerState(0, 1))
    assert seen == [[row["prompt"]], [[{"role": "assistant", "content": done.texts[0]}]]]


def test_episodes_hold_what_was_written_and_scored(writer: Writer) -> None:
    torch.manual_seed(3)
    act = rollout(writer, completions=16)
    episodes = act(4)
    done = act.completions
    assert done is not None and len(episodes) == 16 and act.reward_calls == 16
    assert {True, False} == set(done.ended), "some end by themselves and some are cut"
    for episode, prompt, tokens, text, ended in zip(
        episodes, done.prompts, done.tokens, done.texts, done.ended, strict=True
    ):
        n = len(tokens)
        assert episode.tokens.tolist() == prompt.tokens + tokens and episode.actions.tolist() == tokens
        assert ended == (tokens[-1] == END) and (ended or n == 5) and END not in tokens[:-1]
        assert text == "".join(LETTERS[t] for t in tokens if t < END)
        assert episode.rewards.tolist() == [0.0] * (n - 1) + [len(text)]
        assert episode.terminated and episode.record is not None and len(episode.record.logit) == n
        assert episode.columns == {"prompt": prompt.row["prompt"], "completion": text}
    assert act.metrics["reward"] == pytest.approx(np.mean([len(text) for text in done.texts]))
    assert act.metrics["completions/clipped_ratio"] == pytest.approx(1 - np.mean(done.ended))
    assert act.metrics["completions/mean_length"] == pytest.approx(np.mean([len(t) for t in done.tokens]))
    assert act.metrics["kl"] == 0.0 and act.metrics["reward_calls"] == 16
    assert done.table()["reward"] == done.table()["length"] and len(done.table()["prompt"]) == 16


def test_truncated_episodes_bootstrap_only_if_asked(writer: Writer) -> None:
    torch.manual_seed(3)
    act = rollout(writer, completions=16, bootstrap_truncated=True)
    episodes = act(0)
    assert act.completions is not None
    assert [episode.terminated for episode in episodes] == act.completions.ended


def test_relative_returns_are_compared_within_a_prompt(writer: Writer) -> None:
    """With two completions a prompt, each is compared with the other: what people read stays as it was scored."""
    torch.manual_seed(3)
    act = rollout(writer, relative=True)
    learned = [episode.total_reward for episode in act(0)]
    assert act.completions is not None
    scored = act.completions.scores.total
    assert learned == (scored - scored[[1, 0, 3, 2, 5, 4]]).tolist() and any(learned)
    assert act.metrics["reward"] == pytest.approx(scored.mean())


def test_columns_and_state_reach_the_reward_function(writer: Writer) -> None:
    seen: list[Any] = []

    def judge(level: list[int], trainer_state: TrainerState, completion_ids: Any, **_: Any) -> list[float | None]:
        seen.append((level, trainer_state, completion_ids))
        return [None] * len(level)

    act = rollout(writer, judge)
    episodes = act(7)
    (level, state, ids) = seen[0]
    assert level[0::2] == level[1::2] and len(set(level)) == 3
    assert (state.global_step, state.max_steps) == (7, 9)
    assert act.completions is not None and ids == act.completions.tokens
    assert all(math.isnan(episode.rewards[-1]) for episode in episodes)
    assert math.isnan(act.metrics["reward"]) and math.isnan(act.metrics["reward_std"])


def test_a_failing_reward_leaves_no_trace_so_that_a_resumed_run_asks_again(writer: Writer) -> None:
    fails = [True]

    def moody(completions: list[str], **_: Any) -> list[float]:
        torch.rand(3)
        if fails.pop() if fails else False:
            raise ValueError("no answer")
        return [1.0] * len(completions)

    torch.manual_seed(0)
    act = rollout(writer, moody)
    random = torch.get_rng_state()
    with pytest.raises(RewardError, match="no answer"):
        act(0)
    assert (act.order.cursor, act.reward_calls) == (0, 0) and torch.equal(torch.get_rng_state(), random)
    again = [episode.tokens.tolist() for episode in act(0)]
    torch.manual_seed(0)
    assert again == [episode.tokens.tolist() for episode in rollout(writer)(0)]


def test_prompt_order_is_a_new_permutation_in_every_epoch_and_resumes_anywhere() -> None:
    order = PromptOrder(ROWS, seed=5)
    taken = [row["level"] for _ in range(6) for row in order.take(4, 1)]
    assert order.cursor == 24 and all(sorted(taken[i : i + 8]) == list(range(8)) for i in (0, 8, 16))
    assert len({tuple(taken[i : i + 8]) for i in (0, 8, 16)}) == 3
    resumed = PromptOrder(ROWS, seed=5, cursor=9)
    assert [row["level"] for row in resumed.take(7, 1)] == taken[9:16]
    assert [row["level"] for row in PromptOrder(ROWS, seed=6).take(8, 1)] != taken[:8]


def test_each_prompt_is_repeated_and_a_remainder_is_cut() -> None:
    order = PromptOrder(ROWS, seed=5)
    levels = [row["level"] for row in order.take(5, 2)]
    assert levels[0] == levels[1] != levels[2] == levels[3] and len(levels) == 5 and order.cursor == 3


def test_kl_is_the_sum_of_log_ratios_and_needs_a_record(
    writer: Writer, random_episodes: Callable[..., list[Episode]]
) -> None:
    episodes = random_episodes(3, vocabulary=END)
    recorded = Reference(writer.network).record(episodes)
    assert kl_to_reference(writer.network, recorded) == [0.0] * 3
    with torch.no_grad():
        writer.network.readout.weight.mul_(1.5)
    ratios = kl_to_reference(writer.network, recorded)
    again = Reference(writer.network).record(episodes)
    for ratio, old, new in zip(ratios, recorded, again, strict=True):
        assert old.record is not None and new.record is not None
        now, then = (r.logit - r.logsumexp[:-1] for r in (new.record, old.record))
        assert ratio == pytest.approx(float((now - then).sum()), abs=1e-4) and ratio != 0.0
    with pytest.raises(DataError, match="no reference record"):
        kl_to_reference(writer.network, episodes)
