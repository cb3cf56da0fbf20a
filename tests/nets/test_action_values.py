"""Factored answers against dense ones: the same questions, the same answers, the same gradients."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from tokenq.nets.action_values import Dense, Factored
from tokenq.nets.language import LanguageQ
from tokenq.ops import readout
from tokenq.ops.readout import Readout
from tokenq.types import Batch

Both = tuple[Factored, Dense, Batch, LanguageQ]


@pytest.fixture(params=[1, 2**22], ids=["chunked", "whole"])
def both(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., PreTrainedModel],
    random_episodes: Callable[..., list],
    recorded: Callable[..., Batch],
) -> Both:
    """The answers of one model, factored and dense, to one padded batch."""
    monkeypatch.setattr(readout, "CHUNK", request.param)
    network = LanguageQ(tiny())
    batch = recorded(network, random_episodes(5))
    factored = network(batch)
    assert isinstance(factored, Factored)
    logits = network.model(input_ids=batch.texts.tokens, attention_mask=batch.texts.attention).logits
    rows = torch.arange(5).unsqueeze(1)
    return factored, Dense(logits[rows, batch.texts.states]), batch, network


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_every_question_has_the_same_answer(both: Both) -> None:
    factored, dense, batch, _ = both
    valid, decided = factored.valid, batch.decided
    candidates = torch.randint(31, (*valid.shape, 4), generator=torch.Generator().manual_seed(0))
    assert near(factored.at(batch.actions)[decided], dense.at(batch.actions)[decided])
    assert near(factored.logsumexp[valid], dense.logsumexp[valid])
    assert near(factored.entropy[valid], dense.entropy[valid])
    assert near(factored.soft_maximum(0.3)[valid], dense.soft_maximum(0.3)[valid])
    after = valid[:, 1:]
    for ours, theirs in zip(factored.following.maximum, dense.following.maximum, strict=True):
        assert near(ours[after].float(), theirs[after].float())
    assert near(factored.following.logsumexp[after], dense.logsumexp[:, 1:][after])
    assert near(factored.among(candidates)[valid], dense.among(candidates)[valid])
    for ours, theirs in zip((*factored.maximum, *factored.top(3)), (*dense.maximum, *dense.top(3)), strict=True):
        assert near(ours[valid].float(), theirs[valid].float())
    for samples in (0, 1, 3):
        ours = factored.log_probability(batch.actions, samples)
        assert near(ours[decided], dense.log_probability(batch.actions, samples)[decided])


def test_what_is_left_without_some_tokens(both: Both) -> None:
    """Exact values, padding reads zero, and with a token left out twice it is left out once."""
    factored, dense, batch, _ = both
    known = torch.randint(31, (*batch.actions.shape, 3), generator=torch.Generator().manual_seed(2))
    known[..., 2] = known[..., 0]
    ours, theirs = factored.rest(known, 2), dense.rest(known, 2)
    assert near(ours[batch.decided], theirs[batch.decided]) and (ours[~batch.decided] == 0).all()
    by_hand = [value for i, value in enumerate(dense.values[0, 0].tolist()) if i not in known[0, 0].tolist()]
    assert 28 <= len(by_hand) < 31
    assert near(ours[0, 0], torch.tensor(by_hand).logsumexp(0))
    assert all(part.requires_grad for part in (ours, theirs))


def test_sampled_gradient_of_the_rest_averages_to_the_exact_one() -> None:
    """As above; the tokens left out have none."""
    times = 20_000
    values, actions = repeated(times)
    known = torch.stack([actions, torch.full_like(actions, 5)], -1)
    torch.manual_seed(0)
    sampled = torch.autograd.grad(values.rest(known, 2).sum(), [values.hidden, values.readout.weight])
    states = values.hidden[:1, 0]
    kept = [0, 1, 3, 4, 6]
    exact = torch.autograd.grad((states @ values.readout.weight[kept].T).logsumexp(-1).sum(), values.hidden)[0][0, 0]
    error = sampled[0][:, 0].std(0) / times**0.5
    assert (error > 0).all() and ((sampled[0][:, 0].mean(0) - exact).abs() < 5 * error).all()
    assert (sampled[1][[2, 5]] == 0).all() and (sampled[1][kept] != 0).all()


def test_padded_states_read_zero_and_only_two_questions_have_a_gradient(both: Both) -> None:
    factored, dense, batch, _ = both
    assert (~factored.valid).any()
    candidates = torch.zeros(*factored.valid.shape, 2, dtype=torch.long)
    for values in (factored, dense):
        answers = (values.logsumexp, values.entropy, *values.maximum, *values.top(2), values.among(candidates))
        assert not any(answer.requires_grad for answer in answers)
        assert values.at(batch.actions).requires_grad and values.log_probability(batch.actions, 2).requires_grad
    for answer in (factored.logsumexp, factored.entropy, factored.maximum[0], factored.among(candidates)):
        assert (answer[~factored.valid] == 0).all()


def gradients(values: Dense | Factored, batch: Batch, network: LanguageQ, question: str) -> list[torch.Tensor]:
    asked = values.at(batch.actions) if question == "at" else values.log_probability(batch.actions, 0)
    weights = torch.randn(asked.shape, generator=torch.Generator().manual_seed(1)) * batch.decided
    return list(torch.autograd.grad((asked * weights).sum(), list(network.parameters())))


@pytest.mark.parametrize("question", ["at", "log_probability"])
def test_gradients_of_all_parameters_agree(both: Both, question: str) -> None:
    factored, dense, batch, network = both
    ours = gradients(factored, batch, network, question)
    theirs = gradients(dense, batch, network, question)
    assert max(float(g.abs().max()) for g in theirs) > 0.1
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


def repeated(times: int) -> tuple[Factored, torch.Tensor]:
    """One state and its action, many times over."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(7, 3, generator=generator, requires_grad=True)
    hidden = torch.randn(1, 1, 3, generator=generator).expand(times, 2, 3).clone().requires_grad_()
    return Factored(hidden, Readout(weight), torch.ones(times, 2, dtype=torch.bool)), torch.full((times, 1), 2)


