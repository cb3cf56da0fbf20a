"""Recurrent language models: against plain loops over cells, with padding, and through the rest of the house."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel

from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import Soft
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Polyak
from tokenq.learning.target import Full, HeadOnly, LastLayers, Target, TargetConfig
from tokenq.learning.values import Logits
from tokenq.nets.action_values import Factored
from tokenq.nets.language import LanguageQ, context_length, is_factored
from tokenq.nets.loading import character_tokenizer, load_model, save_model
from tokenq.nets.recurrent import RecurrentConfig, RecurrentForCausalLM, RecurrentModel
from tokenq.types import Batch, Episode

Elsewhere = Callable[[Path], tuple[torch.Tensor, str]]
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
NARROW, UNTIED = {"embedding_size": 6}, {"embedding_size": 6, "tie_word_embeddings": False}
PROMPTS = [[5], [1, 2, 3, 4, 5, 6], [7, 8, 9]]
V, H = 11, 8
TOKENS = torch.arange(36).reshape(4, 9) ** 2 % V


def make(cell: str = "lstm", seed: int = 0, **changes: Any) -> RecurrentForCausalLM:
    torch.manual_seed(seed)
    sizes = {"vocab_size": V, "hidden_size": H, "initializer_range": 0.5, "pad_token_id": 0}
    return RecurrentForCausalLM(RecurrentConfig(cell=cell, **(sizes | changes))).eval()


def left_padded(rows: list[list[int]], pad: int = 0) -> dict[str, torch.Tensor]:
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    tokens = torch.tensor([[pad] * gap + row for gap, row in zip(gaps, rows, strict=True)])
    return {"input_ids": tokens, "attention_mask": (torch.arange(tokens.shape[1]) >= torch.tensor([gaps]).T).long()}


@torch.no_grad()
def by_hand(model: RecurrentForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Logits from torch's single-step cells, one token after the other, on the model's weights."""
    weights = model.state_dict()
    states: list[Any] = [None] * model.config.num_hidden_layers
    logits = []
    for t in range(tokens.shape[1]):
        x = weights["recurrent.embeddings.weight"][tokens[:, t]]
        for i in range(len(states)):
            cell = CELLS[model.config.cell](x.shape[1], H)
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            cell.load_state_dict({name: weights[f"recurrent.layers.{i}.{name}_l0"] for name in names})
            states[i] = cell(x, states[i])
            x = states[i][0] if isinstance(states[i], tuple) else states[i]
        if "recurrent.projection.weight" in weights:
            x = x @ weights["recurrent.projection.weight"].T
        logits.append(x @ weights["lm_head.weight"].T)
    return torch.stack(logits, 1)


@pytest.mark.parametrize("embedding", [{}, NARROW, UNTIED])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_and_loss_are_those_of_a_plain_loop(cell: str, embedding: dict[str, Any]) -> None:
    model = make(cell, num_hidden_layers=3, **embedding)
    expected, labels = by_hand(model, TOKENS), TOKENS.clone()
    labels[1, 4:] = -100
    loss = nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    answer = model(TOKENS, labels=labels, output_hidden_states=True)
    assert torch.allclose(answer.logits, expected, atol=1e-5) and torch.allclose(answer.loss, loss, atol=1e-5)
    assert len(answer.hidden_states) == 4 and torch.equal(model.lm_head(answer.hidden_states[-1]), answer.logits)
    summed = model(TOKENS, labels=labels, num_items_in_batch=7).loss
    assert torch.allclose(summed, loss * (labels[:, 1:] >= 0).sum() / 7, atol=1e-5)
    assert torch.allclose(model(TOKENS, logits_to_keep=2).logits, expected[:, -2:], atol=1e-5)
    assert torch.allclose(model(TOKENS, return_dict=False)[0], expected, atol=1e-5)
    first = model(inputs_embeds=model.get_input_embeddings()(TOKENS[:, :5]))
    assert first.state.shape == (4, 3, 2 if cell == "lstm" else 1, H)
    rest = model(TOKENS[:, 5:], state=first.state)
    assert torch.allclose(torch.cat([first.logits, rest.logits], 1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "embedding", "expected"),
    [
        # Embeddings 11·8; two layers of 8·8 + 8·8 weights and 8 + 8 biases a gate; tied, so no output matrix.
        ("rnn", {}, 88 + 2 * 144),
        ("gru", {}, 88 + 2 * 3 * 144),
        ("lstm", {}, 88 + 2 * 4 * 144),
        # Embeddings 11·6, a first layer that reads 6, and a projection from 8 to 6 or an output matrix 11·8.
        ("lstm", NARROW, 66 + 4 * (6 * 8 + 64 + 16) + 4 * 144 + 48),
        ("lstm", UNTIED, 66 + 4 * (6 * 8 + 64 + 16) + 4 * 144 + 88),
    ],
)
def test_number_of_parameters(cell: str, embedding: dict[str, Any], expected: int) -> None:
    assert make(cell, **embedding).num_parameters() == expected


