"""Off-policy evaluation of a language model: what is read from the models, and what is made of it."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.evaluation.intervals import resample_counts
from tokenq.evaluation.off_policy import (
    deciles,
    estimate,
    fitted_score,
    logged_episodes,
    logged_score,
    predictions,
    turn_starts,
)
from tokenq.learning.fitted_q import FittedQ
from tokenq.nets.language import LanguageQ
from tokenq.nets.q_heads import QHeads
from tokenq.nets.reference import log_probabilities
from tokenq.types import Episode

SETTINGS = FittedQ(updates=40, fits=2, batch_size=16)
APART = resample_counts(np.arange(40))


def episode(rng: np.random.Generator) -> Episode:
    """Two turns of two tokens; the reward is whether the first one is token 3."""
    tokens = rng.integers(10, size=7)
    rewards = np.array([0.0, float(tokens[1] == 3), 0.0, np.nan])
    return Episode(tokens, np.array([1, 2, 5, 6]), rewards, terminated=True)


@pytest.fixture
def episodes() -> list[Episode]:
    rng = np.random.default_rng(0)
    return [episode(rng) for _ in range(40)]


@pytest.fixture
def networks(tiny: Callable[..., PreTrainedModel]) -> tuple[LanguageQ, LanguageQ]:
    """A reference, and a policy that is surer of itself."""
    model = tiny("gpt2", vocabulary=10)
    policy = copy.deepcopy(model)
    with torch.no_grad():
        policy.transformer.ln_f.weight *= 4
    return LanguageQ(model), LanguageQ(policy)


def test_what_is_read_is_what_the_models_say(networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]) -> None:
    reference, policy = networks
    logged = logged_episodes(reference, policy, episodes)
    theirs = [log_probabilities(network, episodes) for network in (policy, reference)]
    weight = reference.readout.weight.detach()
    vectors = (weight - weight.mean(0)) / weight.std(0)
    for number, (found, given) in enumerate(zip(logged, episodes, strict=True)):
        np.testing.assert_allclose(found.log_ratio, theirs[0][number] - theirs[1][number], atol=1e-5)
        tokens = torch.from_numpy(given.tokens)[None]
        p, q = (net.causal(tokens).logits[0, given.states].softmax(-1).detach() for net in (policy, reference))
        torch.testing.assert_close(found.expected, p @ vectors, atol=1e-4, rtol=1e-4)
        beyond = vectors - found.expected[:, None]
        least = torch.minimum(p, q)[..., None]
        torch.testing.assert_close(found.shared, (least * beyond).sum(1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.actions, vectors[given.actions])
        assert found.rewards.tolist() == np.nan_to_num(given.rewards).tolist()
        assert list(found.turns) == [0, 2]
    assert any(abs(float(found.log_ratio.sum())) > 0.01 for found in logged)


@pytest.mark.parametrize("top_k", [0, 4])
def test_a_policy_with_q_heads_is_the_one_that_writes(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode], top_k: int
) -> None:
    """π ∝ π_β·exp(β·Q) over the model's own k best; a logged token beyond them has no probability at all."""
    reference, policy = networks
    heads = QHeads(policy.causal.config.hidden_size, 10, count=1, value=False, beta=2.0, top_k=top_k)
    torch.manual_seed(0)
    torch.nn.init.normal_(heads.q["first"].outer.weight)
    guided = LanguageQ(policy.model, q_heads=heads)
    logged = logged_episodes(reference, guided, episodes)
    weight = reference.readout.weight.detach()
    vectors = (weight - weight.mean(0)) / weight.std(0)
    theirs = log_probabilities(reference, episodes)
    for number, (found, given) in enumerate(zip(logged, episodes, strict=True)):
        answer = policy.causal(torch.from_numpy(given.tokens)[None], output_hidden_states=True)
        with torch.no_grad():
            log = heads.guided(answer.logits[0, given.states], answer.hidden_states[-1][0, given.states])
        torch.testing.assert_close(found.expected, log.exp() @ vectors, atol=1e-4, rtol=1e-4)
        taken = log[range(4), given.actions].numpy()
        np.testing.assert_allclose(found.log_ratio, taken - theirs[number], atol=1e-4)
    assert any(torch.isinf(found.log_ratio).any() for found in logged) == (top_k > 0)
    estimates = estimate(SETTINGS.fit(logged, 1.0, seed=0), logged, SETTINGS, 1.0, APART, seed=0)
    assert all(np.isfinite(score.value) for score in estimates.scores.values())


