"""The frozen reference model's record along an episode, taken once, when the episode enters the replay."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from tokenq.nets.action_values import Dense, Factored
from tokenq.nets.language import LanguageQ
from tokenq.types import Episode, ReferenceRecord


class Reference:
    """Writes the reference's logits into episodes.

    `network` is a frozen copy of the starting model, or a PEFT model whose adapters are switched off while it speaks.
    `plausible` is k, the number of most probable tokens kept per state (0 if no objective asks for them).
    """

    def __init__(self, network: LanguageQ, plausible: int = 0, batch_size: int = 64) -> None:
        self.network = network
        self.plausible = plausible
        self.batch_size = batch_size

    @torch.no_grad()
    def record(self, episodes: Sequence[Episode]) -> list[Episode]:
        """The episodes with the reference's record attached, in the same order."""
        model = self.network.model
        with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
            return [
                episode.with_record(_record(values, row, len(episode.decisions), actions, self.plausible))
                for part, values, actions in evaluate(self.network, episodes, self.batch_size)
                for row, episode in enumerate(part)
            ]


def _record(values: Dense | Factored, row: int, n: int, actions: Tensor, k: int) -> ReferenceRecord:
    top, tokens = values.top(k) if k else (None, None)
    return ReferenceRecord(
        logit=_numpy(values.at(actions)[row, :n]),
        logsumexp=_numpy(values.logsumexp[row, : n + 1]),
        plausible=np.zeros((n + 1, 0), np.int64) if tokens is None else _numpy(tokens[row, : n + 1]),
        plausible_logit=np.zeros((n + 1, 0), np.float32) if top is None else _numpy(top[row, : n + 1]),
    )


@torch.no_grad()
def log_probabilities(network: LanguageQ, episodes: Sequence[Episode], batch_size: int = 64) -> list[np.ndarray]:
    """Log-probability of every action of every episode under `network`, [N] each, in nats."""
    return [
        _numpy((values.at(actions) - values.logsumexp[:, :-1])[row, : len(episode.decisions)])
        for part, values, actions in evaluate(network, episodes, batch_size)
        for row, episode in enumerate(part)
    ]


@torch.no_grad()
def evaluate(
    network: LanguageQ, episodes: Sequence[Episode], batch_size: int
) -> Iterator[tuple[Sequence[Episode], Dense | Factored, Tensor]]:
    """Batches of episodes, the network's answers at their decision states, and their actions [B, N]."""
    for start in range(0, len(episodes), batch_size):
        part = episodes[start : start + batch_size]
        tokens = _pad([e.tokens for e in part])
        attention = _pad([np.ones_like(e.tokens) for e in part])
        states = _pad([e.states for e in part])
        valid = _pad([np.ones_like(e.states) for e in part]).bool()
        actions = _pad([e.actions for e in part]).to(network.device)
        moved = (x.to(network.device) for x in (tokens, attention, states, valid))
        yield part, network.at_states(*moved), actions


def _pad(rows: Sequence[np.ndarray]) -> Tensor:
    tensors = [torch.from_numpy(np.asarray(row, np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
