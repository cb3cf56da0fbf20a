"""Next-token pretraining: one generator that yields the loss of every update."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from tokenq.nets.language import LanguageQ
from tokenq.ops import schedules


def pretrain(
    network: LanguageQ,
    texts: Sequence[Sequence[int]],
    *,
    updates: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Iterator[float]:
    """Cross-entropy of whole texts under AdamW, warmed up over a tenth of the updates and decayed along a cosine.

    Batches are drawn with replacement by a generator of their own; the logits of a batch never exist at once.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    for update in range(updates):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * schedules.cosine(updates, update) * schedules.warmup(updates // 10, update)
        chosen = torch.randint(len(texts), (batch_size,), generator=generator).tolist()
        loss = next_token_loss(network, [torch.tensor(texts[i]) for i in chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        yield float(loss.detach())


def next_token_loss(network: LanguageQ, texts: Sequence[Int[Tensor, "_"]]) -> Tensor:
    """Mean cross-entropy in nats of every token but each text's first."""
    tokens = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True).to(network.device)
    lengths = torch.tensor([len(text) for text in texts], device=network.device)
    attention = (torch.arange(tokens.shape[1], device=network.device) < lengths.unsqueeze(1)).long()
    if not network.factored:
        labels = tokens.masked_fill(attention == 0, -100)
        loss: Tensor = network.model(input_ids=tokens, attention_mask=attention, labels=labels).loss
        return loss
    hidden = network.causal.base_model(input_ids=tokens, attention_mask=attention, use_cache=False).last_hidden_state
    predicts = attention[:, 1:].bool()
    return network.readout.cross_entropy(hidden[:, :-1][predicts], tokens[:, 1:][predicts])
