"""The pictures a run leaves behind: its curves, and how well its values predict returns."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from tokenq.errors import DataError
from tokenq.evaluation.off_policy import Decile

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's colours, which stay apart for every kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DPI = 100
_WIDTH = 12.0
_PANEL_HEIGHT = 3.6


@dataclass(frozen=True)
class _Panel:
    """One set of axes: metric -> name in the legend; `right` has a scale of its own."""

    title: str
    left: Mapping[str, str]
    right: Mapping[str, str]
    unit: str = ""
    right_unit: str = ""
    logarithmic: bool = False


_PANELS = (
    _Panel("Return", {"return": "training", "eval_return": "evaluation, greedy"}, {}, "return per episode"),
    _Panel(
        "Reward",
        {"reward": "training", "eval_reward": "evaluation", "eval_greedy_reward": "evaluation, greedy"},
        {},
        "reward per completion",
    ),
    _Panel("Loss", {"loss": "loss"}, {"td_abs": "mean |TD error|"}, "loss", "TD error (scaled reward)"),
    _Panel("Policy", {"kl": "KL to the reference"}, {"entropy": "entropy"}, "KL (nats)", "entropy (nats)"),
    _Panel(
        "Values",
        {
            "q_max": "max Q",
            "q_mean": "mean Q",
            "value_mean": "mean V",
            "return_max": "max return seen",
        },
        {},
        "scaled reward",
    ),
    _Panel(
        "Gradient norms",
        {
            "grad_norm/trunk": "trunk",
            "grad_norm/readout": "readout",
            "grad_norm/value_head": "value head",
            "grad_norm/q_heads": "Q heads",
        },
        {},
        "norm before clipping",
        logarithmic=True,
    ),
    _Panel(
        "Target network",
        {"target_lag": "mean age"},
        {"target_gap": "gap to the online network"},
        "age (updates)",
        "relative gap",
    ),
)


def draw_curves(metrics_path: Path, png_path: Path) -> None:
    """Draw the curves of a run, 1200 pixels wide: one panel for each topic that has numbers.

    Args:
        metrics_path: The run's metrics.jsonl.
        png_path: Where the picture goes.

    Raises:
        DataError: No such file, a malformed row, or no metric at all.
    """
    rows = _read_rows(metrics_path)
    panels = [panel for panel in _PANELS if any(_points(rows, key)[0] for key in (*panel.left, *panel.right))]
    if not panels:
        raise DataError(f"{metrics_path}: got {len(rows)} rows without a metric to draw, expected at least one")
    _draw_panels([(panel, rows) for panel in panels], png_path)


def draw_losses(stages: Mapping[str, Path], png_path: Path) -> None:
    """Draw the losses of supervised stages, one panel for each, like `draw_curves`.

    Args:
        stages: The metrics.jsonl of each stage, by its name.
        png_path: Where the picture goes.

    Raises:
        DataError: No such file, or a malformed row.
    """
    lines = {"loss": "training", "validation_loss": "validation"}
    _draw_panels(
        [(_Panel(name.capitalize(), lines, {}, "nats"), _read_rows(path)) for name, path in stages.items()], png_path
    )


def _draw_panels(panels: Sequence[tuple[_Panel, Rows]], png_path: Path) -> None:
    columns = min(2, len(panels))
    height = _PANEL_HEIGHT * (lines := math.ceil(len(panels) / columns))
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    # Fixed margins, in inches: a layout that is computed takes longer than everything else in the picture.
    figure.subplots_adjust(
        left=0.9 / _WIDTH, right=1 - 0.9 / _WIDTH, bottom=0.55 / height, top=1 - 0.4 / height, wspace=0.36, hspace=0.36
    )
    for i, (panel, rows) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, i + 1)
        _draw_panel(axes, panel, rows)
        _mark_online(axes, rows)
    figure.savefig(png_path)


def draw_calibration(
    predicted: Float[np.ndarray, "n"], realised: Float[np.ndarray, "n"], whose: str, png_path: Path, bins: int = 10
) -> None:
    """Draw predicted values against realised returns, by deciles of the prediction.

    Each point is one bin: its mean prediction and its mean return with two standard errors to each side. On the
    diagonal the values are right on average; above it they are too low.

    Args:
        predicted: What the values promised for n episodes, in units of the return.
        realised: What these episodes brought.
        whose: Which episodes they are, for the title.
        png_path: Where the picture goes.
        bins: How many groups of equal size; fewer where there are fewer episodes.

    Raises:
        DataError: No episode, or a number that is not finite.
    """
    if not len(predicted):
        raise DataError("calibration: got no episode, expected at least one")
    if not (np.isfinite(predicted).all() and np.isfinite(realised).all()):
        raise DataError("calibration: got a prediction or return that is NaN or infinite, expected finite numbers")
    groups = np.array_split(np.argsort(predicted, kind="stable"), min(bins, len(predicted)))
    centres = np.array([predicted[group].mean() for group in groups])
    means = np.array([realised[group].mean() for group in groups])
    errors = [2 * realised[group].std(ddof=1) / math.sqrt(len(group)) if len(group) > 1 else 0.0 for group in groups]
    title = f"Calibration over {len(predicted):,} decisions\nof {whose}"
    labels = ("predicted value", "mean ± 2 standard errors")
    _draw_beside_diagonal(centres, means, errors, title, labels, png_path)


def draw_deciles(deciles: Sequence[Decile], png_path: Path) -> None:
    """Draw what was predicted for tenths of the decisions against what they brought, with 95 % intervals."""
    centres = np.array([decile.predicted for decile in deciles])
    means = np.array([decile.realised.value for decile in deciles])
    below = means - [decile.realised.low for decile in deciles]
    above = np.array([decile.realised.high for decile in deciles]) - means
    title = f"Fitted values over {sum(decile.realised.n for decile in deciles):,} held-out turns"
    labels = ("predicted return from the turn on", "mean, 95 % interval")
    _draw_beside_diagonal(centres, means, [below, above], title, labels, png_path)


def _draw_beside_diagonal(
    predicted: np.ndarray, means: np.ndarray, errors: Any, title: str, labels: tuple[str, str], png_path: Path
) -> None:
    """Means with error bars against what was predicted; `labels` name the prediction and the bars."""
    figure = Figure(figsize=(6, 6), dpi=_DPI)
    axes = figure.add_axes((0.13, 0.1, 0.83, 0.81))
    low, high = min(predicted.min(), means.min()), max(predicted.max(), means.max())
    axes.plot([low, high], [low, high], color="grey", linestyle="--", label="perfectly calibrated")
    axes.errorbar(predicted, means, errors, fmt="o", color=_COLOURS[0], capsize=3, label=labels[1])
    axes.set(title=title, xlabel=labels[0], ylabel="realised return (mean)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(png_path)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected the metrics of a run") from error
    return [_parsed(line, f"{path} row {i}") for i, line in enumerate(lines, start=1)]


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: {error.msg}; expected one JSON object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("update"), int):
        raise DataError(f"{where}: expected a JSON object with a whole number 'update'")
    return row


def _points(rows: Rows, key: str) -> tuple[list[int], list[float]]:
    known = [(row["update"], row[key]) for row in rows if row.get(key) is not None]
    return [update for update, _ in known], [value for _, value in known]


def _draw_panel(axes: Axes, panel: _Panel, rows: Rows) -> None:
    colours = dict(zip((*panel.left, *panel.right), _COLOURS, strict=False))
    drawn = _draw_lines(axes, panel.left, panel.unit, rows, colours)
    if any(_points(rows, key)[0] for key in panel.right):
        drawn += _draw_lines(axes.twinx() if drawn else axes, panel.right, panel.right_unit, rows, colours)
    if panel.logarithmic and all(value > 0 for key in panel.left for value in _points(rows, key)[1]):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        axes.yaxis.set_major_formatter(LogFormatter())
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("update")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(alpha=0.3)
    # Beside the title, where no curve can run through it.
    axes.legend(
        handles=drawn,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderaxespad=0.2,
        ncols=len(drawn),
        columnspacing=1.0,
        handlelength=1.0,
        frameon=False,
        fontsize="small",
    )


def _draw_lines(axes: Axes, labels: Mapping[str, str], unit: str, rows: Rows, colours: Mapping[str, str]) -> list[Any]:
    drawn = []
    for key, label in labels.items():
        updates, values = _points(rows, key)
        if updates:
            marker = "o" if len(updates) < 30 else ""
            style = "--" if key == "return_max" else "-"
            drawn += axes.plot(
                updates, values, style, color=colours[key], marker=marker, markersize=3.5, linewidth=1.6, label=label
            )
    # With one line to a scale, the colour of its label says whose scale it is.
    axes.set_ylabel(unit, color=drawn[0].get_color() if len(labels) == 1 and drawn else "black")
    return drawn


def _mark_online(axes: Axes, rows: Rows) -> None:
    """A thin line where training from data ends and training with fresh completions begins."""
    phases = [row.get("phase") for row in rows]
    if "offline" in phases and "online" in phases:
        axes.axvline(rows[phases.index("online")]["update"], color="grey", linewidth=0.8, linestyle=":")