def test_the_behaviour_is_estimated_at_what_it_earned(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]
) -> None:
    reference, _ = networks
    logged = logged_episodes(reference, reference, episodes)
    heads = SETTINGS.fit(logged, 1.0, seed=0)
    found = estimate(heads, logged, SETTINGS, 1.0, APART, seed=0)
    earned = logged_score(logged, 1.0, APART)
    assert earned.value == np.mean([e.rewards[1] for e in episodes])
    assert found.effective_sample_size == pytest.approx(40)
    for name in ("wis", "pdis"):
        assert found.scores[name].value == pytest.approx(earned.value)
        assert (found.scores[name].low, found.scores[name].high) == pytest.approx((earned.low, earned.high))
    assert found.scores["fqe"].value == pytest.approx(earned.value, abs=0.1)
    assert found.scores["wdr"].low < earned.value < found.scores["wdr"].high
    assert found.values.shape == (2, 40)


def test_a_policy_that_leaves_the_logs_has_a_small_sample(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]
) -> None:
    reference, policy = networks
    logged = logged_episodes(reference, policy, episodes)
    far = estimate(SETTINGS.fit(logged, 1.0, seed=0), logged, SETTINGS, 1.0, APART, seed=0)
    assert 1 <= far.effective_sample_size < 40
    assert all(score.low <= score.value <= score.high for score in far.scores.values())


def test_the_effective_sample_size_is_that_of_uncut_weights(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]
) -> None:
    """Cut at e, many of these weights would look alike: a sample of a handful would pass for one of dozens."""
    logged = [
        replace(e, log_ratio=torch.tensor([float(i), 0, 0, 0]))
        for i, e in enumerate(logged_episodes(networks[0], networks[0], episodes))
    ]
    settings = replace(SETTINGS, largest_weight=math.e)
    found = estimate(settings.fit(logged, 1.0, seed=0), logged, settings, 1.0, APART, seed=0)
    weights = np.exp(np.arange(40.0))
    assert found.effective_sample_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert found.cut_share == 38 / 40
    assert found.scores["wis"].value == pytest.approx(
        sum(w * e.rewards[1] for w, e in zip(weights, episodes, strict=True)) / weights.sum()
    )


def test_a_policy_that_would_have_written_nothing_has_no_weighted_estimates(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]
) -> None:
    logged = [
        replace(e, log_ratio=torch.tensor([0, -math.inf, 0, 0]))
        for e in logged_episodes(networks[0], networks[0], episodes)
    ]
    found = estimate(SETTINGS.fit(logged, 1.0, seed=0), logged, SETTINGS, 1.0, APART, seed=0)
    assert found.effective_sample_size == 0
    assert all(np.isnan([found.scores[name].value, found.scores[name].low]).all() for name in ("wis", "wdr"))
    assert np.isfinite(found.scores["fqe"].value) and np.isfinite(found.scores["dr"].value)


def test_a_model_that_caps_its_logits_is_refused(
    networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]
) -> None:
    reference, policy = networks
    policy.factored = False
    with pytest.raises(ConfigError, match="off_policy"):
        logged_episodes(reference, policy, episodes)


def test_the_spread_of_the_fits_is_part_of_the_interval() -> None:
    score = fitted_score(np.array([[1.0] * 5, [3.0] * 5]), resample_counts(np.arange(5)), seed=0)
    assert (score.value, score.low, score.high) == (2.0, 1.0, 3.0)


def test_deciles_resample_whole_episodes() -> None:
    """Twenty predictions in ten groups; the two of each group belong to one episode, so nothing is left to resample."""
    predicted, realised = np.arange(20.0), np.arange(20.0)[::-1]
    found = deciles(predicted, realised, np.arange(20) // 2, seed=0)
    assert [(d.predicted, d.realised.value) for d in found] == [(2 * i + 0.5, 18.5 - 2 * i) for i in range(10)]
    assert all(d.realised.low == d.realised.value == d.realised.high for d in found)
    apart = deciles(predicted, realised, np.arange(20), seed=0)
    assert all(d.realised.low == d.realised.value - 0.5 for d in apart)


def test_predictions_stand_beside_what_followed(networks: tuple[LanguageQ, LanguageQ], episodes: list[Episode]) -> None:
    logged = logged_episodes(networks[0], networks[0], episodes)
    predicted, realised, whose = predictions(SETTINGS.fit(logged, 0.5, seed=0), logged, 0.5)
    assert len(predicted) == 80 and whose.tolist() == [number for number in range(40) for _ in range(2)]
    cut_off = [replace(e, terminated=False) for e in logged]
    assert all(len(column) == 0 for column in predictions(SETTINGS.fit(logged, 0.5, seed=0), cut_off, 0.5))
    assert realised[::2].tolist() == [0.5 * e.rewards[1] for e in episodes] and not realised[1::2].any()


def test_turns_open_where_somebody_else_spoke() -> None:
    tokens = np.zeros(9, np.int64)
    assert turn_starts(Episode(tokens, np.array([1, 2, 3, 6, 7]), np.zeros(5), True)) == [0, 3]
    assert turn_starts(Episode(tokens, np.array([4]), np.zeros(1), True)) == [0]
