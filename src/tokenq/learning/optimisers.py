"""The optimisers of supervised learning: AdamW, or Muon for the matrices of the layers and AdamW for the rest."""

import re
from collections.abc import Mapping
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
    """AdamW for all parameters, given by name, or Muon for the matrices of the layers and AdamW for the rest.

    Muon (Jordan et al. 2024) makes the update of a matrix orthogonal; scaled as by Liu et al. 2025 (arXiv 2502.16982,
    eq. 4), it moves weights as far as AdamW does, so that one learning rate serves both.

    Raises:
        ConfigError: Muon is asked for, and no matrix of a layer is trained.
    """
    muon = optim == "muon"
    inner = {name: p for name, p in parameters.items() if muon and p.ndim == 2 and LAYER.search(name)}
    if muon and not inner:
        raise ConfigError("optim: got muon, but no matrix of a layer is trained; expected adamw")
    rest = [parameter for name, parameter in parameters.items() if name not in inner]
    found: list[torch.optim.Optimizer] = []
    if rest:
        found.append(torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay))
    if inner:
        settings: Any = {"lr": learning_rate, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        found.append(torch.optim.Muon(inner.values(), **settings))
    return found
