"""A table: one value for every discrete state and action, nothing shared between states."""

from dataclasses import dataclass

import torch
from torch import nn

from tokenq.errors import ConfigError
from tokenq.nets.control import ControlQ
from tokenq.nets.readouts import Spread
from tokenq.types import Spaces


@dataclass(frozen=True)
class Table:
    """One value for every state and action; for discrete observations."""

    initial: float = 0.0
    """Every value at the start, in reward; above what can be earned, untried actions look best and are tried."""

    def build(self, spaces: Spaces, spread: Spread | None = None) -> ControlQ:
        """A fresh table; raises `ConfigError` for observations that cannot be counted, and for distributions."""
        if spread is not None:
            raise ConfigError("network: got table for an objective of distributions, expected mlp; or use dqn")
        if spaces.states is None:
            raise ConfigError(
                f"network: got table for observations of shape {spaces.shape}, expected discrete ones (Discrete); "
                "set network to mlp"
            )
        values = torch.full((spaces.states, spaces.actions), float(self.initial))
        return ControlQ(nn.Sequential(nn.Embedding.from_pretrained(values, freeze=False)))
