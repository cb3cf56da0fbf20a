"""Evaluation of a policy: what is counted, and that training does not notice."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokenq.acting.explore import Boltzmann
from tokenq.acting.rewards import Rewards
from tokenq.acting.rollout import Writer
from tokenq.evaluation.policy import Evaluator
from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import character_tokenizer
from tokenq.nets.reference import Reference
from tokenq.replay.codecs import Joint

LETTERS = "abcdefgh"


@pytest.fixture
def evaluator(tiny: Callable[..., PreTrainedModel]) -> Evaluator:
    network = LanguageQ(tiny("gpt2", vocabulary=10))
    calls: list[int] = []

    def count_a(completions: list[str], **_: Any) -> list[float]:
        calls.append(len(completions))
        return [float(text.count("a")) for text in completions]

    made = Evaluator(
        writer=Writer(network, Joint(character_tokenizer(LETTERS), [8]), context=64),
        rewards=Rewards([count_a]),
        reference=Reference(network),
        prompts=[{"prompt": letter} for letter in LETTERS[:3]],
        exploration=Boltzmann(),
        samples=200,
        max_completion_length=6,
        seed=11,
    )
    vars(made)["calls"] = calls
    return made


def test_sampled_and_greedy_completions_are_scored_apart(evaluator: Evaluator) -> None:
    result = evaluator.evaluate()
    assert vars(evaluator)["calls"] == [128, 72, 3]
    assert [p.row["prompt"] for p in result.completions.prompts[:4]] == ["a", "b", "c", "a"]
    assert len(result.episodes) == 200
    rewards = [episode.rewards[-1] for episode in result.episodes]
    metrics = result.metrics
    assert metrics["reward"] == pytest.approx(np.mean(rewards))
    assert metrics["reward_low"] < metrics["reward"] < metrics["reward_high"]
    assert metrics["greedy_reward"] != metrics["reward"] and metrics["kl"] == 0.0
    assert metrics["mean_length"] == pytest.approx(np.mean([len(e.decisions) for e in result.episodes]))


def test_training_does_not_notice_and_the_same_policy_scores_the_same(evaluator: Evaluator) -> None:
    torch.manual_seed(0)
    random = torch.get_rng_state()
    first = evaluator.evaluate().metrics
    assert torch.equal(torch.get_rng_state(), random)
    torch.manual_seed(99)
    assert evaluator.evaluate().metrics == first
    assert dataclasses.replace(evaluator, seed=12).evaluate().metrics["reward"] != first["reward"]


def test_few_samples_mean_few_greedy_completions(evaluator: Evaluator) -> None:
    dataclasses.replace(evaluator, samples=2).evaluate()
    assert vars(evaluator)["calls"] == [2, 2]


def test_unrated_completions_are_left_out(evaluator: Evaluator) -> None:
    def only_b(prompts: list[str], **_: Any) -> list[float | None]:
        return [2.0 if prompt == "b" else None for prompt in prompts]

    metrics = dataclasses.replace(evaluator, rewards=Rewards([only_b])).evaluate().metrics
    assert (metrics["reward"], metrics["reward_low"], metrics["greedy_reward"]) == (2.0, 2.0, 2.0)
    nobody = Rewards([lambda prompts, **_: [None] * len(prompts)])
    metrics = dataclasses.replace(evaluator, rewards=nobody).evaluate().metrics
    assert math.isnan(metrics["reward"]) and math.isnan(metrics["greedy_reward_low"]) and metrics["kl"] == 0.0
