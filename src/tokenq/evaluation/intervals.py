"""How sure a mean is, and how sure any other figure of many rows is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """A figure with its interval; all three numbers are NaN where no row defines it."""

    value: float
    """The figure over all rows."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Rows that it was taken from: those that define it."""
    signature: str | None = None
    """How it was computed, in the words of the library that defines it, for quoting; None where there is no such."""


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


def bootstrap(
    statistic: Callable[[Int[np.ndarray, "n"]], float], n: int, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of any figure of n rows, given as a function of row indices.

    The resamples are those of `bootstrap_interval`. A resample on which the figure is undefined (NaN) is left out;
    NaN without rows, or if all are left out.
    """
    if n == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    return _percentiles(np.array([statistic(rng.integers(n, size=n)) for _ in range(RESAMPLES)]), level)


def resample_counts(whose: Int[np.ndarray, "n"], seed: int = 0) -> Int[np.ndarray, "r n"]:
    """How often each of n rows is in each resample, for figures of all resamples at once.

    Rows with the same number in `whose` belong together and are drawn together (Davison & Hinkley 1997, section 3.8);
    where all numbers differ, the resamples are those of `bootstrap_interval`.
    """
    rng = np.random.default_rng(seed)
    names, cluster = np.unique(whose, return_inverse=True)
    k = len(names)
    return np.stack([np.bincount(rng.integers(k, size=k), minlength=k)[cluster] for _ in range(RESAMPLES)])


def resampled_score(figures: Float[np.ndarray, "r"], value: float, n: int, level: float = 0.95) -> Score:
    """A figure with the percentile interval of what it is on resamples; those where it is NaN are left out."""
    return Score(value, *_percentiles(figures, level), n)


def _percentiles(figures: Float[np.ndarray, "r"], level: float) -> tuple[float, float]:
    defined = figures[~np.isnan(figures)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def jackknife_interval(value: float, left_out: Float[np.ndarray, "n"], level: float = 0.95) -> tuple[float, float]:
    """The value ± z times the jackknife standard error (Efron & Tibshirani 1993, eq. 11.5); NaN below two rows.

    `left_out[i]` is the figure of all rows but row i. For figures that count distinct things: a resample with
    replacement holds copies, and the bootstrap would take them for repetition.
    """
    n = len(left_out)
    if n < 2:
        return float("nan"), float("nan")
    error = float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))
    half = NormalDist().inv_cdf((1 + level) / 2) * error
    return value - half, value + half


def mean_score(values: Float[np.ndarray, "n"], seed: int = 0, level: float = 0.95) -> Score:
    """The mean over the rows that define the figure; a row of NaN does not."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return Score(float("nan"), float("nan"), float("nan"), 0)
    return Score(float(defined.mean()), *bootstrap_interval(defined, seed, level), len(defined))


def pooled_score(
    table: Float[np.ndarray, "n k"],
    statistic: Callable[[Float[np.ndarray, "k"]], float],
    seed: int = 0,
    level: float = 0.95,
    signature: str | None = None,
) -> Score:
    """A figure of the column sums of a table with one row of counts a text: BLEU, F1, perplexity.

    A resampled corpus is scored from its sums, so no text is read twice.
    """
    n = len(table)
    interval = bootstrap(lambda rows: statistic(np.bincount(rows, minlength=n) @ table), n, seed, level)
    return Score(statistic(table.sum(axis=0)), *interval, n, signature)


def mean_with_interval(name: str, values: Float[np.ndarray, "n"]) -> dict[str, float]:
    """The mean under its name and its 95 % interval beside it; NaN where there is nothing."""
    low, high = bootstrap_interval(values)
    return {name: float(values.mean()) if len(values) else float("nan"), f"{name}_low": low, f"{name}_high": high}


def with_intervals(scores: Mapping[str, Score]) -> dict[str, float]:
    """Figures and the ends of their intervals (`name`, `name_low`, `name_high`)."""
    return {
        f"{name}{end}": value
        for name, score in scores.items()
        for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
    }
