"""Chunked answers about logits against the whole matrix."""

from collections.abc import Iterator

import pytest
import torch

from tokenq.ops import readout
from tokenq.ops.readout import Readout

M, D, V = 23, 5, 37


@pytest.fixture(params=[1, 3 * V, 2**22], ids=["a row at a time", "three rows", "all at once"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every size of chunk gives the same answers."""
    monkeypatch.setattr(readout, "CHUNK", request.param)
    yield


def matrix(bias: bool) -> tuple[Readout, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(V, D, generator=generator, requires_grad=True)
    hidden = torch.randn(M, D, generator=generator, requires_grad=True)
    added = torch.randn(V, generator=generator, requires_grad=True) if bias else None
    logits = hidden @ weight.T + (0 if added is None else added)
    return Readout(weight, added), hidden, logits


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("bias", [False, True])
def test_answers_are_those_of_the_whole_matrix(bias: bool) -> None:
    out, hidden, logits = matrix(bias)
    values, tokens = out.maximum(hidden)
    top, top_tokens = out.top(hidden, 4)
    log = logits.log_softmax(-1)
    assert torch.allclose(out.logsumexp(hidden), logits.logsumexp(-1), atol=1e-6)
    assert torch.allclose(values, logits.amax(-1)) and torch.equal(tokens, logits.argmax(-1))
    assert torch.allclose(top, logits.topk(4).values) and torch.equal(top_tokens, logits.topk(4).indices)
    vocabulary = logits.shape[-1]
    filled, filled_tokens = out.top(hidden, vocabulary + 2)
    assert torch.allclose(filled[:, :vocabulary], logits.sort(descending=True).values, atol=1e-6)
    assert (filled[:, vocabulary:] == filled[:, :1]).all()
    assert (filled_tokens[:, vocabulary:] == top_tokens[:, :1]).all()
    assert torch.allclose(out.entropy(hidden), -(log.exp() * log).sum(-1), atol=1e-6)
    answers = (out.logsumexp(hidden), values, top, out.entropy(hidden))
    assert not any(answer.requires_grad for answer in answers)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize(("bias", "noise"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_cross_entropy_and_its_gradient(bias: bool, noise: float) -> None:
    out, hidden, logits = matrix(bias)
    tokens = torch.arange(M) % V
    leaves = [leaf for leaf in (hidden, out.weight, out.bias) if leaf is not None]
    p = logits.softmax(-1).gather(-1, tokens[:, None])[:, 0]
    expected = -((1 - noise) * p + noise / V).log().mean()
    slow = torch.autograd.grad(expected, leaves)
    loss = out.cross_entropy(hidden, tokens, noise)
    assert torch.allclose(loss, expected)
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), slow, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_rows_are_entries_of_the_matrix_with_their_gradient() -> None:
    out, hidden, logits = matrix(bias=True)
    index = torch.stack([torch.arange(M) % V, torch.full((M,), 7)], dim=-1)
    expected = logits.gather(-1, index)
    rows = out.rows(hidden, index)
    assert torch.allclose(rows, expected, atol=1e-6)
    assert out.bias is not None
    leaves = [hidden, out.weight, out.bias]
    weights = torch.randn(M, 2, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((rows * weights).sum(), leaves)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.usefixtures("chunked")
def test_samples_follow_the_softmax() -> None:
    out = Readout(torch.tensor([[0.0], [1.0], [2.0]]))
    torch.manual_seed(0)
    drawn = out.sample(torch.ones(2, 1), 20_000)
    shares = torch.stack([(drawn == token).float().mean() for token in range(3)])
    # Five standard errors of a share of 40,000 draws.
    assert torch.allclose(shares, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=5 * 0.5 / 200)
