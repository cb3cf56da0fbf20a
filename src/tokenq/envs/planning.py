"""Planning on a graph that is never told: a path between two of its nodes, learned from other paths.

The diagnostic of a study of planning by reinforcement learning (ICLR 2026): a random directed graph of 100 nodes, each
edge drawn with probability 0.15. The graph must be remembered from training; pairs that are evaluated on were not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from tokenq.errors import ConfigError

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Planning:
    """A path from one node to another: the prompt "4 17" has answers such as " 4 60 2 17"."""

    graph_seed: int = 0
    """Seed of the graph, of its pairs and of the logged paths, >= 0."""
    nodes: int = 100
    """Nodes, the numbers from 0; >= 3."""
    edge_probability: float = 0.15
    """Probability of an edge between each ordered pair of nodes, in (0, 1)."""
    held_out: float = 0.2
    """Share of the pairs without an edge that are evaluated on and never seen in training, in (0, 1)."""
    longest: int = 6
    """Nodes in a path at most, >= 3; pairs that are further apart are left out."""
    paths: Literal["random", "shortest"] = "random"
    """The paths that are taught and logged: of a random length up to `longest` if it allows one, or a shortest one."""
    slips: float = 0.1
    """Probability that a step of a logged path goes to any node at all, edge or not, in [0, 1]."""
    rewarded: Literal["outcome", "process"] = "outcome"
    """1 for a valid path and 0 otherwise, or the sum over its steps: 1 for the target, −1 for a missing edge."""

    def __post_init__(self) -> None:
        for name, least in (("graph_seed", 0), ("nodes", 3), ("longest", 3)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")
        for name in ("edge_probability", "held_out"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected a number in (0, 1)")
        if not 0 <= self.slips <= 1:
            raise ConfigError(f"slips: got {self.slips}, expected a number in [0, 1]")

    @cached_property
    def edges(self) -> Bool[np.ndarray, "n n"]:
        """The adjacency matrix, without loops."""
        drawn: Bool[np.ndarray, "n n"] = (
            np.random.default_rng(self.graph_seed).random((self.nodes, self.nodes)) < self.edge_probability
        )
        return drawn & ~np.eye(self.nodes, dtype=bool)

    @cached_property
    def distances(self) -> Int[np.ndarray, "n n"]:
        """Steps on the shortest path between each ordered pair; `nodes` where there is none."""
        found = np.where(np.eye(self.nodes, dtype=bool), 0, self.nodes)
        reached = np.eye(self.nodes, dtype=bool)
        for steps in range(1, self.nodes):
            reached = reached | (reached @ self.edges)
            found[reached & (found == self.nodes)] = steps
        return found

    @cached_property
    def _pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Pairs for training and for evaluation; an edge is always a pair for training, so that it can be known."""
        rng = np.random.default_rng([self.graph_seed, 1])
        near = (self.distances > 0) & (self.distances < min(self.longest, self.nodes))
        aside = (rng.random(near.shape) < self.held_out) & ~self.edges
        train, test = np.argwhere(near & ~aside).tolist(), np.argwhere(near & aside).tolist()
        if not train or not test:
            raise ConfigError(
                f"planning: got {len(train)} pairs to train on and {len(test)} to evaluate on, expected some of each; "
                "set nodes, longest or held_out higher"
            )
        return [(s, t) for s, t in train], [(s, t) for s, t in test]

    def answers(self) -> Rows:
        """A valid path for each training pair: `prompt` and `completion`."""
        return self._walked(Traveller(self), self.prompts(), stream=2)

    def rows(self) -> Rows:
        """A logged path for each training pair, with its reward; one that slipped seldom arrives by edges alone."""
        return self._scored(Traveller(self, self.slips), self.prompts())

    def _scored(self, player: "Traveller", prompts: Rows) -> Rows:
        walked = self._walked(player, prompts, stream=3)
        return [row | {"reward": self.score(row["prompt"], row["completion"])} for row in walked]

    def _walked(self, player: "Traveller", prompts: Rows, stream: int) -> Rows:
        rng = np.random.default_rng([self.graph_seed, stream])
        return [row | {"completion": player.act(row["prompt"], rng)} for row in prompts]

    def prompts(self) -> Rows:
        """A prompt for each training pair."""
        return [{"prompt": f"{s} {t}"} for s, t in self._pairs[0]]

    def eval_prompts(self) -> Rows:
        """A prompt for each held-out pair."""
        return [{"prompt": f"{s} {t}"} for s, t in self._pairs[1]]

    def step_rewards(self, prompt: str, completion: str) -> list[float]:
        """The process reward of each word.

        1 if it is the target, and −1 if no edge leads to it; the first word costs 1 unless it is the start, and so does
        every word after the target.
        """
        start, target = prompt.split()
        words = completion.split()
        arrived = words.index(target) if target in words else len(words)
        steps = [0.0 if words[:1] == [start] else -1.0] if words else []
        for place, (before, after) in enumerate(pairwise(words), 1):
            known = place <= arrived and self._edge(before, after)
            steps.append((place == arrived) - (not known))
        return [float(step) for step in steps]

    def valid(self, prompt: str, completion: str) -> bool:
        """Whether a path begins at the start, follows edges alone and ends with the target."""
        start, target = prompt.split()
        words = completion.split()
        by_edges = all(self._edge(before, after) for before, after in pairwise(words))
        return by_edges and words[:1] == [start] and words[-1:] == [target] and words.count(target) == 1

    def _edge(self, before: str, after: str) -> bool:
        known = all(word.isdecimal() and word.isascii() and int(word) < self.nodes for word in (before, after))
        return known and bool(self.edges[int(before), int(after)])

    def score(self, prompt: str, completion: str) -> float:
        """The reward of one path."""
        if self.rewarded == "outcome":
            return float(self.valid(prompt, completion))
        return sum(self.step_rewards(prompt, completion))

    def reward(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """The reward function of the task."""
        return [self.score(p, c) for p, c in zip(prompts, completions, strict=True)]

    def bounds(self) -> dict[str, float]:
        """Mean rewards: `data` of the logged paths, the others of a `Traveller` between the held-out pairs.

        `uniform` slips at every step, `optimal` at none; no path earns more.
        """
        rows = {
            "uniform": self._scored(Traveller(self, 1.0), self.eval_prompts()),
            "data": self.rows(),
            "optimal": self._scored(Traveller(self), self.eval_prompts()),
        }
        return {name: float(np.mean([row["reward"] for row in found])) for name, found in rows.items()}


@dataclass(frozen=True)
class Traveller:
    """Takes a path of the kind that the task teaches, but with probability `slips` a step goes to any node at all."""

    task: Planning
    slips: float = 0.0
    """Probability of a slip, in [0, 1]; with 1, every node is drawn evenly."""

    def act(self, prompt: str, rng: np.random.Generator) -> str:
        """A whole path: to the target, or until it is as long as it was meant to be."""
        task = self.task
        node, target = map(int, prompt.split())
        path = [node]
        nodes = int(rng.integers(task.distances[node, target] + 1, task.longest + 1))
        while node != target and len(path) < nodes:
            after, far = np.flatnonzero(task.edges[node]), task.distances[:, target]
            if rng.random() < self.slips:
                after = np.arange(task.nodes)
            elif task.paths == "shortest":
                after = after[far[after] == far[after].min(initial=task.nodes)]
            else:
                in_time = after[far[after] < nodes - len(path)]
                after = in_time if len(in_time) else after
            if not len(after):
                break
            node = int(rng.choice(after))
            path.append(node)
        return "".join(f" {node}" for node in path)