@pytest.mark.parametrize("samples", [1, 4])
def test_sampled_gradient_averages_to_the_exact_one(samples: int) -> None:
    """Over 20,000 draws the mean of every entry lies within five standard errors of autograd's log-softmax."""
    times = 20_000
    values, actions = repeated(times)
    torch.manual_seed(0)
    sampled = torch.autograd.grad(values.log_probability(actions, samples).sum(), values.hidden)[0][:, 0]
    exact = torch.autograd.grad(values.log_probability(actions, 0)[0, 0], values.hidden)[0][0, 0]
    error = sampled.std(0) / times**0.5
    assert (error > 0).all() and ((sampled.mean(0) - exact).abs() < 5 * error).all()
    assert sampled.std(0).max() > 0.1, "samples that agree would make this test empty"


def test_zero_samples_are_autograd_of_log_softmax() -> None:
    values, actions = repeated(2)
    weight, hidden = values.readout.weight, values.hidden
    log = (hidden[:, 0] @ weight.T).log_softmax(-1)[:, 2]
    ours = torch.autograd.grad(values.log_probability(actions, 0).sum(), [weight, hidden])
    theirs = torch.autograd.grad(log.sum(), [weight, hidden])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_padding_and_order_of_a_batch_change_nothing(
    tiny: Callable[..., PreTrainedModel], random_episodes: Callable[..., list], recorded: Callable[..., Batch]
) -> None:
    network = LanguageQ(tiny())
    episodes = random_episodes(6)
    together = recorded(network, episodes)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = recorded(network, [episodes[i] for i in order])
    a, b = network(together), network(shuffled)
    assert near(a.logsumexp[order][together.decided.new_ones(6, a.valid.shape[1])], b.logsumexp.flatten())
    for i, episode in enumerate(episodes):
        alone = recorded(network, [episode])
        values, n = network(alone), len(episode.decisions)
        assert near(values.at(alone.actions)[0], a.at(together.actions)[i, :n])
        assert near(values.logsumexp[0], a.logsumexp[i, : n + 1])


def test_state_values_of_padding_reach_no_decision(both: Both) -> None:
    factored, _, batch, _ = both
    poisoned = replace(factored, hidden=torch.where(factored.valid.unsqueeze(-1), factored.hidden, 1e4))
    assert torch.equal(poisoned.logsumexp, factored.logsumexp)
    log = poisoned.log_probability(batch.actions, 2)[batch.decided]
    assert near(log, factored.log_probability(batch.actions, 2)[batch.decided])
