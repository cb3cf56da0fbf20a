"""The textbook and the default side by side, drawn from finished runs of `textbook_dqn` and `walks_online`.

python benchmarks/learning.py textbook_dqn walks_online && python benchmarks/side_by_side.py
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "benchmarks"
PICTURE = ROOT / "docs" / "figures" / "textbook.png"
METHODS = {"textbook_dqn": "textbook DQN: raw logits, hard maximum", "walks_online": "soft: calibrated logits"}
PANELS = {
    "eval_greedy_reward": "greedy optimality (evaluation)",
    "q_max": "largest value that targets are made of",
    "loss": "loss",
}


def rows(name: str) -> list[list[dict[str, Any]]]:
    files = sorted((RUNS / name).glob("seed-*/metrics.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def main() -> None:
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8), constrained_layout=True)
    for colour, (name, label) in zip(("tab:orange", "tab:blue"), METHODS.items(), strict=True):
        for panel, (key, title) in zip(axes, PANELS.items(), strict=True):
            curves = [[(row["update"], row[key]) for row in run if row.get(key) is not None] for run in rows(name)]
            for curve in curves:
                panel.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=1)
            steps = [update for update, _ in curves[0]]
            panel.plot(steps, np.mean([[v for _, v in c] for c in curves], axis=0), color=colour, label=label)
            panel.set(title=title, xlabel="update")
            panel.grid(alpha=0.3)
    axes[1].axhline(1.0, color="grey", linestyle="--", linewidth=1, label="largest possible return")
    axes[2].set_yscale("log")
    axes[1].legend(fontsize=8)
    axes[0].legend(fontsize=8)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=90)
    print(f"{PICTURE.relative_to(ROOT)}: {[len(rows(name)) for name in METHODS]} seeds")


if __name__ == "__main__":
    main()
