"""Several runs of one configuration that differ by their seeds: their figures together, with intervals over runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenq.config.control import ControlConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.evaluation.intervals import mean_with_interval
from tokenq.run.control import is_agent
from tokenq.run.folder import changes, finished_config

WHEN = ("before", "after", "gain")
"""What a run is measured at, and the difference where it is estimated by itself."""
ENDS = ("_low", "_high")


def seeds_of(runs: Sequence[str]) -> list[int]:
    """The seeds of runs.

    Raises:
        CheckpointError: a folder is none of a run.
        ConfigError: two of them have the same seed, or differ in anything that changes what is learned.
    """
    configs = [_config(run) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        differing = [key for key in changes(configs[0], config) if key != "seed"]
        if differing:
            raise ConfigError(
                f"runs: {run} differs from {runs[0]} in {', '.join(differing[:3])}, expected in seed alone; "
                "evaluate them apart"
            )
    seeds = [config.seed for config in configs]
    twice = [run for i, run in enumerate(runs) if seeds[i] in seeds[:i]]
    if twice:
        raise ConfigError(f"runs: {twice[0]} has the seed of one before it, expected runs with seeds of their own")
    return seeds


def _config(run: str) -> TrainConfig | ControlConfig:
    return finished_config(ControlConfig, run) if is_agent(run) else finished_config(TrainConfig, run)


def over_seeds(runs: Sequence[str], seeds: Sequence[int], each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over runs with 95 % bootstrap intervals of these means, and `each`, the figures of every run.

    A figure that a run does not have, or that is not defined there, has no mean: NaN.
    """
    found: dict[str, Any] = {"runs": list(runs), "seeds": list(seeds)}
    for when in (name for name in WHEN if name in each[0]):
        parts = [figures[when] for figures in each]
        found[when] = None if None in parts else _means(parts)
    bounds = [figures["bounds"] for figures in each if figures.get("bounds")]
    return found | ({"bounds": _means(bounds)} if len(bounds) == len(each) else {}) | {"each": list(each)}


def _means(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = [name for name in parts[0] if not name.endswith(ENDS)]
    means: dict[str, float] = {}
    for name in names:
        values = [part.get(name) for part in parts]
        means |= mean_with_interval(name, np.array([np.nan if value is None else value for value in values], float))
    return means