@pytest.mark.parametrize("cell", CELLS)
def test_a_seed_decides_the_weights_and_they_start_as_documented(cell: str) -> None:
    model, same, other = make(cell), make(cell), make(cell, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
    layer = model.recurrent.layers[1]
    for gate in layer.weight_hh_l0.split(H):
        assert torch.allclose(gate if cell == "rnn" else gate @ gate.T, torch.eye(H), atol=1e-5)
    assert (layer.weight_ih_l0.abs() <= (6 / (H + H)) ** 0.5).all()
    biases = (layer.bias_ih_l0 + layer.bias_hh_l0).tolist()
    assert biases == ([0.0] * H + [1.0] * H + [0.0] * 2 * H if cell == "lstm" else [0.0] * len(biases))


@settings(max_examples=30, deadline=None)
@given(cell=st.sampled_from(list(CELLS)), cached=st.booleans(), seed=st.integers(0, 10**6))
def test_padding_anywhere_changes_nothing_at_real_tokens(cell: str, cached: bool, seed: int) -> None:
    model, generator = make(cell), torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 9, generator=generator) < 0.5
    mask[torch.arange(4), torch.randint(0, 9, (4,), generator=generator)] = True
    together = model(TOKENS, mask.long(), use_cache=cached, output_hidden_states=True)
    assert (together.state is not None) == cached
    for row in range(4):
        alone = model(TOKENS[row, mask[row]].unsqueeze(0), use_cache=True, output_hidden_states=True)
        assert torch.allclose(together.logits[row, mask[row]], alone.logits[0], atol=1e-6)
        for ours, theirs in zip(together.hidden_states, alone.hidden_states, strict=True):
            assert torch.allclose(ours[row, mask[row]], theirs[0], atol=1e-6) and (ours[row, ~mask[row]] == 0).all()
        if cached:
            assert torch.allclose(together.state[row], alone.state[0], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_generation_from_left_padded_prompts_is_that_of_each_prompt_alone(cell: str) -> None:
    model = make(cell)
    asked = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    read: list[int] = []
    hook = model.recurrent.embeddings.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape[1]))
    together = model.generate(**left_padded(PROMPTS), **asked)
    hook.remove()
    assert read == [6, 1, 1, 1, 1, 1]  # a step reads one token, however long the text is
    slow = model.generate(**left_padded(PROMPTS), use_cache=False, **asked)
    assert torch.equal(together.sequences, slow.sequences)
    assert torch.allclose(torch.stack(together.logits), torch.stack(slow.logits), atol=1e-6)
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), **asked)
        assert together.sequences[row, 6:].tolist() == alone.sequences[0, len(prompt) :].tolist()
        assert torch.allclose(torch.stack(together.logits)[:, row], torch.stack(alone.logits)[:, 0], atol=1e-6)


def test_sampling_draws_from_the_logits_of_the_unpadded_texts() -> None:
    model, texts = make(), [list(prompt) for prompt in PROMPTS]
    torch.manual_seed(5)
    drawn = model.generate(**left_padded(PROMPTS), max_new_tokens=8, do_sample=True, top_k=0)
    torch.manual_seed(5)
    for _ in range(8):
        logits = torch.cat([model(torch.tensor([text])).logits[:, -1] for text in texts])
        for text, token in zip(texts, torch.multinomial(logits.softmax(-1), 1), strict=True):
            text.append(int(token))
    assert [row[-8:] for row in drawn.tolist()] == [text[-8:] for text in texts]


