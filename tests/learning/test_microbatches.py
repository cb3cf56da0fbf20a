from dataclasses import fields, replace

import torch

from tokenq.learning.microbatches import split
from tokenq.nets.language import LanguageQ
from tokenq.nets.reference import Reference
from tokenq.replay.collate import collate_all


def test_half_a_batch_is_the_batch_of_half_the_episodes(tiny, random_episodes) -> None:
    reference = Reference(LanguageQ(tiny()), plausible=2)
    first = replace(random_episodes(1)[0], since=None)
    forgetful = replace(first, since=first.states - 1 + (first.states == 0))
    for pair in ([first, first], [forgetful, forgetful], [forgetful, first]):
        whole = collate_all(reference.record(pair))
        for part, episode in zip(split(whole, 2), pair, strict=True):
            alone = collate_all(reference.record([episode]))
            rated = part.rated.sum()
            assert torch.equal(part.actions, alone.actions) and rated == alone.rated.sum()
            for field in fields(part.texts):
                cut, own = getattr(part.texts, field.name), getattr(alone.texts, field.name)
                assert torch.equal(cut[:, : own.shape[1]], own), field.name
            assert torch.equal(part.reference.plausible, alone.reference.plausible)


def test_one_part_is_the_batch_itself(tiny, random_episodes) -> None:
    batch = collate_all(Reference(LanguageQ(tiny())).record(random_episodes(3)))
    assert split(batch, 1) == [batch]
    assert [len(part.index) for part in split(batch, 2)] == [2, 1]
