"""Calibrated values start at exactly zero."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.learning.objectives import DQN, DoubleDQN, Plausible, Soft
from tokenq.learning.values import Afterstates, Guidance, Head, Heads, Logits, Raw, log_ratio
from tokenq.nets.action_values import Dense
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.types import Batch, Episode

Tiny = Callable[..., PreTrainedModel]
CALIBRATED = [
    Soft(Logits(0.3), lam=0.0),
    Soft(Logits(0.3), lam=0.95),
    Soft(Head(0.3), lam=0.95),
    Soft(Head(0.3, samples=0), lam=0.5),
    DQN(Logits(0.3), over=Plausible(4)),
    DoubleDQN(Logits(0.3), over=Plausible(4)),
]


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "cohere"])
@pytest.mark.parametrize("objective", CALIBRATED)
def test_q_and_residual_are_exactly_zero_at_the_start_without_rewards(
    objective: Soft | DQN | DoubleDQN,
    family: str,
    tiny: Tiny,
    random_episodes: Callable[..., list[Episode]],
    recorded: Callable[..., Batch],
) -> None:
    network = LanguageQ(tiny(family), ValueHead(16) if isinstance(objective.values, Head) else None)
    episodes = random_episodes(5)
    for episode in episodes:
        episode.rewards[:] = 0.0
    batch = recorded(network, episodes, objective.plausible)
    online = network(batch)
    loss = objective.loss(online, lambda: network(batch), batch)
    if isinstance(objective.values, Head) and objective.values.samples == 0:
        # The one answer that is not computed by the code that wrote the record.
        assert loss.q[batch.decided].abs().max() < 1e-6 and loss.per_decision[batch.decided].max() < 1e-12
        return
    assert (loss.q[batch.decided] == 0).all() and (loss.per_decision[batch.decided] == 0).all()
    assert (log_ratio(online, batch)[batch.decided] == 0).all()
    assert (objective.bootstrap(online, batch)[:, :-1][batch.decided] == 0).all()


def test_raw_values_are_the_logits_and_not_zero(
    tiny: Tiny, random_episodes: Callable[..., list[Episode]], recorded: Callable[..., Batch]
) -> None:
    network = LanguageQ(tiny())
    batch = recorded(network, random_episodes(3), 2)
    values = network(batch)
    assert torch.equal(Raw().q(values, batch), values.at(batch.actions))
    assert Raw().q(values, batch)[batch.decided].abs().max() > 0.1


@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_value_of_calibrated_logits_is_the_soft_maximum_of_their_q(beta: float, batch_of: Callable[..., Batch]) -> None:
    """V = β·log Σ π_ref·exp(Q/β), the identity that makes softmax(logits) the policy of Q."""
    generator = torch.Generator().manual_seed(0)
    ours, reference = torch.randn(2, 1, 3, 6, generator=generator)
    batch = batch_of(
        [[0, 4]],
        logit=reference[:, [0, 1], [0, 4]],
        logsumexp=reference.logsumexp(-1),
    )
    values = Dense(ours)
    q = beta * (ours - reference)
    expected = beta * (reference.log_softmax(-1) + q / beta).logsumexp(-1)
    assert torch.allclose(Logits(beta).state_value(values, batch), expected, atol=1e-6)
    assert torch.allclose(Logits(beta).q(values, batch), q[:, [0, 1], [0, 4]], atol=1e-6)
    ratio = log_ratio(values, batch)
    assert torch.allclose(beta * ratio, (q - expected.unsqueeze(-1))[:, [0, 1], [0, 4]], atol=1e-6)
    assert not np.allclose(ratio, 0.0)


def test_head_without_a_head_says_so(batch_of: Callable[..., Batch]) -> None:
    with pytest.raises(ConfigError, match="network without a value head"):
        Head().q(Dense(torch.zeros(1, 2, 3)), batch_of([[1]]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Head(samples=-1),
        lambda: Afterstates(ahead=-1),
        lambda: Afterstates(samples=-1),
        lambda: Afterstates(foresight=-0.1),
        lambda: Afterstates(max_grad_norm=0.0),
        lambda: Heads(count=3),
        lambda: Heads(samples=-1),
        lambda: Heads(learning_rate=0.0),
        lambda: Guidance(beta=-1.0),
        lambda: Guidance(top_k=-1),
        lambda: Guidance(min_p=1.1),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()
