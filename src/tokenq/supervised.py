"""Supervised learning: one generator that yields the loss of every update, and one that stops it in time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tokenq.ops import schedules

Loss = Callable[[Sequence[int], torch.Generator], Tensor]
"""The loss of some examples, named by their numbers; whatever it draws comes from the generator."""


@dataclass(frozen=True)
class Fit:
    """AdamW with a warm-up over a tenth of the updates, under a learning rate that falls as `decay` says."""

    updates: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    decay: schedules.Decay = "cosine"


def fit(model: nn.Module, loss: Loss, examples: int, settings: Fit, seed: int) -> Iterator[float]:
    """Make `loss` smaller over examples drawn with replacement by a generator of their own; one loss per update.

    Only parameters that require a gradient change. Dropout acts during an update and at no other time.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = settings.learning_rate
    optimiser = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay)
    for update in range(settings.updates):
        for group in optimiser.param_groups:
            decay = schedules.decay(settings.decay, settings.updates, update)
            group["lr"] = rate * decay * schedules.warmup(settings.updates // 10, update)
        chosen = torch.randint(examples, (settings.batch_size,), generator=generator).tolist()
        model.train()
        value = loss(chosen, generator)
        value.backward()
        model.eval()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        yield float(value.detach())


@torch.no_grad()
def mean_loss(loss: Loss, examples: int, batch_size: int) -> float:
    """The mean loss over all examples in order, with corruptions that are the same every time."""
    generator = torch.Generator().manual_seed(0)
    starts = range(0, examples, batch_size)
    parts = [list(range(start, min(start + batch_size, examples))) for start in starts]
    return sum(float(loss(part, generator)) * len(part) for part in parts) / examples


@dataclass
class EarlyStopping:
    """Remembers the weights with the smallest validation loss, and says when it has not fallen for too long.

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
            self._weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self._worse += 1
        return self.patience is not None and self._worse >= self.patience

    def restore(self) -> None:
        """Put the best weights back."""
        if self._weights:
            self.model.load_state_dict(self._weights)
