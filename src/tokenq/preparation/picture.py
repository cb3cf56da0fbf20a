"""The picture of a report: rows kept, removed and added by each step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tokenq.preparation.report import Step

# Okabe and Ito's colours, which stay apart for every kind of colour vision.
_KEPT, _REMOVED, _ADDED = "#0072B2", "#D55E00", "#009E73"
_DPI = 100
_WIDTH = 9.0
_BAR = 0.42


def draw_report(steps: Sequence[Step], path: Path) -> None:
    """Draw one bar per step from top to bottom, 900 pixels wide; the numbers stand beside the bars."""
    height = 1.3 + _BAR * len(steps)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    figure.subplots_adjust(left=0.19, right=0.8, bottom=0.55 / height, top=1 - 0.65 / height)
    axes = figure.add_subplot()
    at = np.arange(len(steps))
    added = np.array([sum(step.added.values()) for step in steps])
    removed = np.array([len(step.removed) for step in steps])
    kept = np.array([step.after for step in steps]) - added
    axes.barh(at, kept, color=_KEPT, label="kept")
    axes.barh(at, removed, left=kept + added, color=_REMOVED, label="removed")
    axes.barh(at, added, left=kept, color=_ADDED, label="added")
    for i, step in enumerate(steps):
        figures = [f"{step.after:,}"]
        figures += [f"−{removed[i]:,}"] if removed[i] else []
        figures += [f"+{added[i]:,}"] if added[i] else []
        axes.annotate(
            "  ".join(figures),
            (kept[i] + added[i] + removed[i], i),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            annotation_clip=False,
        )
    axes.set_yticks(at, [step.name for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1, int((kept + added + removed).max())))
    axes.set_xlabel("rows")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.savefig(path)
