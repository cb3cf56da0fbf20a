"""Next-token pretraining against the loss of transformers, and as learning."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.nets.language import LanguageQ
from tokenq.pretraining import next_token_loss, pretrain

Tiny = Callable[..., PreTrainedModel]
TEXTS = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 1, 2, 3]]


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "cohere"])
def test_loss_is_that_of_transformers_with_padding_ignored(family: str, tiny: Tiny) -> None:
    network = LanguageQ(tiny(family))
    loss = next_token_loss(network, [torch.tensor(text) for text in TEXTS])
    total, count = 0.0, 0
    for text in TEXTS:
        tokens = torch.tensor([text])
        alone = network.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        total, count = total + float(alone.detach()) * (len(text) - 1), count + len(text) - 1
    assert float(loss.detach()) == pytest.approx(total / count, abs=1e-5)


def test_repeated_texts_are_learned_by_heart_and_the_seed_decides(tiny: Tiny) -> None:
    runs = []
    for seed in (0, 0, 1):
        network = LanguageQ(tiny())
        losses = pretrain(network, [[1, 2, 3, 4], [5, 6, 7]], updates=60, batch_size=4, learning_rate=0.02, seed=seed)
        runs.append(list(losses))
    assert runs[0] == runs[1] != runs[2] and len(runs[0]) == 60
    assert runs[0][0] > 2.0 and runs[0][-1] < 0.1
