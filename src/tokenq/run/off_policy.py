"""Off-policy evaluation of a finished run: what its model and its start would earn, from held-out logs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenq.config.evaluate import EvaluateConfig
from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.intervals import resample_counts, with_intervals
from tokenq.evaluation.off_policy import (
    FEW,
    Estimates,
    deciles,
    estimate,
    fitted_score,
    logged_episodes,
    logged_score,
    predictions,
)
from tokenq.learning.fitted_q import FittedQ
from tokenq.nets.encoder import QNetwork
from tokenq.nets.loading import load_model, load_tokenizer, q_network
from tokenq.replay.offline import episodes_from_rows
from tokenq.replay.rows import matching, read_rows
from tokenq.run.figures import draw_deciles
from tokenq.run.loaded import Loaded
from tokenq.types import Episode

PICTURE = "calibration_deciles.png"


def estimate_off_policy(config: EvaluateConfig, settings: FittedQ, run: Loaded) -> dict[str, Any]:
    """Estimates of the trained model, and of the one that stands in for whoever wrote the logs: `before`.

    Values are fitted on the episodes of `config.fitted_on`, or on those that the run learned from, and applied to those
    of `config.dataset`. Leaves a picture of how well those of the start predict what the held-out episodes earned.
    """
    train, held_out = _episodes(config, settings, run)
    start = run.start() if config.behaviour is None else _behaviour(config.behaviour, run)
    if start is None:
        raise ConfigError(
            f"off_policy: {config.run} has kept no start, which stands in for who wrote the logs; name --behaviour"
        )
    gamma = _gamma(settings, run)
    whose = _clusters(held_out, settings.cluster, config)
    counts = resample_counts(whose, config.seed)
    figures: dict[str, Any] = {"run": config.run, "behaviour": config.behaviour, "fitted_on": _fitted_on(config, run)}
    figures |= {"dataset": config.dataset, "episodes": len(held_out), "seed": config.seed, "gamma": gamma}
    found: dict[str, Estimates] = {}
    for name, policy in (("before", start), ("after", run.network)):
        fitted_on, logged = (logged_episodes(start, policy, episodes) for episodes in (train, held_out))
        heads = settings.fit(fitted_on, gamma, config.seed)
        found[name] = estimate(heads, logged, settings, gamma, counts, config.seed)
        if name == "before":
            figures["logged"] = with_intervals({"return": logged_score(logged, gamma, counts)})
            predicted, realised, number = predictions(heads, logged, gamma)
            _draw(predicted, realised, whose[number], config.seed, run.folder / PICTURE)
    for name, estimates in found.items():
        figures[name] = with_intervals(estimates.scores)
        figures[name]["effective_sample_size"] = estimates.effective_sample_size
        figures[name]["cut_share"] = estimates.cut_share
    # Start by start: how games differ is the largest part of either interval, and both policies have the same games.
    gain = found["after"].values - found["before"].values
    figures["gain"] = with_intervals({"fqe": fitted_score(gain, counts, config.seed)})
    _warn(found["after"].effective_sample_size, len(held_out))
    return figures


def _behaviour(folder: str, run: Loaded) -> QNetwork:
    """The model that stands in for who wrote the logs; its tokens must be those of the run."""
    trusted = run.config.trust_remote_code
    model = load_model(folder, run.config.dtype, trusted)
    if load_tokenizer(folder, run.config.chat_template, trusted).get_vocab() != run.tokenizer.get_vocab():
        raise ConfigError(f"behaviour: {folder} has other tokens than {run.folder}, expected one with the same")
    return q_network(model)


def _gamma(settings: FittedQ, run: Loaded) -> float:
    """The discount of a token."""
    gamma = run.config.objective.gamma if settings.gamma is None else settings.gamma
    if settings.gamma is None and run.config.clock == "turn" and gamma < 1:
        raise ConfigError(
            f"off_policy: {run.folder} discounts turns (clock: turn, gamma {gamma}), which estimates by tokens cannot; "
            "name the discount of a token: --off_policy.gamma 1"
        )
    return gamma


def _episodes(config: EvaluateConfig, settings: FittedQ, run: Loaded) -> tuple[list[Episode], list[Episode]]:
    """Episodes to fit on and held-out ones."""
    logs, held_out = _fitted_on(config, run), config.dataset
    if logs is None or held_out is None:
        raise ConfigError(f"off_policy: {config.run} learned from no scored rows; name some with --fitted_on")
    for source, what in (
        (run.config.dataset, "the run learned from"),
        (run.config.finetune.dataset, "the run was fine-tuned on"),
        (logs, "values are fitted on"),
    ):
        if source is not None and _files(source) & _files(held_out):
            raise ConfigError(f"dataset: got {held_out}, which {what}, expected rows that were never seen")

    def read(source: str) -> list[Episode]:
        return episodes_from_rows(read_rows(source), run.writer.codec, source, run.writer.context)

    fitted_on, tested = read(logs), read(held_out)
    chosen = np.random.default_rng(config.seed).permutation(len(fitted_on))[: settings.episodes]
    return [fitted_on[i] for i in chosen], tested


def _fitted_on(config: EvaluateConfig, run: Loaded) -> str | None:
    return run.config.dataset if config.fitted_on is None else config.fitted_on


def _files(source: str) -> set[Path]:
    return {Path(file).resolve() for file in matching(source)}


def _clusters(episodes: Sequence[Episode], column: str | None, config: EvaluateConfig) -> np.ndarray:
    """Which conversation each episode is of, as numbers."""
    if column is None:
        return np.arange(len(episodes))
    for number, episode in enumerate(episodes, start=1):
        if column not in episode.columns:
            known = ", ".join(sorted(episode.columns)) or "none"
            got = f"off_policy.cluster: got no column {column!r}, expected one of {known}"
            raise DataError(f"{config.dataset} episode {number}: {got}")
    return np.unique([str(episode.columns[column]) for episode in episodes], return_inverse=True)[1]


def _draw(predicted: np.ndarray, realised: np.ndarray, whose: np.ndarray, seed: int, path: Path) -> None:
    if len(predicted) == 0:
        print("no held-out episode came to its end: what they earned cannot be compared", file=sys.stderr)
        return
    draw_deciles(deciles(predicted, realised, whose, seed), path)
    print(f"{path} shows how well fitted values of the start predict what the logged episodes earned", file=sys.stderr)


def _warn(effective: float, episodes: int) -> None:
    """Say plainly when importance weights are not worth reading."""
    print(f"effective sample size of the trained model: {effective:.1f} of {episodes} episodes", file=sys.stderr)
    if effective == 0:
        print(
            "warning: the trained model would have written none of the held-out episodes (guidance.top_k or min_p "
            "leaves a token out of each): wis, pdis and wdr are not defined",
            file=sys.stderr,
        )
    elif effective < FEW:
        print(
            f"warning: below {FEW}, a handful of episodes decides wis, pdis, dr and wdr; do not believe them, and fqe "
            "only as far as calibration_deciles.png is on the diagonal",
            file=sys.stderr,
        )
