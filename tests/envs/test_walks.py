"""Facts of the graphs, and scores by hand."""

from itertools import pairwise

import numpy as np
import pytest

from tokenq.envs.walks import GOAL, Walks
from tokenq.errors import ConfigError


@pytest.mark.parametrize(
    ("seed", "edges", "into_goal", "arrived", "data"),
    [
        (1000, 51, 2, 0.560, 0.3515),
        (1002, 42, 3, 0.985, 0.790),
        (0, 50, 7, 0.649, 0.415),
        (1, 59, 3, 0.336, 0.212),
        (2, 41, 3, 0.668, 0.484),
    ],
)
def test_facts_of_known_graphs(seed: int, edges: int, into_goal: int, arrived: float, data: float) -> None:
    task = Walks(graph_seed=seed)
    rows = task.rows()
    assert int(task.edges.sum()) - 1 == edges and task.edges[GOAL].sum() == 1
    assert int(task.edges[1:, GOAL].sum()) == into_goal
    assert np.mean([row["completion"].endswith("a") for row in rows]) == pytest.approx(arrived)
    assert task.bounds()["data"] == pytest.approx(data, abs=6e-4) and len(rows) == 1000


@pytest.mark.parametrize(("seed", "single"), [(1000, 0.992), (1002, 1.000)])
def test_what_single_walks_and_stitching_allow(seed: int, single: float) -> None:
    bounds = Walks(graph_seed=seed).bounds()
    assert bounds["best_walk"] == pytest.approx(single, abs=5e-4)
    assert bounds["best_stitched"] == 1.0 and bounds["data"] < bounds["best_walk"]


def test_every_walk_stays_on_the_graph_and_is_scored_by_its_length() -> None:
    task = Walks(walks=200)
    shortest = task.distances(task.edges)
    for row in task.rows():
        text = row["prompt"] + row["completion"]
        path = [task.symbols.index(symbol) for symbol in text]
        assert all(task.edges[a, b] for a, b in pairwise(path)) and len(path) <= 10
        assert GOAL not in path[:-1]
        start = shortest[path[0]]
        length = len(path) if path[-1] == GOAL else 10
        assert row["reward"] == pytest.approx((10 - length) / (10 - start))


def line() -> Walks:
    """The graph d → c → b → a with a shortcut d → b, whatever the seed drew."""
    task = Walks(nodes=4, edge_probability=0.9)
    edges = np.zeros((4, 4), dtype=bool)
    for before, after in ("dc", "cb", "ba", "db", "aa"):
        edges["abcd".index(before), "abcd".index(after)] = True
    vars(task)["_drawn"] = (edges, [])
    return task


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("dba", 1.0),
        ("dcba", 6 / 7),
        ("dbaaaa", 1.0),
        ("db", 0.0),
        ("da", 0.0),
        ("dxa", 0.0),
        ("d", 0.0),
        ("ba", 1.0),
        ("cba", 1.0),
    ],
)
def test_scores_by_hand(text: str, score: float) -> None:
    """From d the shortest path has 3 nodes: a walk of n nodes scores (10 − n)/7."""
    assert line().optimality(text) == pytest.approx(score)
    assert line().reward([text[0]], [text[1:]], anything=None) == [pytest.approx(score)]


def test_distances_count_nodes_and_stop_at_the_longest() -> None:
    task = line()
    assert task.distances(task.edges) == [1, 2, 3, 3]
    cut = task.edges.copy()
    cut[1, GOAL] = False
    assert task.distances(cut) == [1, 10, 10, 10]


def test_a_task_is_reproducible_and_prompts_are_all_other_nodes() -> None:
    assert Walks(graph_seed=3).rows() == Walks(graph_seed=3).rows() != Walks(graph_seed=4).rows()
    assert [row["prompt"] for row in Walks().prompts()] == list("bcdefghijklmnopqrstu")


def test_wrong_settings_say_what_was_expected() -> None:
    with pytest.raises(ConfigError, match=r"nodes: got 27, expected an integer in 2\.\.26"):
        Walks(nodes=27)
    with pytest.raises(ConfigError, match="edge_probability: got 0"):
        Walks(edge_probability=0.0)
