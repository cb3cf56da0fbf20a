"""From action values or logits to the log-probabilities that a behaviour policy draws from."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def boltzmann(
    values: Float[Tensor, "*B A"], temperature: float, top_k: int = 0, top_p: float = 1.0
) -> Float[Tensor, "*B A"]:
    """Log-probabilities of softmax(values / temperature), cut to the `top_k` best and to the nucleus `top_p`.

    `top_k` = 0 and `top_p` = 1 cut nothing. Nucleus: the smallest set of best actions whose probability reaches
    `top_p` (Holtzman et al. 2020, section 3.1); the best action always stays.
    """
    logits = values.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1)  # exactly k, even where several tokens tie for the last place
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probability = ordered.softmax(dim=-1)
        beyond = probability.cumsum(dim=-1) - probability >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logits.log_softmax(dim=-1)


def prior_guided(
    logits: Float[Tensor, "*B A"], values: Float[Tensor, "*B A"], beta: float, top_k: int = 0, min_p: float = 0.0
) -> Float[Tensor, "*B A"]:
    """Log-probabilities of π(a) ∝ π_β(a)·exp(β·Q(a)), where π_β is the softmax of `logits`, cut.

    The policy extraction of Snell et al. 2023 (ILQL, arXiv 2206.11871). Their advantage Q − V makes the same policy: V
    is one number for all actions. Of π_β the `top_k` best actions stay (0: all), and of these the ones that are at
    least `min_p` times as probable as the best (Fujimoto et al. 2019, arXiv 1910.01708: values of actions that
    the data do not hold are not to be believed). 0 cuts nothing.
    """
    prior = boltzmann(logits, 1.0, top_k)
    if min_p > 0:
        prior = prior.masked_fill(prior < prior.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)
    # What is impossible has no value: 0 · (−∞) would be no number.
    return (prior + beta * values.float().masked_fill(prior == -torch.inf, 0.0)).log_softmax(dim=-1)


def epsilon_greedy(values: Float[Tensor, "*B A"], epsilon: float) -> Float[Tensor, "*B A"]:
    """Log-probabilities of the ε-greedy policy: ε/A on every action and 1 − ε more on the best (the first if tied)."""
    actions = values.shape[-1]
    floor = math.log(epsilon) - math.log(actions) if epsilon > 0 else -math.inf
    best = values.argmax(dim=-1, keepdim=True)
    uniform = torch.full_like(values, floor, dtype=torch.float32)
    return uniform.scatter(-1, best, math.log(1 - epsilon + epsilon / actions))
