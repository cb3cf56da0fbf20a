"""The one-file example is the executable specification: the library computes the same losses, gradients and updates."""

import copy
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import GPT2Config, GPT2LMHeadModel

from tokenq.envs.walks import Walks
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import Soft
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Polyak
from tokenq.learning.target import Target, TargetConfig
from tokenq.learning.values import Logits
from tokenq.nets.language import LanguageQ
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.types import Batch, Episode

PATH = Path(__file__).parents[1] / "examples" / "minimal.py"
TOLERANCE = 1e-6
BETA, GAMMA, TAU = 0.3, 0.9, 0.1
LEARNING_RATE = 1e-4
# prompt, completion, rewards, ended by itself: other lengths, rewards on the way, one decision alone, two cut off
TEXTS = [
    ([3], [5, 8, 1, 0, 21], [0.0, 0.0, 0.0, 0.0, 0.9], True),
    ([4, 2, 7], [6, 0, 21], [0.0, 0.5, -1.0], True),
    ([1], [2, 3, 4, 5, 6, 7, 8, 9], [0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4], False),
    ([9, 9], [10], [0.7], True),
    ([12, 11], [13], [-0.3], False),
]


@pytest.fixture(scope="module")
def minimal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["minimal"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def model(seed: int) -> GPT2LMHeadModel:
    """Random weights, large enough for logits of several nats.

    In double precision: the gradient of a key's bias is zero in theory, and Adam makes full steps of what rounding
    leaves of it.
    """
    torch.manual_seed(seed)
    shape = {"vocab_size": 22, "n_positions": 16, "n_embd": 24, "n_head": 2, "n_layer": 2}
    config = GPT2Config(**shape, initializer_range=0.3, bos_token_id=21, eos_token_id=21)
    return GPT2LMHeadModel(config).double().eval()


def settings(minimal: ModuleType, lam: float, max_grad_norm: float) -> Any:
    return minimal.Settings(BETA, GAMMA, lam, TAU, LEARNING_RATE, max_grad_norm)


def learner(online: GPT2LMHeadModel, lagging: GPT2LMHeadModel, lam: float, max_grad_norm: float) -> Learner:
    """The library's learner whose target network starts from the weights of `lagging`."""
    network = LanguageQ(copy.deepcopy(online))
    made = Learner(
        network,
        Soft(Logits(BETA), GAMMA, lam),
        Target(network, TargetConfig(sync=Polyak(TAU)), seed=0),
        RawRewards(),
        Optimisation(LEARNING_RATE, max_grad_norm=max_grad_norm),
        Accelerator(cpu=True),
    )
    made.target.network.model.load_state_dict(lagging.state_dict())
    return made


def library_batch(reference: GPT2LMHeadModel) -> Batch:
    episodes = [
        Episode(
            tokens=np.array(prompt + completion),
            decisions=np.arange(len(prompt), len(prompt) + len(completion)),
            rewards=np.array(rewards),
            terminated=ended,
        )
        for prompt, completion, rewards, ended in TEXTS
    ]
    recorded = Reference(LanguageQ(copy.deepcopy(reference))).record(episodes)
    sample = Sample(recorded, np.arange(len(recorded)), np.ones(len(recorded), np.float32))
    return collate(sample, pad_token=0)


def minimal_batch(minimal: ModuleType, reference: GPT2LMHeadModel) -> Any:
    return minimal.collate([minimal.episode(reference, *text) for text in TEXTS])


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_loss_and_gradient_are_those_of_the_library(minimal: ModuleType, lam: float) -> None:
    online, lagging, reference = model(1), model(2), model(3)
    loss = minimal.soft_loss(online, lagging, minimal_batch(minimal, reference), settings(minimal, lam, 1.0))
    loss.backward()

    theirs = learner(online, lagging, lam, max_grad_norm=float("inf"))
    gradients: dict[str, torch.Tensor] = {}

    def keep(*_: object) -> None:
        gradients.update({name: p.grad.clone() for name, p in theirs.network.model.named_parameters()})

    theirs.optimisers[0].register_step_pre_hook(keep)
    report = theirs.update(library_batch(reference))

    assert loss.item() > 0.1
    assert report.metrics["loss"] == pytest.approx(loss.item(), abs=TOLERANCE)
    ours = {name: p.grad for name, p in online.named_parameters()}
    assert max(gradient.abs().max().item() for gradient in ours.values()) > 0.01
    assert largest_difference(ours, gradients) < TOLERANCE


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_two_updates_leave_the_same_parameters(minimal: ModuleType, lam: float) -> None:
    online, lagging, reference = model(1), model(2), model(3)
    theirs = learner(online, lagging, lam, max_grad_norm=0.1)
    before = {name: p.detach().clone() for name, p in online.named_parameters()}
    chosen = settings(minimal, lam, 0.1)
    optimiser = torch.optim.AdamW(online.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(2):
        minimal.update(online, lagging, optimiser, minimal_batch(minimal, reference), chosen)
        report = theirs.update(library_batch(reference))
        assert report.metrics["grad_norm/trunk"] > chosen.max_grad_norm

    ours = {name: p.detach() for name, p in online.named_parameters()}
    assert largest_difference(ours, before) > 100 * TOLERANCE
    assert largest_difference(ours, dict(theirs.network.model.named_parameters())) < TOLERANCE
    lagged = dict(theirs.target.network.model.named_parameters())
    assert largest_difference(dict(lagging.named_parameters()), lagged) < TOLERANCE


def test_the_task_is_that_of_the_library(minimal: ModuleType) -> None:
    task = Walks(graph_seed=1000)
    edges, walks = minimal.graph_and_walks()
    shortest = minimal.shortest_lengths(edges)
    assert (edges == task.edges).all()
    rows = [(row["prompt"] + row["completion"], row["reward"]) for row in task.rows()]
    texts = ["".join(task.symbols[node] for node in walk) for walk in walks]
    assert [(t, minimal.optimality(w, edges, shortest)) for t, w in zip(texts, walks, strict=True)] == rows


def test_a_short_run_says_how_good_it_is(minimal: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    minimal.main("--layers 1 --pretraining 2 --updates 2 --batch_size 8".split())
    figures = re.findall(r"(before|after): (greedy|sampled) optimality ([01]\.\d{3})\n", capsys.readouterr().out)
    expected = [(when, how) for when in ("before", "after") for how in ("greedy", "sampled")]
    assert [(when, how) for when, how, _ in figures] == expected


def test_the_example_is_short_and_stands_alone() -> None:
    source = PATH.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 220
    assert re.findall(r"^\s*(?:import|from)\s+tokenq", source, re.MULTILINE) == []
