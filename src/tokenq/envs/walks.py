"""Random walks on a small directed graph: a text task whose best score is known exactly.

The task of CarperAI/trlX's `randomwalks` example, rebuilt from its description: 21 nodes named a to u, edges drawn with
probability 0.1, goal "a"; a walk is scored by how close its length comes to the shortest path. The data are 1,000
uniform random walks, most of them long detours or dead ends, so a good policy must stitch pieces of different walks
together.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool

from tokenq.errors import ConfigError

GOAL = 0


@dataclass(frozen=True)
class Walks:
    """Random walks on a graph, scored in [0, 1] by (longest − length) / (longest − shortest possible)."""

    graph_seed: int = 1000
    """Seed of the graph and of its walks; difficulty differs a lot between seeds."""
    walks: int = 1000
    """Number of logged walks."""
    nodes: int = 21
    """Number of nodes, named by the first letters of the alphabet."""
    edge_probability: float = 0.1
    """Probability of an edge between each ordered pair of nodes."""
    longest: int = 10
    """Largest number of nodes in a walk."""

    def __post_init__(self) -> None:
        if not 0 <= self.graph_seed < 2**32:
            raise ConfigError(f"graph_seed: got {self.graph_seed}, expected an integer in 0..2**32 - 1")
        for name, least in (("walks", 1), ("longest", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")
        if not 2 <= self.nodes <= 26:
            raise ConfigError(f"nodes: got {self.nodes}, expected an integer in 2..26")
        if not 0 < self.edge_probability <= 1:
            raise ConfigError(f"edge_probability: got {self.edge_probability}, expected a number in (0, 1]")

    @property
    def symbols(self) -> str:
        """The names of the nodes; the first one is the goal."""
        return "abcdefghijklmnopqrstuvwxyz"[: self.nodes]

    @cached_property
    def _drawn(self) -> tuple[Bool[np.ndarray, "n n"], list[list[int]]]:
        rng = np.random.RandomState(self.graph_seed)
        while True:
            edges = rng.rand(self.nodes, self.nodes) > 1 - self.edge_probability
            np.fill_diagonal(edges, False)
            if edges.any(axis=1).all():
                break
        edges[GOAL] = False
        edges[GOAL, GOAL] = True
        return edges, [self._walk(edges, rng) for _ in range(self.walks)]

    def _walk(self, edges: Bool[np.ndarray, "n n"], rng: np.random.RandomState) -> list[int]:
        node = GOAL
        while node == GOAL:
            node = rng.randint(self.nodes)
        path = [node]
        while len(path) < self.longest and node != GOAL:
            node = int(rng.choice(np.nonzero(edges[node])[0]))
            path.append(node)
        return path

    @property
    def edges(self) -> Bool[np.ndarray, "n n"]:
        """The adjacency matrix, [nodes, nodes]; the goal has only its own loop."""
        return self._drawn[0]

    def rows(self) -> list[dict[str, Any]]:
        """The logged walks as scored rows: prompt (the start), completion, reward."""
        texts = ["".join(self.symbols[n] for n in path) for path in self._drawn[1]]
        return [{"prompt": t[0], "completion": t[1:], "reward": self.optimality(t)} for t in texts]

    def prompts(self) -> list[dict[str, Any]]:
        """One prompt for each node that is not the goal."""
        return [{"prompt": symbol} for symbol in self.symbols[1:]]

    def eval_prompts(self) -> list[dict[str, Any]]:
        """The same."""
        return self.prompts()

    def answers(self) -> list[dict[str, Any]]:
        """What is taught before learning: the walks as they are."""
        return self.rows()

    def optimality(self, text: str) -> float:
        """The score of one walk, in [0, 1]; 0 if it leaves the graph or does not arrive."""
        shortest = self.distances(self.edges)[self.symbols.find(text[0])]
        if shortest >= self.longest:
            return 0.0
        return (self.longest - self._length(text)) / (self.longest - shortest)

    def _length(self, text: str) -> int:
        arrival = text.find(self.symbols[GOAL]) + 1
        path = [self.symbols.find(c) for c in text[:arrival]]
        valid = arrival > 0 and all(a >= 0 and b >= 0 and self.edges[a, b] for a, b in pairwise(path))
        return min(arrival, self.longest) if valid else self.longest

    def reward(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """The reward function of the task."""
        return [self.optimality(p + c) for p, c in zip(prompts, completions, strict=True)]

    def distances(self, edges: Bool[np.ndarray, "n n"]) -> list[int]:
        """Number of nodes on the shortest path from each node to the goal, at most `longest`."""
        distance = [self.longest] * self.nodes
        distance[GOAL] = 1
        queue = deque([GOAL])
        while queue:
            node = queue.popleft()
            for before in np.nonzero(edges[:, node])[0]:
                if distance[before] > distance[node] + 1:
                    distance[before] = distance[node] + 1
                    queue.append(int(before))
        return distance

    def bounds(self) -> dict[str, float]:
        """What the logged walks allow, as means over all starts.

        `data` is the mean score of the walks, `best_walk` takes the best single walk from each start, and
        `best_stitched` the best path made of any edges that some walk used.
        """
        seen = np.zeros_like(self.edges)
        for path in self._drawn[1]:
            seen[path[:-1], path[1:]] = True
        best, known = self.distances(self.edges), self.distances(seen)
        reachable = [
            (self.longest - k) / (self.longest - b) if b < self.longest else 0.0
            for b, k in zip(best[1:], known[1:], strict=True)
        ]
        rows = self.rows()
        single = {row["prompt"]: 0.0 for row in self.prompts()}
        for row in rows:
            single[row["prompt"]] = max(single[row["prompt"]], row["reward"])
        return {
            "data": float(np.mean([row["reward"] for row in rows])),
            "best_walk": float(np.mean(list(single.values()))),
            "best_stitched": float(np.mean(reachable)),
        }
