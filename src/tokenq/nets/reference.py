"""The frozen reference model's record along an episode, taken once, when the episode enters the replay."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenq.nets.encoder import QNetwork
from tokenq.nets.language import Answers
from tokenq.types import Episode, ReferenceRecord, Texts, padded


class Reference:
    """Writes the reference's logits into episodes.

    `network` is a frozen copy of the starting model, or a PEFT model whose adapters are switched off while it speaks.
    `plausible` is k, the number of most probable tokens kept per state (0 if no objective asks for them).
    """

    def __init__(self, network: QNetwork, plausible: int = 0, batch_size: int = 64) -> None:
        self.network = network
        self.plausible = plausible
        self.batch_size = batch_size

    @torch.no_grad()
    def record(self, episodes: Sequence[Episode]) -> list[Episode]:
        """The episodes with the reference's record attached, in the same order."""
        model: Any = self.network.model
        with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
            return [
                episode.with_record(record)
                for part, values, actions in evaluate(self.network, episodes, self.batch_size)
                for episode, record in zip(part, _records(part, values, actions, self.plausible), strict=True)
            ]


def _records(episodes: Sequence[Episode], values: Answers, actions: Tensor, k: int) -> Iterator[ReferenceRecord]:
    logit, logsumexp = _numpy(values.at(actions)), _numpy(values.logsumexp)
    plausible = values.top(k)[1] if k else actions.new_zeros((*logsumexp.shape, 0))
    # Asked again as an objective will ask: only then is the difference of equal networks exactly zero.
    top, tokens = _numpy(values.among(plausible)), _numpy(plausible)
    for row, episode in enumerate(episodes):
        n = len(episode.decisions)
        yield ReferenceRecord(logit[row, :n], logsumexp[row, : n + 1], tokens[row, : n + 1], top[row, : n + 1])


@torch.no_grad()
def log_probabilities(network: QNetwork, episodes: Sequence[Episode], batch_size: int = 64) -> list[np.ndarray]:
    """Log-probability of every action of every episode under `network`, [N] each, in nats."""
    return [
        row[: len(episode.decisions)]
        for part, values, actions in evaluate(network, episodes, batch_size)
        for episode, row in zip(part, _numpy(values.at(actions) - values.logsumexp[:, :-1]), strict=True)
    ]


def evaluate(
    network: QNetwork, episodes: Sequence[Episode], batch_size: int
) -> Iterator[tuple[Sequence[Episode], Answers, Tensor]]:
    """Batches of episodes, the network's answers at their decision states, and their actions [B, N]."""
    for start in range(0, len(episodes), batch_size):
        part = episodes[start : start + batch_size]
        texts, valid = Texts.of(part, 0), padded([np.ones_like(e.states) for e in part], torch.bool)
        actions = padded([e.actions for e in part], torch.int64).to(network.device)
        moved = Texts(*(tensor.to(network.device) for tensor in vars(texts).values()))
        with torch.no_grad():
            values = network.at_states(moved, valid.to(network.device))
        yield part, values, actions


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
