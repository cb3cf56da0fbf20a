"""Star graphs: name the one arm, of several, that leads from the centre to the goal.

The task of Bachmann & Nagarajan (2024, arXiv 2403.06963), rebuilt from its description. A model that learned from right
answers follows an arm without fault, but guesses which one: the first node is right with probability 1 / arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from tokenq.errors import ConfigError

Graph = tuple[tuple[str, ...], ...]
"""Its arms, each from the centre to its end; the goal is the end of the first one."""


@dataclass(frozen=True)
class StarGraph:
    """Reward 1 for the whole arm from the centre to the goal, 0 for everything else.

    A prompt holds the edges, outward and in any order, then centre and goal: "7 3 , 4 7 , 4 9 , 9 1 ; 4 1 =" has the
    answer " 4 9 1".
    """

    arms: int = 2
    """Arms of a graph, >= 2."""
    length: int = 5
    """Nodes of an arm with the centre, >= 2."""
    labels: int = 50
    """Names of nodes, the numbers from 0; at least as many as a graph has nodes."""
    graphs: int = 20_000
    """Training graphs, >= 1 (200,000 in the paper)."""
    held_out: int = 1000
    """Graphs to evaluate on, none of them a training graph, >= 1 (20,000 in the paper)."""
    graph_seed: int = 0
    """Seed of the graphs, >= 0."""

    def __post_init__(self) -> None:
        for name, least in (("arms", 2), ("length", 2), ("graphs", 1), ("held_out", 1), ("graph_seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")
        nodes = 1 + self.arms * (self.length - 1)
        if self.labels < nodes:
            raise ConfigError(f"labels: got {self.labels}, expected an integer >= {nodes}, the nodes of a graph")

    @cached_property
    def _drawn(self) -> tuple[list[Graph], list[str]]:
        """Different graphs and their prompts, the held-out ones first."""
        rng = np.random.default_rng(self.graph_seed)
        found: dict[tuple[Any, ...], tuple[Graph, str]] = {}
        wanted, repeated = self.held_out + self.graphs, 0
        while len(found) < wanted:
            graph = self._graph(rng)
            # The same edges, centre and goal are the same graph, in whatever order they are told.
            key = (graph[0], frozenset(graph[1:]))
            if key in found:
                repeated += 1
                if repeated > 20 * wanted:
                    raise ConfigError(f"graphs: got {self.graphs}, but there are hardly so many; set labels higher")
                continue
            found[key] = graph, self._prompt(graph, rng)
        graphs, prompts = zip(*found.values(), strict=True)
        return list(graphs), list(prompts)

    def _graph(self, rng: np.random.Generator) -> Graph:
        names = [str(n) for n in rng.permutation(self.labels)[: 1 + self.arms * (self.length - 1)]]
        steps = self.length - 1
        return tuple((names[0], *names[1 + arm * steps : 1 + (arm + 1) * steps]) for arm in range(self.arms))

    def _prompt(self, graph: Graph, rng: np.random.Generator) -> str:
        edges = [f"{a} {b}" for arm in graph for a, b in pairwise(arm)]
        return f"{' , '.join(edges[i] for i in rng.permutation(len(edges)))} ; {graph[0][0]} {graph[0][-1]} ="

    def rows(self) -> list[dict[str, Any]]:
        """The training graphs as scored rows, each with the arm that somebody chose at random."""
        rng = np.random.default_rng([self.graph_seed, 1])
        chosen = rng.integers(self.arms, size=self.graphs)
        return [
            {"prompt": prompt, "completion": _said(graph[arm]), "reward": float(arm == 0)}
            for (graph, prompt), arm in zip(self._training, chosen, strict=True)
        ]

    def answers(self) -> list[dict[str, Any]]:
        """The training graphs with their right answers: `prompt` and `completion`."""
        return [{"prompt": prompt, "completion": _said(graph[0])} for graph, prompt in self._training]

    @property
    def _training(self) -> list[tuple[Graph, str]]:
        graphs, prompts = self._drawn
        return list(zip(graphs[self.held_out :], prompts[self.held_out :], strict=True))

    def prompts(self) -> list[dict[str, Any]]:
        """A prompt for each training graph."""
        return [{"prompt": prompt} for prompt in self._drawn[1][self.held_out :]]

    def eval_prompts(self) -> list[dict[str, Any]]:
        """A prompt for each held-out graph."""
        return [{"prompt": prompt} for prompt in self._drawn[1][: self.held_out]]

    def reward(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """The reward function of the task."""
        return [float(c.split() == arm_of(p)) for p, c in zip(prompts, completions, strict=True)]

    def bounds(self) -> dict[str, float]:
        """Mean rewards of a `Follower`, exact.

        `uniform` guesses, as the log's player does, `mixture` guesses every other time, `optimal` never.
        """
        players = {"uniform": Follower(1.0), "mixture": Follower(0.5), "optimal": Follower()}
        return {name: player.mean_reward(self.arms) for name, player in players.items()}


@dataclass(frozen=True)
class Follower:
    """Follows the arm to the goal, but with probability `random` one of all arms, whichever it is."""

    random: float = 0.0
    """Probability of a guess, in [0, 1]."""

    def act(self, prompt: str, rng: np.random.Generator) -> str:
        """A whole arm."""
        arms = arms_of(prompt)
        return _said(arms[rng.integers(len(arms)) if rng.random() < self.random else 0])

    def mean_reward(self, arms: int) -> float:
        """What it earns on graphs with so many arms, exactly."""
        return 1 - self.random + self.random / arms


def arms_of(prompt: str) -> list[list[str]]:
    """The arms of a prompt, the right one first, read from it alone: back from each end, edge by edge."""
    told, asked = prompt.removesuffix(" =").split(" ; ")
    before = {b: a for a, b in (edge.split() for edge in told.split(" , "))}
    centre, goal = asked.split()
    others = [end for end in before if end not in before.values() and end != goal]
    return [_back(end, centre, before) for end in (goal, *others)]


def arm_of(prompt: str) -> list[str]:
    """The right answer to a prompt."""
    return arms_of(prompt)[0]


def _back(end: str, centre: str, before: Mapping[str, str]) -> list[str]:
    arm = [end]
    while arm[-1] != centre:
        arm.append(before[arm[-1]])
    return arm[::-1]


def _said(arm: Sequence[str]) -> str:
    return "".join(f" {name}" for name in arm)
