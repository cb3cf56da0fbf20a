"""No update ever holds a tensor of all decisions by the whole vocabulary."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tokenq.learning.diagnostics import diagnose
from tokenq.learning.learner import Learner
from tokenq.learning.objectives import DoubleDQN, Plausible, Soft
from tokenq.learning.offline import CQL, ILQL, MC, Guided
from tokenq.learning.values import Head, Heads, Logits
from tokenq.nets.likelihood import next_token_loss
from tokenq.nets.reference import Reference, log_probabilities
from tokenq.ops.readout import CHUNK
from tokenq.types import Batch, Episode

V, B, N = 50_257, 24, 32
ALL = B * N * V


class Largest(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that any operation, forward or backward, returned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for tensor in answer if isinstance(answer, tuple | list) else [answer]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return answer


def long_episodes() -> list[Episode]:
    rng = np.random.default_rng(0)
    return [
        Episode(rng.integers(0, V, N + 2), np.arange(2, N + 2), rng.normal(size=N), terminated=i % 2 == 0)
        for i in range(B)
    ]


Use = Callable[[Learner, Batch], object]


def update(learner: Learner, batch: Batch) -> object:
    return learner.update(batch)


def pretraining(learner: Learner, batch: Batch) -> None:
    next_token_loss(learner.network, list(batch.texts.tokens)).backward()


def record(learner: Learner, batch: Batch) -> object:
    return Reference(learner.network, plausible=4).record(long_episodes())


def reading(learner: Learner, batch: Batch) -> object:
    return diagnose(learner, batch), log_probabilities(learner.network, long_episodes())


SOFT, HEAD, DOUBLE = Soft(Logits(), lam=0.9), Soft(Head(samples=4), lam=0.9), DoubleDQN(Logits(), Plausible(4))


@pytest.mark.parametrize(
    ("objective", "use"),
    [
        *((objective, update) for objective in (SOFT, HEAD, DOUBLE, ILQL(), CQL(Heads(2)), MC())),
        *((SOFT, use) for use in (pretraining, record, reading)),
        (ILQL(), reading),
    ],
    ids=["soft", "head", "double_dqn", "ilql", "cql", "mc", "pretraining", "record", "diagnostics", "guided"],
)
def test_largest_tensor_is_a_chunk(
    objective: Soft | DoubleDQN | Guided, use: Use, learner_for: Callable[..., Learner], recorded: Callable[..., Batch]
) -> None:
    learner = learner_for(objective, vocabulary=V)
    batch = recorded(learner.network, long_episodes(), objective.plausible)
    with Largest() as largest:
        use(learner, batch)
    assert 0 < largest.entries <= CHUNK + V < ALL / 2


def test_the_whole_softmax_is_what_this_would_find(
    learner_for: Callable[..., Learner], recorded: Callable[..., Batch]
) -> None:
    learner = learner_for(Soft(Head(samples=0), lam=0.9), vocabulary=V)
    batch = recorded(learner.network, long_episodes())
    with Largest() as largest:
        learner.update(batch)
    assert largest.entries == ALL
