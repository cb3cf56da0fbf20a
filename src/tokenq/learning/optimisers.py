"""The optimisers of language models: AdamW, or Muon for the matrices of the layers and AdamW for the rest."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from tokenq.errors import ConfigError

Optimiser = Literal["adamw", "muon"]

LAYER = re.compile(r"\.\d+\.")
"""In the names of parameters that belong to one layer of several."""


def optimisers(
    parameters: Mapping[str, nn.Parameter], optim: Optimiser, learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Those of supervised learning: AdamW for all parameters, given by name, or Muon for the matrices of the layers.

    Raises `ConfigError` where `divided` does.
    """
    inner, rest = divided(parameters, optim)
    found: list[torch.optim.Optimizer] = []
    if rest:
        found.append(torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay))
    if inner:
        found.append(muon(inner, learning_rate, weight_decay))
    return found


def divided(parameters: Mapping[str, nn.Parameter], optim: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What Muon takes of parameters that are given by name, and the rest; without `muon` all is rest.

    Muon is for the matrices of the layers; T5's table of relative positions, which stands in one, counts as such.

    Raises:
        ConfigError: Muon is asked for, and no matrix of a layer is trained.
    """
    if optim != "muon":
        return [], list(parameters.values())
    inner = {name: p for name, p in parameters.items() if p.ndim == 2 and LAYER.search(name)}
    if not inner:
        raise ConfigError("optim: got muon, but no matrix of a layer is trained; expected adamw")
    return list(inner.values()), [p for name, p in parameters.items() if name not in inner]


def muon(matrices: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024), which makes the update of a matrix orthogonal.

    Scaled as by Liu et al. 2025 (arXiv 2502.16982, eq. 4), it moves weights as far as AdamW does, so that one learning
    rate serves both.
    """
    settings: Any = {"lr": learning_rate, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
    return torch.optim.Muon(matrices, **settings)
