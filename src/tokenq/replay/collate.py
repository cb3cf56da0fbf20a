"""From drawn episodes (token time) to one padded batch (decision time)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tokenq.errors import DataError
from tokenq.replay.buffer import Sample
from tokenq.types import Batch, Episode, ReferenceRecord, References, Texts, padded


def collate(sample: Sample, pad_token: int) -> Batch:
    """Pads the episodes on the right into tensors on the CPU (int64, float32, bool).

    Padded entries are 0 (False), except tokens, which are `pad_token`. A NaN reward becomes `rated` False and 0.
    Raises DataError if an episode has no reference record, or if records differ in their number of plausible tokens.
    """
    episodes = sample.episodes
    records = _records(episodes)
    rewards = padded([episode.rewards for episode in episodes], torch.float32)
    decided = padded([np.ones(len(episode.rewards)) for episode in episodes], torch.bool)
    references = References(
        logit=padded([record.logit for record in records], torch.float32),
        logsumexp=padded([record.logsumexp for record in records], torch.float32),
        plausible=padded([record.plausible for record in records], torch.int64),
        plausible_logit=padded([record.plausible_logit for record in records], torch.float32),
    )
    return Batch(
        inputs=Texts.of(episodes, pad_token),
        actions=padded([episode.actions for episode in episodes], torch.int64),
        rewards=rewards.nan_to_num(),
        continues=padded([_continues(episode) for episode in episodes], torch.float32),
        decided=decided,
        rated=decided & ~rewards.isnan(),
        weight=torch.from_numpy(sample.weight),
        index=torch.from_numpy(sample.index),
        record=references,
        time=padded([episode.closes for episode in episodes], torch.float32),
    )


def collate_all(episodes: Sequence[Episode]) -> Batch:
    """The episodes as one batch, in order, each with weight 1; padded with token 0."""
    n = len(episodes)
    return collate(Sample(list(episodes), np.arange(n), np.ones(n, np.float32)), pad_token=0)


def _records(episodes: Sequence[Episode]) -> list[ReferenceRecord]:
    records = [episode.record for episode in episodes if episode.record is not None]
    if len(records) < len(episodes):
        missing = len(episodes) - len(records)
        raise DataError(
            f"{missing} of {len(episodes)} episodes have no reference record; "
            "compute it when an episode enters the replay"
        )
    widths = sorted({record.plausible.shape[1] for record in records})
    if len(widths) > 1:
        raise DataError(f"episodes of one batch have {widths} plausible tokens per state; expected the same number")
    return records


def _continues(episode: Episode) -> NDArray[np.float64]:
    continues = np.ones(len(episode.decisions))
    continues[-1] = not episode.terminated
    return continues
