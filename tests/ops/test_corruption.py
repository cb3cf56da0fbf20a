"""Masked tokens and cut spans: shares, reconstruction, and what stays as it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.ops.corruption import corrupt_spans, mask_tokens

MASK, V = 99, 90


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_of_masked_random_and_untouched_tokens() -> None:
    tokens = torch.full((200_000,), 7)
    maskable = torch.arange(200_000) % 2 == 0
    corrupted, chosen = mask_tokens(tokens, maskable, 0.3, MASK, V, drawn(0))
    assert not chosen[~maskable].any() and (corrupted[~chosen] == 7).all()
    assert chosen[maskable].float().mean() == pytest.approx(0.3, abs=0.01)
    fate = corrupted[chosen]
    assert (fate == MASK).float().mean() == pytest.approx(0.8, abs=0.01)
    # A tenth stays, and one in V of the random ones happens to be the same token.
    assert (fate == 7).float().mean() == pytest.approx(0.1 + 0.1 / V, abs=0.01)
    assert (fate[fate != MASK] < V).all()


@given(length=st.integers(2, 60), probability=st.floats(0.05, 0.9), mean=st.floats(1, 6), seed=st.integers(0, 99))
def test_source_and_target_hold_the_text_between_them(length: int, probability: float, mean: float, seed: int) -> None:
    sentinels = list(range(1000, 1100))
    source, target = corrupt_spans(torch.arange(length), probability, mean, sentinels, drawn(seed))
    spans: dict[int, list[int]] = {}
    for token in target:
        if token >= 1000:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    rebuilt = [part for token in source for part in (spans[token] if token >= 1000 else [token])]
    assert rebuilt == list(range(length))
    assert [token for token in source if token >= 1000] == list(spans) == sentinels[: len(spans)]
    assert all(spans.values()) and source[0] < 1000
    cut = sum(map(len, spans.values()))
    assert cut == min(max(round(length * probability), 1), length - 1)


def test_a_single_token_has_nothing_to_lose() -> None:
    assert corrupt_spans(torch.tensor([5]), 0.5, 3, [1000], drawn(0)) == ([5], [])


def test_the_seed_decides() -> None:
    texts = [corrupt_spans(torch.arange(40), 0.3, 2, [100, 101, 102], drawn(seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert sum(token >= 100 for token in texts[0][0]) == 3, "no more spans than there are sentinels"