def test_beams_that_hold_everything_find_the_most_probable_text() -> None:
    model, prompts = make(vocab_size=4, initializer_range=2.0), [[1], [2, 3, 0], [3, 3]]
    found = model.generate(**left_padded(prompts), num_beams=16, max_new_tokens=3, do_sample=False)
    ends = torch.cartesian_prod(*[torch.arange(4)] * 3)
    for row, prompt in enumerate(prompts):
        texts = torch.cat([torch.tensor(prompt).repeat(64, 1), ends], 1)
        logs = model(texts).logits.log_softmax(-1)[:, -4:-1].gather(-1, ends.unsqueeze(-1)).sum((1, 2))
        assert found[row, 3:].tolist() == ends[logs.argmax()].tolist()


def test_dropout_acts_in_training_on_inputs_between_layers_and_on_outputs() -> None:
    model, tokens = make(dropout=0.25), TOKENS.repeat(64, 1)
    assert all((h != 0).all() for h in model(tokens, output_hidden_states=True).hidden_states)
    shares = [float((h == 0).float().mean()) for h in model.train()(tokens, output_hidden_states=True).hidden_states]
    assert shares == pytest.approx([0.25] * 3, abs=0.016)  # five standard errors of a share of 256·9·8 entries
    # cuDNN refuses gradients through layers in evaluation mode, the mode in which Q-values are learned.
    assert all(layer.training for layer in model.eval().recurrent.layers)


BAD_SETTINGS = {
    "cell: got 'elman', expected one of rnn, lstm, gru": {"cell": "elman"},
    "num_hidden_layers: got 0": {"num_hidden_layers": 0},
    "embedding_size: got 0": {"embedding_size": 0},
    r"dropout: got 1.0, expected a probability in \[0, 1\)": {"dropout": 1.0},
    "initializer_range: got 0.0": {"initializer_range": 0.0},
}
BAD_INPUTS: dict[str, dict[str, Any]] = {
    r"nothing but padding in row\(s\) \[1, 3\]": {
        "attention_mask": torch.eye(4, 9) * torch.tensor([[1], [0], [1], [0]])
    },
    r"input_ids: got the shape \(4, 0\)": {"input_ids": TOKENS[:, :0]},
    r"input_ids: got the shape \(9,\)": {"input_ids": TOKENS[0]},
    "got both or neither": {"input_ids": None},
    r"attention_mask: got the shape \(4, 12\), expected \(4, 9\)": {"attention_mask": torch.ones(4, 12)},
    r"state: got the shape \(4, 2, 1, 8\), expected \(4, 2, 2, 8\)": {"state": torch.zeros(4, 2, 1, H)},
    "no attention weights": {"output_attentions": True},
    "position_ids, which a recurrent model does not know": {"position_ids": TOKENS},
}


