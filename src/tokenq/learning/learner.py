"""One gradient step: the only place where losses are reduced, weighted, clipped and turned into priorities."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenq.errors import ConfigError, Diverged
from tokenq.learning.microbatches import split
from tokenq.learning.objectives import Loss
from tokenq.learning.objectives import Target as TargetValues
from tokenq.learning.optimisers import divided, muon
from tokenq.learning.scaling import PerPrompt, RawRewards, ReturnStatistics, Standardise, WorstIsZero, returns_from
from tokenq.learning.target import Target
from tokenq.learning.values import ActionValues, Afterstates, Head, Heads, Logits, Raw
from tokenq.ops import schedules
from tokenq.types import Batch, Episode

Clock = Literal["decision", "turn"]
"""What a discount is for: every decision, or every turn of a conversation, however many tokens it has."""


@runtime_checkable
class Objective(Protocol):
    """From action values to one loss per decision."""

    @property
    def values(self) -> Raw | Logits | Head | Heads | Afterstates:
        """How logits become Q-values."""

    @property
    def gamma(self) -> float:
        """Discount per decision."""

    def loss(self, online: ActionValues, target: TargetValues, batch: Batch) -> Loss:
        """The loss of every decision."""

    def bootstrap(self, values: ActionValues, batch: Batch) -> Float[Tensor, "B S"]:
        """The state values that targets are made of."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW, Muon with AdamW, or plain stochastic gradient descent, with one learning-rate schedule for all parameters.

    Muon takes the matrices of the layers; what else there is, heads included, is left to AdamW.
    """

    learning_rate: float = 3e-4
    schedule: schedules.Decay = "constant"
    warmup_steps: int = 0
    max_steps: int = 1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    microbatches: int = 1
    optim: Literal["adamw", "muon", "sgd"] = "adamw"

    def factor(self, update: int) -> float:
        """What every learning rate is multiplied with at an update, in [0, 1]."""
        return schedules.decay(self.schedule, self.max_steps, update) * schedules.warmup(self.warmup_steps, update)


@dataclass(frozen=True, eq=False)
class Report:
    """What one update did: `metrics` for people, `priority` for the replay; both computed when they are asked for."""

    update: int
    numbers: dict[str, float | Tensor]
    losses: Sequence[Loss]
    rated: Bool[Tensor, "B N"]
    index: Int[Tensor, "B"]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Loss, gradient norms, mean error and mean value; NaN, null in the file, where nothing was rated."""
        count = self.rated.sum()
        q = torch.cat([loss.q for loss in self.losses])[self.rated].mean()
        return {
            **{name: float(number) for name, number in self.numbers.items()},
            "td_abs": float(self._error.sum() / count.clamp(min=1)),
            "q_mean": float(q),
        }

    @property
    def priority(self) -> Float[Tensor, "B"]:
        """The mean |error| of each episode's rated decisions."""
        return self._error.sum(1) / self.rated.sum(1).clamp(min=1)

    @cached_property
    def _error(self) -> Float[Tensor, "B N"]:
        error = torch.cat([(loss.q - loss.target).abs() for loss in self.losses])
        return error.masked_fill(~self.rated, 0)


