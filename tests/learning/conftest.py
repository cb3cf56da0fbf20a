"""Batches and networks small enough to check by hand."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from tokenq.learning.learner import Learner, Objective, Optimisation
from tokenq.learning.offline import Guided
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import Periodic
from tokenq.learning.target import Target, TargetConfig
from tokenq.learning.values import Head
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.nets.q_heads import QHeads
from tokenq.types import Batch, Episode, References, Texts


def prompts_of_one(b: int, n: int) -> Texts:
    """One token each, and a decision at every token after it."""
    tokens, none = torch.zeros(b, n + 1, dtype=torch.long), torch.zeros(b, 0, dtype=torch.long)
    return Texts(
        tokens,
        torch.ones_like(tokens),
        torch.arange(n + 1).repeat(b, 1),
        torch.arange(b).unsqueeze(1).repeat(1, n + 1),
        none,
        none,
    )


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Batch]:
    """A batch of one-token prompts and N decisions each; only what the test names is different from zero."""

    def make(actions: list[list[int]], k: int = 0, **fields: Any) -> Batch:
        b, n = len(actions), len(actions[0])
        record = {
            "logit": torch.zeros(b, n),
            "logsumexp": torch.zeros(b, n + 1),
            "plausible": torch.zeros(b, n + 1, k, dtype=torch.long),
            "plausible_logit": torch.zeros(b, n + 1, k),
        }
        plain = {
            "actions": torch.tensor(actions),
            "rewards": torch.zeros(b, n),
            "continues": torch.ones(b, n),
            "decided": torch.ones(b, n, dtype=torch.bool),
            "rated": torch.ones(b, n, dtype=torch.bool),
            "weight": torch.ones(b),
            "index": torch.arange(b),
        }
        given = {name: torch.as_tensor(value) for name, value in fields.items()}
        references = References(**(record | {name: given.pop(name) for name in record if name in given}))
        return Batch(inputs=prompts_of_one(b, n), record=references, **(plain | given))

    return make


class Toy(nn.Module):
    """Two layers of two tensors each: something that lags."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(30, 20)
        self.second = nn.Linear(20, 10)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "Toy":
        return copy.deepcopy(self, {id(p): p for name, p in self.named_parameters() if not lagged(name)})

    def wander(self, update: int, step: float = 0.1) -> None:
        """What an update does, without a loss: every parameter moves by a reproducible random step."""
        generator = torch.Generator().manual_seed(update)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter += step * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="session")
def every_text() -> Callable[[Mapping[tuple[int, ...], float]], list[Episode]]:
    """One terminated episode for each text, after a token 0, with the text's reward at its end."""

    def make(rewards: Mapping[tuple[int, ...], float]) -> list[Episode]:
        return [
            Episode(
                tokens=np.array([0, *text]),
                decisions=np.arange(1, len(text) + 1),
                rewards=np.array([0.0] * (len(text) - 1) + [reward]),
                terminated=True,
            )
            for text, reward in rewards.items()
        ]

    return make


@pytest.fixture(scope="session")
def toy() -> type[Toy]:
    """The class, so that a test makes as many as it needs."""
    return Toy


def guided(objective: Any) -> TypeGuard[Guided]:
    return isinstance(objective, Guided)


@pytest.fixture
def learner_for(tiny: Callable[..., PreTrainedModel]) -> Callable[..., Learner]:
    """A learner on a tiny GPT-2, with a target that never moves unless `target` says otherwise."""

    def make(
        objective: Objective,
        target: TargetConfig | None = None,
        scale: Any = None,
        family: str = "gpt2",
        vocabulary: int = 31,
        **optimisation: Any,
    ) -> Learner:
        model = tiny(family, vocabulary)
        torch.manual_seed(1)
        value_head = ValueHead(16) if isinstance(objective.values, Head) else None
        heads = QHeads(16, vocabulary, objective.values.count, objective.has_value) if guided(objective) else None
        network = LanguageQ(model, value_head, heads)
        lagging = Target(network, target or TargetConfig(Periodic(10**6)), seed=0)
        settings = Optimisation(**optimisation)
        return Learner(network, objective, lagging, scale or RawRewards(), settings, Accelerator(cpu=True))

    return make