@pytest.mark.parametrize("message", [*BAD_SETTINGS, *BAD_INPUTS])
def test_what_does_not_fit_is_refused(message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(**BAD_SETTINGS.get(message, {}))(**({"input_ids": TOKENS} | BAD_INPUTS.get(message, {})))


@pytest.mark.parametrize("embedding", [{}, NARROW, UNTIED])
@pytest.mark.parametrize("cell", CELLS)
def test_a_saved_model_is_the_same_model(cell: str, embedding: dict[str, Any], tmp_path: Path) -> None:
    model = make(cell, **embedding)
    save_model(model, character_tokenizer("abcdefghi"), tmp_path)
    loaded, body = load_model(str(tmp_path)), AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is RecurrentForCausalLM and type(body) is RecurrentModel
    assert context_length(loaded) is None and not loaded.supports_gradient_checkpointing
    assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    assert torch.equal(loaded.lm_head(body(TOKENS).last_hidden_state), model(TOKENS).logits)
    tied = embedding.get("tie_word_embeddings", True)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    loaded.resize_token_embeddings(V + 3, mean_resizing=False)
    assert loaded(TOKENS + 3).logits.shape == (4, 9, V + 3)
    assert torch.allclose(loaded(TOKENS).logits[..., :V], model(TOKENS).logits, atol=1e-6)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("embedding", [{}, NARROW, UNTIED])
def test_action_values_are_the_logits(
    embedding: dict[str, Any], random_episodes: Callable[..., list[Episode]], recorded: Callable[..., Batch]
) -> None:
    network = LanguageQ(make(vocab_size=31, **embedding))
    batch = recorded(network, random_episodes(6))
    values = network(batch)
    assert is_factored(network.model) and isinstance(values, Factored)
    texts, rows = batch.texts, torch.arange(6).unsqueeze(1)
    taken = network.model(texts.tokens, texts.attention).logits[rows, texts.states[:, :-1], batch.actions]
    for answer in (values.at(batch.actions), batch.reference.logit):
        assert torch.allclose(answer[batch.decided], taken[batch.decided], atol=1e-5)


@pytest.mark.parametrize(
    ("scope", "prefix"), [(HeadOnly(), "lm_head"), (LastLayers(1), "recurrent.layers.1."), (Full(), "recurrent.")]
)
def test_a_target_owns_what_lags_and_reads_with_it(scope: Any, prefix: str) -> None:
    network, expected = LanguageQ(make()), make(tie_word_embeddings=False)
    target = Target(network, TargetConfig(Polyak(0.5), scope), seed=0)
    weights = network.model.state_dict()
    old = {name: tensor.clone() for name, tensor in weights.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    lags = {name for name in weights if name.startswith((prefix, "lm_head"))}
    expected.load_state_dict({name: (old if name in lags else weights)[name] for name in weights})
    tied = {"lm_head.weight"} if scope == Full() else set()
    assert {pair.name for pair in target.pairs} == {f"model.{name}" for name in lags - tied}
    assert torch.allclose(target.network.causal(TOKENS).logits, expected(TOKENS).logits, atol=1e-6)


def test_q_learning_finds_the_best_token_after_texts_that_differ_long_before(recorded: Callable[..., Batch]) -> None:
    """A bandit for each of two prompts, which only the state tells apart: π is π_ref·exp(r/β), normalised."""
    prompts, rewards, beta = [[1, 5, 5], [2, 3, 5, 5]], np.random.default_rng(0).normal(size=(2, V)), 0.5
    network = LanguageQ(make(hidden_size=16))
    tries = [(np.array([*p, a]), len(p), rewards[i, a : a + 1]) for i, p in enumerate(prompts) for a in range(V)]
    batch = recorded(network, [Episode(text, np.array([n]), r, terminated=True) for text, n, r in tries])
    reference = network.model(**left_padded(prompts)).logits[:, -1].detach()
    goal = (reference + torch.from_numpy(rewards).float() / beta).softmax(-1)
    target, fit = Target(network, TargetConfig(Polyak(0.1)), seed=0), Optimisation(learning_rate=0.03)
    learner = Learner(network, Soft(Logits(beta)), target, RawRewards(), fit, Accelerator(cpu=True))
    for _ in range(100):
        learner.update(batch)
    assert torch.allclose(network.model(**left_padded(prompts)).logits[:, -1].softmax(-1), goal, atol=0.02)
    best = [[int(action)] for action in goal.argmax(-1)]
    assert network.complete(prompts, [], lambda logits: (logits * 1e6).log_softmax(-1), 1, [0]) == best


def test_a_checkpoint_loads_where_tokenq_is_not_installed(tmp_path: Path, elsewhere: Elsewhere) -> None:
    model, folder = make(vocab_size=5, pad_token_id=4), tmp_path / "model"
    tokenizer = character_tokenizer("abc")
    save_model(model, tokenizer, folder)
    logits, texts = elsewhere(folder)
    assert torch.equal(logits, model(torch.arange(5).unsqueeze(0)).logits)
    written = model.generate(**left_padded([[0, 1], [2, 0, 1, 2]], pad=4), max_new_tokens=4, do_sample=False)
    assert texts == "|".join(tokenizer.batch_decode(written, skip_special_tokens=True))
