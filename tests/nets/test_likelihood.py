"""Negative log-likelihoods of decisions, of which some may have been drawn blindly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.nets.encoder import EncoderQ
from tokenq.nets.language import LanguageQ
from tokenq.nets.likelihood import decision_loss, next_token_loss
from tokenq.types import Batch, Episode

SIZES: dict[str, Any] = {
    "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32
}  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_noise_is_mixed_into_what_the_model_says(
    family: str,
    tiny: Callable[..., PreTrainedModel],
    random_episodes: Callable[..., Any],
    recorded: Callable[..., Batch],
) -> None:
    """Gemma 2 caps its logits, so that its answers are dense."""
    network = LanguageQ(tiny(family))
    batch = recorded(network, random_episodes(3))
    p = network(batch).log_probability(batch.actions, 0)[batch.decided].exp()
    for noise in (0.0, 0.5):
        expected = -((1 - noise) * p + noise / 31).log().mean()
        assert torch.allclose(decision_loss(network, batch, noise), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_of_whole_texts_every_token_but_the_first_is_predicted(
    family: str, tiny: Callable[..., PreTrainedModel]
) -> None:
    network, texts = LanguageQ(tiny(family)), [torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6])]
    p = []
    for text in texts:
        logits = network.model(text[None]).logits[0, :-1]
        p += logits.softmax(-1).gather(-1, text[1:, None])[:, 0].unbind()
    for noise in (0.0, 0.5):
        expected = -((1 - noise) * torch.stack(p) + noise / 31).log().mean()
        assert torch.allclose(next_token_loss(network, texts, noise), expected, atol=1e-5)


def test_labels_may_be_noisy_and_positions_not(recorded: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    source = torch.tensor([3, 4, 5]).numpy()
    classifier = EncoderQ(BertForSequenceClassification(BertConfig(**SIZES, num_labels=4)))
    label = Episode(
        tokens=torch.tensor([0, 2]).numpy(),
        decisions=torch.tensor([1]).numpy(),
        rewards=torch.zeros(1).double().numpy(),
        terminated=True,
        source=source,
    )
    batch = recorded(classifier, [label])
    p = classifier(batch).log_probability(batch.actions, 0)[batch.decided].exp()
    assert torch.allclose(decision_loss(classifier, batch, 0.2), -(0.8 * p + 0.2 / 4).log().mean(), atol=1e-6)
    reader = EncoderQ(BertForQuestionAnswering(BertConfig(**SIZES)))
    with pytest.raises(ConfigError, match="reader of spans"):
        decision_loss(reader, batch, 0.2)
