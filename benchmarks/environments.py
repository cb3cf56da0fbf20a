"""What scripted players earn in the text environments, and the statistics of their logs.

    python benchmarks/environments.py [--words FILE] [--games 20000]

`--words` is the list of the published word game, 431 words; without it only our own list is measured. Means have a 95 %
interval where they are not exact.
"""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenq.envs.maze import Maze
from tokenq.envs.planning import Planning
from tokenq.envs.star_graph import StarGraph
from tokenq.envs.text import mean_return
from tokenq.envs.wordle import Guesser, Wordle, informed_return, lexicon

RESULT = Path(__file__).parent / "results" / "environments.json"


def log(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Figures of logged games; one succeeds if its last reward is 0."""
    turns = np.array([len(row["rewards"]) for row in rows])
    return {
        "games": len(rows),
        "mean_return": float(np.mean([sum(row["rewards"]) for row in rows])),
        "success": float(np.mean([row["rewards"][-1] == 0 for row in rows])),
        "mean_turns": float(turns.mean()),
        "deviation_of_turns": float(turns.std()),
    }


def wordle(words: str | None, games: int) -> dict[str, Any]:
    """Players who draw their guesses, with intervals; the informed one exactly."""
    task = Wordle(words, games)
    drawn = {share: mean_return(task.make(), Guesser(share), games) for share in (0.0, 1 / 3, 2 / 3, 1.0)}
    return {
        "words": len(lexicon(words).words),
        "consistent": {f"{share:.2f}": [found.mean, found.low, found.high] for share, found in drawn.items()},
        "informed": informed_return(lexicon(words)),
        "log": log(task.rows()),
    }


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--words")
    parser.add_argument("--games", type=int, default=20_000)
    arguments = parser.parse_args()
    found = {
        "command": "python benchmarks/environments.py --words FILE",
        "maze, fully observed": {"bounds": Maze().bounds(), "log": log(Maze().rows())},
        "maze, partly observed": {"bounds": Maze("partly").bounds()},
        "wordle, own words": wordle(None, arguments.games),
        "star graph": StarGraph().bounds(),
        "planning, outcome": Planning().bounds(),
        "planning, process": Planning(rewarded="process").bounds(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    if arguments.words:
        found["wordle, published words"] = wordle(arguments.words, arguments.games)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
