"""Supervised learning: a learner that makes one update after another, and what stops it in time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from tokenq.errors import Diverged
from tokenq.learning.optimisers import Optimiser, optimisers
from tokenq.ops import schedules

Loss = Callable[[Sequence[int], torch.Generator], Tensor]
"""The loss of some examples, named by their numbers; whatever it draws comes from the generator."""


@dataclass(frozen=True)
class Fit:
    """An optimiser with a warm-up over a tenth of the updates, under a learning rate that falls as `decay` says."""

    updates: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    decay: schedules.Decay = "cosine"
    optim: Optimiser = "adamw"


@dataclass(frozen=True)
class Step:
    """What one update found: the loss before it, in nats, the norm of its gradient before clipping, the step size."""

    loss: float
    grad_norm: float
    learning_rate: float


class SupervisedLearner:
    """Makes `loss` smaller over examples drawn with replacement by a generator of its own, one update at a time.

    Only parameters that require a gradient change. Dropout acts during an update and at no other time.
    """

    def __init__(self, model: nn.Module, loss: Loss, examples: int, settings: Fit, seed: int) -> None:
        self.update = 0
        self.settings = settings
        self._model = model
        self._loss = loss
        self._examples = examples
        self._generator = torch.Generator().manual_seed(seed)
        self._trained = trained(model)
        self._optimisers = optimisers(self._trained, settings.optim, settings.learning_rate, settings.weight_decay)

    def step(self) -> Step:
        """Make the next update.

        Raises:
            Diverged: the loss or its gradient is not finite; the weights are those before this update.
        """
        settings = self.settings
        decay = schedules.decay(settings.decay, settings.updates, self.update)
        rate = settings.learning_rate * decay * schedules.warmup(settings.updates // 10, self.update)
        for group in chain.from_iterable(optimiser.param_groups for optimiser in self._optimisers):
            group["lr"] = rate
        chosen = torch.randint(self._examples, (settings.batch_size,), generator=self._generator).tolist()
        self._model.train()
        value = self._loss(chosen, self._generator)
        value.backward()
        self._model.eval()
        norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), settings.max_grad_norm)
        step = Step(float(value.detach()), float(norm), rate)
        if not (math.isfinite(step.loss) and math.isfinite(step.grad_norm)):
            raise Diverged(f"update {self.update + 1}: got loss {step.loss} and gradient norm {step.grad_norm}")
        for optimiser in self._optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.update += 1
        return step

    def state(self) -> dict[str, Any]:
        """What the updates to come depend on, but for the random stream of dropout."""
        return {
            "parameters": {name: parameter.detach() for name, parameter in self._trained.items()},
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "generator": self._generator.get_state(),
            "update": self.update,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        put_back(self._model, state["parameters"])
        for optimiser, own in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(own)
        self._generator.set_state(state["generator"])
        self.update = state["update"]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def put_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give parameters the values they are named with."""
    own = dict(model.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)


@torch.no_grad()
def mean_loss(loss: Loss, examples: int, batch_size: int) -> float:
    """The mean loss over all examples in order, with corruptions that are the same every time."""
    generator = torch.Generator().manual_seed(0)
    starts = range(0, examples, batch_size)
    parts = [list(range(start, min(start + batch_size, examples))) for start in starts]
    return sum(float(loss(part, generator)) * len(part) for part in parts) / examples


@dataclass
class EarlyStopping:
    """Remembers the trained weights with the smallest validation loss, and says when it has not fallen for too long.

    `patience` counts evaluations without a smaller loss; None never stops.
    """

    model: nn.Module
    patience: int | None
    best: float = math.inf
    best_update: int = 0
    _worse: int = 0
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def observe(self, update: int, loss: float) -> bool:
        """Take in a validation loss; whether it is time to stop."""
        if loss < self.best:
            self.best, self.best_update, self._worse = loss, update, 0
            self._weights = {name: parameter.detach().clone() for name, parameter in trained(self.model).items()}
        else:
            self._worse += 1
        return self.patience is not None and self._worse >= self.patience

    def keep_best(self) -> None:
        """Put the best weights back."""
        put_back(self.model, self._weights)

    def state(self) -> dict[str, Any]:
        """What is remembered."""
        return {"best": self.best, "best_update": self.best_update, "worse": self._worse, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what a `state` does."""
        self.best, self.best_update, self._worse = state["best"], state["best_update"], state["worse"]
        self._weights = state["weights"]
