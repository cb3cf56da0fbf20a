"""How sure a mean is."""

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000


def bootstrap_interval(values: Float[np.ndarray, "n"], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean (Efron & Tibshirani 1993, section 13.3), NaN without values.

    2,000 resamples from a generator with its own seed, so that the same values always give the same interval.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
