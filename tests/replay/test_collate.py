from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import DataError
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.types import Batch, Episode, ReferenceRecord


def _sample(*episodes: Episode) -> Sample:
    n = len(episodes)
    return Sample(list(episodes), np.arange(n), np.linspace(0.5, 1.0, n, dtype=np.float32))


def test_two_episodes_by_hand() -> None:
    record = ReferenceRecord(
        np.array([0.5, 0.25]), np.array([1.0, 2.0, 3.0]), np.array([[1], [2], [3]]), np.array([[0.1], [0.2], [0.3]])
    )
    # Tokens 10 and 12 are prompt and environment; the policy said 11 and 13 and the conversation was cut off after 14.
    long = Episode(np.array([10, 11, 12, 13, 14]), np.array([1, 3]), np.array([np.nan, 2.0]), False, record)
    short_record = ReferenceRecord(np.zeros(1), np.ones(2), np.array([[4], [5]]), np.array([[0.4], [0.5]]))
    short = Episode(np.array([20, 21]), np.array([1]), np.array([1.0]), True, short_record)
    batch = collate(_sample(long, short), pad_token=9)
    assert batch.texts.tokens.tolist() == [[10, 11, 12, 13, 14], [20, 21, 9, 9, 9]]
    assert batch.texts.attention.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.texts.states.tolist() == [[0, 2, 4], [0, 1, 0]]
    assert batch.actions.tolist() == [[11, 13], [21, 0]]
    assert batch.rewards.tolist() == [[0.0, 2.0], [1.0, 0.0]]
    assert batch.continues.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert batch.decided.tolist() == [[True, True], [True, False]]
    assert batch.rated.tolist() == [[False, True], [True, False]]
    assert batch.reference.logit.tolist() == [[0.5, 0.25], [0.0, 0.0]]
    assert batch.reference.logsumexp.tolist() == [[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]]
    assert batch.reference.plausible.tolist() == [[[1], [2], [3]], [[4], [5], [0]]]
    assert batch.reference.plausible_logit[1].flatten().tolist() == pytest.approx([0.4, 0.5, 0.0])
    assert batch.weight.tolist() == [0.5, 1.0]
    assert batch.index.tolist() == [0, 1]


@given(data=st.data(), lengths=st.lists(st.integers(2, 9), min_size=1, max_size=5))
def test_padding_changes_nothing_about_an_episode(make_episode, data: st.DataObject, lengths: list[int]) -> None:
    episodes = [
        make_episode(list(range(1, length + 1)), data.draw(st.integers(1, length - 1)), data.draw(st.booleans()))
        for length in lengths
    ]
    together = collate(_sample(*episodes), pad_token=0)
    for row, episode in enumerate(episodes):
        alone = collate(_sample(episode), pad_token=0)
        length, n = len(episode.tokens), len(episode.decisions)
        sizes = {"tokens": length, "attention": length, "states": n + 1, "logsumexp": n + 1}
        sizes |= {"plausible": n + 1, "plausible_logit": n + 1}
        padded = tensors(together)
        for name, tensor in tensors(alone).items():
            if name not in ("weight", "index", "rows"):
                size = sizes.get(name, n)
                assert torch.equal(padded[name][row, :size], tensor[0]), name
                assert not padded[name][row, size:].any(), name


def test_a_policy_that_forgets_reads_each_stretch_by_itself(make_episode) -> None:
    whole = make_episode([1, 2, 3], n=1)
    episode = make_episode([10, 11, 12, 13, 14, 15], n=3)  # decisions 3, 4, 5 in states 2, 3, 4, and s_3 at 5
    forgetful = replace(episode, since=np.array([0, 2, 2, 4]))
    texts = collate(_sample(whole, forgetful), pad_token=9).texts
    assert texts.tokens.tolist() == [[1, 2, 3], [10, 11, 12], [12, 13, 14], [14, 15, 9]]
    assert texts.attention.sum(1).tolist() == [3, 3, 3, 2]
    assert texts.rows.tolist() == [[0, 0, 0, 0], [1, 2, 2, 3]]
    assert texts.states.tolist() == [[1, 2, 0, 0], [2, 1, 2, 1]]


def test_a_clock_of_turns_stands_still_within_them(make_episode) -> None:
    first = make_episode([1, 2, 3, 4, 5, 6, 7], n=6)
    talk = replace(first, decisions=np.array([1, 2, 4, 5, 6]), rewards=np.zeros(5), record=None)
    talk = talk.with_record(ReferenceRecord(np.zeros(5), np.zeros(6), np.zeros((6, 0), int), np.zeros((6, 0))))
    batch = collate(_sample(talk), pad_token=0)
    assert batch.time is not None and batch.time.tolist() == [[0, 1, 0, 0, 1]]
    assert batch.discounts(0.5).tolist() == [[1, 0.5, 1, 1, 0.5 * (not talk.terminated)]]
    assert replace(batch, time=None).discounts(0.5)[0, :4].tolist() == [0.5] * 4


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch, by its own name."""
    inner = {"inputs", "record"}
    return {**{k: v for k, v in vars(batch).items() if k not in inner}, **vars(batch.texts), **vars(batch.reference)}


def test_types_are_those_of_the_batch(make_episode) -> None:
    batch = collate(_sample(make_episode([1, 2, 3], n=2)), pad_token=0)
    whole = {"tokens", "attention", "states", "actions", "plausible", "index", "source", "source_attention", "rows"}
    for name, tensor in tensors(batch).items():
        expected = torch.int64 if name in whole else torch.bool if name in ("decided", "rated") else torch.float32
        assert tensor.dtype == expected, name


def test_no_plausible_tokens_is_an_axis_of_length_zero(make_episode) -> None:
    assert collate(_sample(make_episode([1, 2, 3], n=2, k=0)), pad_token=0).reference.plausible.shape == (1, 3, 0)


def test_an_episode_without_record_is_refused(make_episode) -> None:
    with pytest.raises(DataError, match="1 of 2 episodes have no reference record"):
        collate(_sample(make_episode([1, 2]), make_episode([1, 2], k=None)), pad_token=0)


def test_records_of_different_width_are_refused(make_episode) -> None:
    with pytest.raises(DataError, match=r"\[1, 2\] plausible tokens"):
        collate(_sample(make_episode([1, 2], k=1), make_episode([1, 2], k=2)), pad_token=0)
