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

    Raises `ConfigError` where `matrices_of_layers` does.
    """
    inner = matrices_of_layers(parameters) if optim == "muon" else {}
    rest = [parameter for name, parameter in parameters.items() if name not in inner]
    found: list[torch.optim.Optimizer] = []
    if rest:
        found.append(torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay))
    if inner:
        found.append(muon(inner.values(), learning_rate, weight_decay))
    return found


def matrices_of_layers(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """What Muon is for, with T5's table of relative positions, which stands in a layer.

    Raises `ConfigError` if there is none among the parameters, which are given by name.
    """
    inner = {name: p for name, p in parameters.items() if p.ndim == 2 and LAYER.search(name)}
    if not inner:
        raise ConfigError("optim: got muon, but no matrix of a layer is trained; expected adamw")
    return inner


def muon(matrices: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024), which makes the update of a matrix orthogonal.

    Scaled as by Liu et al. 2025 (arXiv 2502.16982, eq. 4), it moves weights as far as AdamW does, so that one learning
    rate serves both.
    """
    settings: Any = {"lr": learning_rate, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
    return torch.optim.Muon(matrices, **settings)
