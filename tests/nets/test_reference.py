"""The reference's record against log-softmax of the whole logits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tokenq.nets.language import LanguageQ
from tokenq.nets.loading import Lora, with_adapter
from tokenq.nets.reference import Reference, log_probabilities
from tokenq.types import Episode

Tiny = Callable[..., PreTrainedModel]
Episodes = Callable[..., list[Episode]]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("k", [0, 5])
def test_record_of_every_episode(k: int, batch_size: int, tiny: Tiny, random_episodes: Episodes) -> None:
    network = LanguageQ(tiny())
    episodes = Reference(network, k, batch_size).record(random_episodes(7))
    for episode, log in zip(episodes, log_probabilities(network, episodes, batch_size), strict=True):
        record = episode.record
        assert record is not None
        logits = network.model(torch.from_numpy(episode.tokens)[None]).logits[0, episode.states].detach()
        taken = logits[:-1].gather(-1, torch.from_numpy(episode.actions)[:, None])[:, 0]
        best = logits.topk(k)
        assert np.allclose(record.logit, taken, atol=1e-5)
        assert np.allclose(record.logsumexp, logits.logsumexp(-1), atol=1e-5)
        assert np.array_equal(record.plausible, best.indices) and record.plausible.dtype == np.int64
        assert np.allclose(record.plausible_logit, best.values, atol=1e-5)
        assert np.allclose(log, taken - logits[:-1].logsumexp(-1), atol=1e-5)


def test_adapters_are_silent_in_the_reference_and_speak_again_afterwards(tiny: Tiny, random_episodes: Episodes) -> None:
    network = LanguageQ(with_adapter(tiny("llama"), Lora(r=4, alpha=64, target_modules=["q_proj"])))
    before = log_probabilities(network, random_episodes(3))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    changed = log_probabilities(network, random_episodes(3))
    recorded = Reference(network).record(random_episodes(3))
    assert not np.allclose(changed[0], before[0], atol=1e-3)
    for episode, log in zip(recorded, before, strict=True):
        assert episode.record is not None
        assert np.allclose(episode.record.logit - episode.record.logsumexp[:-1], log, atol=1e-5)
    assert np.array_equal(log_probabilities(network, random_episodes(3))[0], changed[0])
