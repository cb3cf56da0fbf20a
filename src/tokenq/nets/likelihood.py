"""Negative log-likelihoods, what supervised learning makes smaller: of whole texts, of what was cut out, of decisions.

All are means in nats per predicted token, with gradient, and hold no tensor over the vocabulary of a whole batch where
the model allows it. Texts are rows of token ids.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tokenq.errors import ConfigError
from tokenq.nets.encoder import EncoderQ, QNetwork
from tokenq.nets.language import LanguageQ
from tokenq.ops.losses import blurred
from tokenq.types import Batch

IGNORED = -100
"""The label of a position that transformers does not predict."""


def next_token_loss(network: LanguageQ, texts: Sequence[Int[Tensor, "_"]], noise: float = 0.0) -> Float[Tensor, ""]:
    """Of every token but each text's first; the share `noise` of them was drawn blindly (`ops.losses.blurred`)."""
    tokens, attention = _padded(texts, network.device)
    predicts = attention[:, 1:].bool()
    wanted = tokens[:, 1:][predicts]
    if not network.factored:
        logits = network.model(input_ids=tokens, attention_mask=attention).logits[:, :-1][predicts].float()
        missed = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        return -blurred(-missed, noise, logits.shape[-1]).mean()
    nothing = tokens[:, :0]
    hidden = network.hidden(tokens, attention, nothing, nothing)
    return network.readout.cross_entropy(hidden[:, :-1][predicts], wanted, noise)


def masked_loss(
    model: torch.nn.Module, corrupted: Sequence[Int[Tensor, "_"]], labels: Sequence[Int[Tensor, "_"]]
) -> Float[Tensor, ""]:
    """Of the originals that a masked language model must find; `labels` are -100 elsewhere."""
    device = next(model.parameters()).device
    tokens, attention = _padded(corrupted, device)
    wanted = pad_sequence(list(labels), batch_first=True, padding_value=IGNORED).to(device)
    loss: Tensor = model(input_ids=tokens, attention_mask=attention, labels=wanted).loss
    return loss


def decision_loss(network: QNetwork, batch: Batch, noise: float = 0.0) -> Float[Tensor, ""]:
    """Of the decisions of a batch of episodes: what fine-tuning on right answers makes smaller.

    `noise` is the share of decisions that were drawn blindly from all tokens or labels (`ops.losses.blurred`), in
    [0, 1). Raises `ConfigError` for noise over positions, whose number is another for each text.
    """
    if isinstance(network, EncoderQ) or not network.factored:
        if noise > 0 and isinstance(network, EncoderQ) and network.decisions > 1:
            raise ConfigError(f"noise: got {noise} for a reader of spans, expected 0")
        answers: Any = network(batch)  # dense, for there are no heads
        log = answers.log_probability(batch.actions, samples=0)[batch.decided]
        return -blurred(log, noise, answers.choices).mean()
    states = network.hidden_states(batch.texts)[:, :-1][batch.decided]
    return network.readout.cross_entropy(states, batch.actions[batch.decided], noise)


def _padded(texts: Sequence[Int[Tensor, "_"]], device: torch.device) -> tuple[Tensor, Tensor]:
    ones = [torch.ones_like(text) for text in texts]
    return pad_sequence(list(texts), batch_first=True).to(device), pad_sequence(ones, batch_first=True).to(device)
