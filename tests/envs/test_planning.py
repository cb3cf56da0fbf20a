"""Planning: paths and rewards by hand, distances, and which pairs are kept apart."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from tokenq.envs.planning import Planning, Traveller
from tokenq.errors import ConfigError

SMALL = Planning(nodes=30, longest=5)


def square(paths: Literal["random", "shortest"] = "random") -> Planning:
    """The graph 0 → 1 → 2 → 3 → 0 with a shortcut 0 → 2, whatever the seed drew."""
    task = Planning(nodes=4, longest=4, paths=paths)
    edges = np.zeros((4, 4), dtype=bool)
    for before, after in ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2)):
        edges[before, after] = True
    vars(task)["edges"] = edges
    return task


@pytest.mark.parametrize(
    ("completion", "valid", "steps"),
    [
        ("0 1 2 3", True, [0, 0, 0, 1]),
        (" 0 2 3\n", True, [0, 0, 1]),
        ("0 3", False, [0, 0]),
        ("0 1 3", False, [0, 0, 0]),
        ("0 1 0 3", False, [0, 0, -1, 0]),
        ("0 1 2", False, [0, 0, 0]),
        ("1 2 3", False, [-1, 0, 1]),
        ("0 2 3 0", False, [0, 0, 1, -1]),
        ("0 2 3 0 2 3", False, [0, 0, 1, -1, -1, -1]),
        ("0 x 3", False, [0, -1, 0]),
        ("0 ² 99 -1", False, [0, -1, -1, -1]),
        ("", False, []),
    ],
)
def test_paths_from_0_to_3_by_hand(completion: str, valid: bool, steps: list[float]) -> None:
    """A step to the target that no edge allows earns 1 − 1 = 0, as "one condition only" in the paper."""
    task = square()
    assert task.valid("0 3", completion) == valid
    assert task.step_rewards("0 3", completion) == steps
    assert task.reward(["0 3"], [completion], more=1) == [float(valid)]
    process = Planning(nodes=4, longest=4, rewarded="process")
    vars(process)["edges"] = task.edges
    assert process.reward(["0 3"], [completion]) == [float(sum(steps))]


def test_distances_by_hand() -> None:
    assert square().distances.tolist() == [[0, 1, 1, 2], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 2, 0]]
    alone = square()
    vars(alone)["edges"] = alone.edges & (np.arange(4) != 3)
    assert alone.distances[:, 3].tolist() == [4, 4, 4, 0]


def test_every_taught_path_is_valid_and_a_shortest_one_is_shortest() -> None:
    for task in (SMALL, Planning(nodes=30, longest=5, paths="shortest")):
        rows = task.answers()
        lengths = [len(row["completion"].split()) for row in rows]
        assert all(task.valid(**row) for row in rows) and max(lengths) <= 5
        assert [row["prompt"] for row in rows] == [row["prompt"] for row in task.prompts()]
        least = [1 + task.distances[tuple(map(int, row["prompt"].split()))] for row in rows]
        assert (lengths == least) == (task.paths == "shortest")


def test_logged_paths_slip_and_are_scored() -> None:
    rows = SMALL.rows()
    assert [row["reward"] for row in rows] == SMALL.reward([r["prompt"] for r in rows], [r["completion"] for r in rows])
    assert 0.3 < SMALL.bounds()["data"] < 1 and Planning(nodes=30, longest=5, slips=0.0).bounds()["data"] == 1.0
    steps = [tuple(map(int, step)) for row in rows for step in pairwise(row["completion"].split())]
    missing = np.mean([not SMALL.edges[step] for step in steps])
    assert missing == pytest.approx(0.1 * (1 - SMALL.edges.mean()), abs=0.02)


@pytest.mark.parametrize("paths", ["random", "shortest"])
def test_players_earn_what_the_bounds_say(paths: Literal["random", "shortest"]) -> None:
    """A whole path earns 1, however it is rewarded; who slips at every step hardly ever arrives by edges."""
    task = Planning(nodes=30, longest=5, paths=paths)
    bounds, process = task.bounds(), replace(task, rewarded="process").bounds()
    assert 0 <= bounds["uniform"] < 0.02 and process["uniform"] < -2
    assert bounds["data"] == np.mean([row["reward"] for row in task.rows()])
    assert bounds["optimal"] == process["optimal"] == 1.0 and process["data"] < bounds["data"] < 1


def test_travellers_by_hand() -> None:
    """From 0 to 3 by edges: the shortcut, or the long way if there is time for it."""
    rng = np.random.default_rng(0)
    shortest, any_way, slips = (
        {Traveller(square(paths), slips).act("0 3", rng) for _ in range(60)}
        for paths, slips in (("shortest", 0.0), ("random", 0.0), ("random", 1.0))
    )
    assert shortest == {" 0 2 3"} and any_way == {" 0 2 3", " 0 1 2 3"} and " 0 3" in slips


def test_held_out_pairs_are_no_training_pairs_and_no_edges() -> None:
    train, test = (
        {tuple(map(int, r["prompt"].split())) for r in rows} for rows in (SMALL.prompts(), SMALL.eval_prompts())
    )
    assert test and not train & test and not any(SMALL.edges[pair] for pair in test)
    assert {(int(s), int(t)) for s, t in np.argwhere(SMALL.edges)} <= train
    assert all(s != t and SMALL.distances[s, t] < 5 for s, t in train | test)
    assert len(test) / (len(train | test) - SMALL.edges.sum()) == pytest.approx(0.2, abs=0.05)


def test_the_published_graph_and_its_repetition() -> None:
    task = Planning()
    assert task.edges.shape == (100, 100) and not task.edges.diagonal().any()
    assert task.edges.sum() / 9900 == pytest.approx(0.15, abs=0.01)
    assert SMALL.rows() == Planning(nodes=30, longest=5).rows() != Planning(nodes=30, longest=5, graph_seed=1).rows()


def test_wrong_settings_say_what_was_expected() -> None:
    with pytest.raises(ConfigError, match=r"held_out: got 1.0, expected a number in \(0, 1\)"):
        Planning(held_out=1.0)
    with pytest.raises(ConfigError, match="nodes: got 2"):
        Planning(nodes=2)
    with pytest.raises(ConfigError, match="pairs to train on and 0 to evaluate on"):
        Planning(nodes=3, edge_probability=0.99, held_out=0.5).prompts()
