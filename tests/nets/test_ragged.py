"""Groups of similar length: what is cut where, and that the answers are those of one padded batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenq.nets.architectures import EncoderDecoder, Recurrent, RotaryTransformer, ShiftingTransformer
from tokenq.nets.language import LanguageQ, inputs, trunk
from tokenq.nets.ragged import by_length, group_sizes
from tokenq.nets.tokenizers import Words


def test_groups_by_hand() -> None:
    # Cut after the first: the other three are padded by 8 each, 24 tokens saved.
    assert group_sizes([10, 2, 2, 2], call=23) == [1, 3]
    assert group_sizes([10, 2, 2, 2], call=24) == [4]
    # First 3 x 8 saved after the 10, then 2 x 1 are not worth a call of 4.
    assert group_sizes([10, 2, 1, 1], call=4) == [1, 3]
    assert group_sizes([], call=0) == [0]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=80), st.integers(0, 500))
def test_every_row_is_in_one_group_and_no_group_costs_more(lengths: list[int], call: int) -> None:
    ordered = sorted(lengths, reverse=True)
    sizes = group_sizes(ordered, call)
    assert sum(sizes) == len(ordered) and min(sizes) > 0
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    grouped = sum(size * ordered[start] + call for start, size in zip(starts, sizes, strict=True))
    assert grouped <= len(ordered) * ordered[0] + call


def ragged(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    attention = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, 5, attention.shape) * attention, attention


def test_answers_are_those_of_one_padded_batch() -> None:
    long, short = [200] * 3 + [3] * 20, [150, 1] * 11 + [9]
    for architecture in (
        RotaryTransformer(layers=1, width=16, heads=2),
        ShiftingTransformer(layers=1, width=16, heads=2),
        Recurrent("gru", layers=1, width=16),
        EncoderDecoder(layers=1, width=16, heads=2, context=256),
    ):
        torch.manual_seed(0)
        tokenizer = Words().train(["a few words to learn"], architecture.frame, sentinels=False)
        network = LanguageQ(architecture.build(tokenizer))
        tokens, attention = ragged(long)
        source, heard = ragged(short)
        seen = attention.bool()
        together = trunk(network.causal, inputs(network.causal, tokens, attention, source, heard))
        together[seen].sum().backward()
        expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        network.zero_grad()
        grouped = network.hidden(tokens, attention, source, heard)
        grouped[seen].sum().backward()
        torch.testing.assert_close(grouped[seen], together[seen], atol=1e-5, rtol=1e-4)
        found = [p.grad for p in network.parameters() if p.grad is not None]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_fewer_tokens_are_read() -> None:
    read: list[tuple[int, ...]] = []

    def count(tokens: torch.Tensor, attention: torch.Tensor) -> tuple[torch.Tensor, ...]:
        read.append(tuple(tokens.shape))
        return (tokens * attention,)

    tokens, attention = ragged([400, 5, 5, 5])
    (answer,) = by_length(count, (tokens, attention))
    assert read == [(1, 400), (3, 5)]
    assert torch.equal(answer, tokens)
