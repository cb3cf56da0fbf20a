"""Implausible tokens held down: what an objective adds to its loss where the data say nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.learning.values import ActionValues, TokenValues
from tokenq.types import Batch


@dataclass(frozen=True)
class Held:
    """Tokens that the reference finds implausible are held down: nobody tried them, so no data ever would.

    What is learned of the others moves their logits too, as all share one trunk, and a token that drifted up makes its
    state look valuable and is said in the end. Together they may be as probable as they were to the reference, or as
    `probability`, and the loss grows by ½·(β·x)², where x is by how many nats they are beyond that.
    """

    k: int = 8
    """Most probable tokens of the reference that are stored per state, >= 1; all others are held."""
    probability: float = 0.01
    """So are those of the k that the reference finds less probable than this, in (0, 1)."""
    samples: int = 4
    """Held tokens drawn per decision to estimate the gradient, >= 1."""

    def __post_init__(self) -> None:
        for name in ("k", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= 1")
        if not 0 < self.probability < 1:
            raise ConfigError(f"probability: got {self.probability}, expected a number in (0, 1)")

    def excess(self, online: ActionValues, batch: Batch) -> Float[Tensor, "B N"]:
        """Nats of it, >= 0, at every decision. The gradient moves held tokens alone; one that was taken is not held."""
        if not isinstance(online, TokenValues):
            raise ConfigError("held: got an agent or a model with Q heads, expected a language model; leave it null")
        reference, taken = batch.reference, batch.actions.unsqueeze(-1)
        tokens, probability = reference.plausible[:, :-1], reference.plausible_probability[:, :-1]
        # Where there are fewer than k tokens, the first one fills up the row; none must count twice.
        again = tokens == tokens[..., :1]
        again[..., 0] = False
        left_out = (probability < self.probability) | (tokens == taken) | again
        known = torch.cat([taken, tokens.where(~left_out, taken)], dim=-1)
        kept = probability.masked_fill(left_out, 0).sum(-1) + (reference.logit - reference.logsumexp[:, :-1]).exp()
        allowed = (1 - kept).clamp(min=self.probability).log()
        share = online.rest(known, self.samples) - online.logsumexp[:, :-1]
        return (share - allowed).clamp(min=0)