class Learner:
    """Owns the online network, its optimisers, the target network and the running statistics of returns."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        target: Target,
        scale: RawRewards | WorstIsZero | Standardise | PerPrompt,
        optimisation: Optimisation,
        accelerator: Accelerator,
        clock: Clock = "decision",
    ) -> None:
        self.clock = clock
        self.network = network
        self.objective = objective
        self.target = target
        self.scale = scale
        self.optimisation = optimisation
        self.accelerator = accelerator
        self.statistics = ReturnStatistics()
        self.update_count = 0
        self.resting = (0, 0)
        """Updates from and before which the target's answers are computed at once: part of the state, since together
        they are rounded differently."""
        self.parts = _parts(network)
        self.head = objective.values
        self.optimisers = self._optimisers()
        for group in self._groups:
            group["base"] = group["lr"]

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        settings, heads = self.optimisation, self.parts["value_head"] | self.parts["q_heads"]
        rate, decay = settings.learning_rate, settings.weight_decay
        inner, rest = divided(self._policy, settings.optim)
        groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
        if heads:
            if not isinstance(self.head, Head | Heads | Afterstates):
                unused = "the network has Q heads or a value head that this objective never trains"
                raise ConfigError(f"values: {unused}; load it without")
            groups.append({"params": list(heads.values()), "lr": self.head.learning_rate})
        kind = torch.optim.SGD if settings.optim == "sgd" else torch.optim.AdamW
        found: list[torch.optim.Optimizer] = [kind(groups, lr=rate, weight_decay=decay, fused=True)] if groups else []
        return [*found, muon(inner, rate, decay)] if inner else found

    @property
    def _policy(self) -> dict[str, nn.Parameter]:
        return self.parts["trunk"] | self.parts["readout"]

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def observe(self, episodes: Iterable[Episode]) -> None:
        """Take the returns of new episodes into the running statistics."""
        rated = (episode for episode in episodes if not np.isnan(episode.rewards).all())
        self.statistics.observe(returns_from(e, self.objective.gamma, self.clock == "turn") for e in rated)

    def scaled(self, batch: Batch) -> Batch:
        """The batch with its rewards and its clock as they are learned; see `learning.scaling`."""
        offset, scale = self.scale.affine(self.statistics)
        batch = batch if self.clock == "turn" else replace(batch, time=None)
        rewards = batch.rewards
        if (offset, scale) != (0.0, 1.0):
            rewards = rewards * scale + offset * (1 - batch.discounts(self.objective.gamma)) * batch.decided
        return replace(batch, rewards=rewards.masked_fill(~batch.rated, 0.0))

    def updates(self, batches: Sequence[Batch], since: int = 0) -> Iterator[Report]:
        """One update on each batch from number `since` on; those before it were made already.

        While the target network rests, it answers all of them at once: what a hard copy saves over a soft one.
        """
        first = self.update_count - since
        last = first + len(batches)
        while self.update_count < last:
            begin, end = self.resting
            if not begin <= self.update_count < end:
                begin, end = self.update_count, self.update_count + self.target.rest(self.update_count)
                self.resting = begin, end = begin, min(end, last)
            answers = self.target.network.together(batches[begin - first : end - first])
            for i in range(self.update_count, end):
                yield self.update(batches[i - first], answers[i - begin])

    def update(self, batch: Batch, lagging: ActionValues | None = None) -> Report:
        """One optimiser step on a batch; `lagging` are the target network's answers, if they are known already.

        Raises `Diverged`, before any parameter changes, if the loss or a gradient is not finite.
        """
        batch = self.scaled(batch)
        factor = self.optimisation.factor(self.update_count)
        for group in self._groups:
            group["lr"] = group["base"] * factor
        total = batch.rated.sum().clamp(min=1)
        if lagging is not None and self.optimisation.microbatches == 1:
            parts = [self._backward(batch, total, lambda: lagging)]
        else:
            parts = [self._backward(part, total) for part in split(batch, self.optimisation.microbatches)]
        losses = [loss for _, loss in parts]
        norms = {name: _norm(part.values()) for name, part in self.parts.items() if part}
        loss = torch.stack([mean for mean, _ in parts]).sum()
        if not bool(torch.stack([loss, *norms.values()]).isfinite().all()):
            self._refuse(loss, norms)
        self._clip(norms)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.update_count += 1
        self.target.follow(self.update_count)
        numbers: dict[str, float | Tensor] = {"loss": loss, "learning_rate": self.optimisation.learning_rate * factor}
        numbers |= {f"grad_norm/{name}": norm for name, norm in norms.items()}
        numbers["target_lag"] = self.target.lag
        return Report(self.update_count, numbers, losses, batch.rated, batch.index)

    def _refuse(self, loss: Tensor, norms: dict[str, Tensor]) -> NoReturn:
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        found = {"loss": float(loss)} | {f"grad_norm/{name}": float(norm) for name, norm in norms.items()}
        raise Diverged(f"update {self.update_count + 1}: loss or gradient is not finite ({found}); lower learning_rate")

    def _backward(self, batch: Batch, total: Tensor, target: TargetValues | None = None) -> tuple[Tensor, Loss]:
        online = self.network(batch)
        loss = self.objective.loss(online, target or (lambda: self.target_values(batch)), batch)
        weighted = loss.per_decision * batch.weight.unsqueeze(1)
        mean = weighted.masked_fill(~batch.rated, 0).sum() / total
        self.accelerator.backward(mean)
        return mean.detach(), loss

    @torch.no_grad()
    def target_values(self, batch: Batch) -> ActionValues:
        """The target network's answers, without gradient."""
        answers: ActionValues = self.target.network(batch)
        return answers

    def _clip(self, norms: dict[str, Tensor]) -> None:
        norm = torch.stack([norms[name] for name in ("trunk", "readout") if name in norms]).norm()
        nn.utils.clip_grads_with_norm_(self._policy.values(), self.optimisation.max_grad_norm, norm)
        if isinstance(self.head, Head | Heads | Afterstates):
            part = "value_head" if isinstance(self.head, Head) else "q_heads"
            nn.utils.clip_grads_with_norm_(self.parts[part].values(), self.head.max_grad_norm, norms[part])


def _parts(network: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    readout = getattr(getattr(network, "readout", None), "weight", None)
    parts: dict[str, dict[str, nn.Parameter]] = {"trunk": {}, "readout": {}, "value_head": {}, "q_heads": {}}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            owner = name.partition(".")[0]
            other = "readout" if parameter is readout else "trunk"
            parts[owner if owner in ("value_head", "q_heads") else other][name] = parameter
    return parts


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
