"""The target network: which parameters lag behind, and the copy that holds them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tokenq.errors import ConfigError
from tokenq.learning.sync import Adaptive, Clock, NoTarget, Pair, Periodic, Polyak, RandomPartial

# Of a Transformer, or of a recurrent network of torch.
_LAYER = re.compile(r"\.(\d+)\.|_l(\d+)$")

HEADS = ("value_head.", "q_heads.")
"""How the names of parameters begin that no language model has."""

Sync = NoTarget | Periodic | Polyak | RandomPartial | Adaptive


@runtime_checkable
class Laggable(Protocol):
    """A network that can make a partly shared copy of itself."""

    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters by name; a tied one under its first name, or under each."""

    def lagging_copy(self, lagged: Callable[[str], bool]) -> Any:
        """A copy that owns what `lagged` accepts by name (`readout` stands for the output matrix), shares the rest."""


@dataclass(frozen=True)
class Full:
    """Every parameter lags."""

    def lagged(self, names: list[str]) -> Callable[[str], bool]:
        """Which parameter names lag."""
        return lambda name: True


@dataclass(frozen=True)
class Adapter:
    """Only the LoRA adapter lags (and heads, if there are any); the frozen base is shared."""

    def lagged(self, names: list[str]) -> Callable[[str], bool]:
        """Which parameter names lag."""
        if not any("lora_" in name for name in names):
            raise ConfigError(
                "target.scope: got adapter for a model without adapters; set use_peft to true or use full"
            )
        return lambda name: "lora_" in name or name.startswith(HEADS)


@dataclass(frozen=True)
class LastLayers:
    """The last k transformer layers, the final norm and everything above them lag; the trunk below is shared."""

    k: int = 1
    """Number of layers that lag, >= 1."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k: got {self.k}, expected an integer >= 1")

    def lagged(self, names: list[str]) -> Callable[[str], bool]:
        """Which parameter names lag."""
        names = [name for name in names if not name.startswith(HEADS)]
        decoder = any("decoder." in name for name in names)
        layers = [name for name in names if not (decoder and "encoder." in name)]  # with a decoder, its layers count
        numbers = {name: int(m.group(1) or m.group(2)) for name in layers if (m := _LAYER.search(name))}
        depth = max(numbers.values(), default=-1) + 1
        if self.k > depth:
            raise ConfigError(f"k: got {self.k} layers to lag, expected at most {depth}, the depth of this model")
        last = max((i for i, name in enumerate(names) if name in numbers), default=0)
        # OPT lists its final norm before its layers.
        final = (name for name in layers if name not in numbers and "final" in name)
        above = {*names[last + 1 :], *final, "readout"}
        return lambda name: name in above or name.startswith(HEADS) or numbers.get(name, -1) >= depth - self.k


@dataclass(frozen=True)
class HeadOnly:
    """Only the Q heads lag, or without them the output matrix and the value head; all hidden states are shared."""

    tag: ClassVar[str] = "head"

    def lagged(self, names: list[str]) -> Callable[[str], bool]:
        """Which parameter names lag."""
        if any(name.startswith("q_heads.") for name in names):
            return lambda name: name.startswith("q_heads.")
        parts = ("lm_head", "classifier", "qa_outputs", "score.")
        return lambda name: name == "readout" or name.startswith(HEADS) or any(part in name for part in parts)


@dataclass(frozen=True)
class TargetConfig:
    """The target network: when it follows (`sync`), and what of it is a copy at all (`scope`)."""

    sync: Sync = field(default_factory=Polyak)
    """When and how the target follows the online network."""
    scope: Full | Adapter | LastLayers | HeadOnly = field(default_factory=Full)
    """Which parameters lag; the others are shared and cost nothing."""


class Target:
    """A network that lags behind `online`, with its age.

    `network` is what targets are computed with: a partly shared copy, or `online` itself under `NoTarget`.
    """

    def __init__(self, online: Laggable, config: TargetConfig, seed: int) -> None:
        self.config = config
        self.pairs: list[Pair] = []
        self.network: Any = online
        if not isinstance(config.sync, NoTarget):
            self.network = online.lagging_copy(config.scope.lagged([name for name, _ in online.named_parameters()]))
            self.pairs = _pairs(online, self.network)
        self.generator = torch.Generator().manual_seed(seed)
        self.ages = [0.0] * len(self.pairs)
        self.last_sync = 0
        self.syncs = 0

    @property
    def bytes(self) -> int:
        """Memory that the lagging parameters cost."""
        return sum(pair.lagging.numel() * pair.lagging.element_size() for pair in self.pairs)

    @property
    def lag(self) -> float:
        """Mean age of the lagging parameters, in updates, weighted by their number."""
        sizes = [pair.lagging.numel() for pair in self.pairs]
        return sum(a * n for a, n in zip(self.ages, sizes, strict=True)) / max(sum(sizes), 1)

    @torch.no_grad()
    def gap(self) -> float:
        """Relative distance ‖θ − θ̄‖ / ‖θ‖ over the lagging parameters."""
        distance = sum(float((p.online - p.lagging).double().square().sum()) for p in self.pairs)
        size = sum(float(p.online.double().square().sum()) for p in self.pairs)
        return float((distance / size) ** 0.5) if size else 0.0

    def rest(self, update: int) -> int:
        """How many updates after number `update` are made before anything can move, >= 1."""
        return self.config.sync.rest(self._clock(update))

    def _clock(self, update: int) -> Clock:
        return Clock(update, update - self.last_sync, self.syncs, self.gap)

    @torch.no_grad()
    def follow(self, update: int) -> bool:
        """Let the rule act after update number `update` (from 1); whether anything moved."""
        moved = self.config.sync.move(self._clock(update), self.pairs, self.generator)
        self.ages = [(1 - share) * (age + 1) for share, age in zip(moved, self.ages, strict=True)]
        if any(moved):
            self.last_sync, self.syncs = update, self.syncs + 1
        return any(moved)

    def tensors(self) -> dict[str, Tensor]:
        """The lagging parameters by name, and the state of the rule's random numbers."""
        return {pair.name: pair.lagging for pair in self.pairs} | {"generator": self.generator.get_state()}

    def counters(self) -> dict[str, Any]:
        """Everything else that the future depends on, as JSON values."""
        return {"ages": self.ages, "last_sync": self.last_sync, "syncs": self.syncs}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """The inverse of `tensors` and `counters`; periods go on as if nothing had happened."""
        for pair in self.pairs:
            pair.lagging.copy_(tensors[pair.name])
        self.generator.set_state(tensors["generator"])
        self.ages, self.last_sync, self.syncs = counters["ages"], counters["last_sync"], counters["syncs"]


def _pairs(online: Laggable, copy: Laggable) -> list[Pair]:
    # An output matrix that is tied in `online` may have a name of its own in the copy.
    ours = dict(online.named_parameters(remove_duplicate=False))
    return [Pair(name, ours[name], lagging) for name, lagging in copy.named_parameters() if lagging is not ours[name]]
