"""Numbers to trust a run by: computed now and then, with gradients off and no random number drawn."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from tokenq.learning.learner import Learner
from tokenq.learning.objectives import Soft
from tokenq.learning.values import Raw, log_ratio
from tokenq.ops.returns import lambda_returns
from tokenq.types import Batch


@torch.no_grad()
def diagnose(learner: Learner, batch: Batch) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of the policy at a batch's decision states, and its greedy action at each of them, [B, N].

    `q_max` is the largest value the objective would bootstrap from, `return_max` the largest return ever seen, both in
    scaled reward; nothing can be worth more than the latter.
    """
    values = learner.network(batch)
    scaled = learner.scaled(batch)
    bootstrap = learner.objective.bootstrap(values, scaled)[:, :-1][batch.decided]
    offset, scale = learner.scale.affine(learner.statistics)
    metrics = {
        "q_max": float(bootstrap.max()),
        "value_mean": float(bootstrap.mean()),
        "return_max": learner.statistics.largest * scale + offset,
        "entropy": float(values.entropy[:, :-1][batch.decided].mean()),
        "target_gap": learner.target.gap(),
    }
    return metrics, values.maximum[1][:, :-1].cpu().numpy()


@torch.no_grad()
def calibration(learner: Learner, batch: Batch) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "M"]]:
    """Predicted Q and realised return of every rated decision of a batch.

    The realised return follows the episode to its end. For a soft objective it pays for the distance from the
    reference along the way, because that is what its Q predicts.
    """
    values = learner.network(batch)
    scaled = learner.scaled(batch)
    following = torch.cat([batch.rated[:, 1:], torch.zeros_like(batch.rated[:, :1])], dim=1).float()
    correction = torch.zeros_like(batch.rewards)
    if isinstance(learner.objective, Soft):
        correction[:, :-1] = learner.objective.values.beta * log_ratio(values, batch)[:, 1:]
    value = learner.objective.bootstrap(values, scaled)[:, 1:]
    discounts = scaled.discounts(learner.objective.gamma)
    realised = lambda_returns(scaled.rewards, discounts, value, correction, following)
    predicted = learner.objective.values.q(values, batch)
    return predicted[batch.rated].cpu().numpy(), realised[batch.rated].cpu().numpy()


def signs_of_divergence(metrics: Mapping[str, float], calibrated: bool) -> list[str]:
    """Sentences that name what looks like divergence in a row of metrics; empty if nothing does."""
    signs = []
    excess = metrics["q_max"] - metrics["return_max"]
    if excess > 0.5 * max(1.0, abs(metrics["return_max"])):
        cause = "lower learning_rate, slow the target" + ("" if calibrated else ", or use calibrated values")
        signs.append(
            f"q_max {metrics['q_max']:.3g} exceeds the largest return seen {metrics['return_max']:.3g}: "
            f"values feed on themselves; {cause}"
        )
    if metrics.get("kl", 0.0) > 100:
        signs.append(f"kl {metrics['kl']:.0f} nats per completion: the policy left the reference; raise beta")
    return signs


def is_calibrated(learner: Learner) -> bool:
    """Whether the objective's values start at zero."""
    return not isinstance(learner.objective.values, Raw)
