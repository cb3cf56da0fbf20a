"""Numbers to trust a run by."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tokenq.learning.diagnostics import calibration, diagnose, is_calibrated, signs_of_divergence
from tokenq.learning.learner import Learner
from tokenq.learning.objectives import DQN, DoubleDQN, Plausible, Soft, Vocabulary
from tokenq.learning.scaling import Standardise
from tokenq.learning.values import Head, Logits, Raw
from tokenq.types import Batch, Episode

LearnerFor = Callable[..., Learner]
Recorded = Callable[..., Batch]
Episodes = Callable[..., list[Episode]]


def test_metrics_of_an_untrained_calibrated_policy(
    learner_for: LearnerFor, random_episodes: Episodes, recorded: Recorded
) -> None:
    learner = learner_for(Soft(), scale=Standardise())
    episodes = random_episodes(6)
    learner.observe(episodes)
    batch = recorded(learner.network, episodes)
    random = torch.get_rng_state()
    metrics, greedy = diagnose(learner, batch)
    returns = np.array([episode.total_reward for episode in episodes])
    assert (metrics["q_max"], metrics["value_mean"], metrics["target_gap"]) == (0.0, 0.0, 0.0)
    assert metrics["return_max"] == pytest.approx((returns.max() - returns.mean()) / returns.std())
    logits = learner.network.model(input_ids=batch.texts.tokens, attention_mask=batch.texts.attention).logits.detach()
    logits = logits[torch.arange(6).unsqueeze(1), batch.texts.states[:, :-1]][batch.decided]
    assert np.array_equal(greedy[batch.decided], logits.argmax(-1))
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert metrics["entropy"] == pytest.approx(float(entropy), abs=1e-5)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("objective", "pays"),
    [
        (Soft(Logits(0.3), 0.9), True),
        (Soft(Head(0.3), 0.9), True),
        (DQN(Logits(0.3), Plausible(2), 0.9), False),
        (DoubleDQN(Raw(), Vocabulary(), 0.9), False),
    ],
)
def test_realised_return_pays_for_the_distance_only_if_the_objective_does(
    objective: Soft | DQN | DoubleDQN, pays: bool, learner_for: LearnerFor, recorded: Recorded
) -> None:
    """One terminated episode, r = 1, 2, 4: G_2 = 4, G_1 = 2 + 0.9·(4 − e_2), G_0 = 1 + 0.9·(G_1 − e_1)."""
    learner = learner_for(objective)
    made = [Episode(np.array([3, 5, 7, 9]), np.array([1, 2, 3]), np.array([1.0, 2.0, 4.0]), terminated=True)]
    batch = recorded(learner.network, made, objective.plausible)
    with torch.no_grad():
        for parameter in learner.network.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    predicted, realised = calibration(learner, batch)
    values = learner.network(batch)
    ours = values.at(batch.actions) - values.logsumexp[:, :-1]
    distance = 0.3 * (ours - batch.reference.logit + batch.reference.logsumexp[:, :-1])[0].detach()
    assert distance.abs().min() > 1e-3
    e = distance.tolist() if pays else [0.0] * 3
    g1 = 2 + 0.9 * (4 - e[2])
    assert realised.tolist() == pytest.approx([1 + 0.9 * (g1 - e[1]), g1, 4.0], abs=1e-5)
    assert predicted.tolist() == pytest.approx(objective.values.q(values, batch)[0].tolist(), abs=1e-6)


def test_signs_of_divergence_name_a_cause() -> None:
    calm = {"q_max": 1.2, "return_max": 1.0, "kl": 3.0}
    assert signs_of_divergence(calm, calibrated=True) == []
    (sign,) = signs_of_divergence(calm | {"q_max": 9.0}, calibrated=False)
    assert "q_max 9 exceeds" in sign and "use calibrated values" in sign
    (sign,) = signs_of_divergence(calm | {"kl": 250.0}, calibrated=True)
    assert "raise beta" in sign


def test_only_raw_values_are_uncalibrated(learner_for: LearnerFor) -> None:
    assert is_calibrated(learner_for(Soft())) and is_calibrated(learner_for(Soft(Head())))
    assert not is_calibrated(learner_for(DQN(Raw(), Vocabulary())))
