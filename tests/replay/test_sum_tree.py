"""The sum tree against a slow search."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokenq.replay.sum_tree import SumTree

SIZES = st.integers(1, 40)


def tree_of(values: np.ndarray) -> SumTree:
    tree = SumTree(len(values))
    tree[np.arange(len(values))] = values
    return tree


def test_masses_by_hand() -> None:
    tree = tree_of(np.array([1.0, 0.0, 3.0]))
    assert tree.total == 4
    assert tree.find(np.array([0.0, 0.99, 1.0, 3.99])).tolist() == [0, 0, 2, 2]
    tree[np.array([0, 1, 0])] = np.array([7.0, 2.0, 5.0])
    assert tree.total == 10 and tree[np.arange(3)].tolist() == [5, 2, 3]


@given(size=SIZES, seed=st.integers(0, 10**6))
def test_any_mass_is_found_where_a_slow_search_finds_it(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers, so that sums are exact in any order.
    values = rng.integers(0, 4, size=size).astype(float)
    values[rng.integers(size)] += 1
    tree = tree_of(values)
    mass = np.concatenate([np.arange(values.sum()), rng.random(20) * values.sum()])
    assert tree.find(mass).tolist() == np.searchsorted(values.cumsum(), mass, side="right").tolist()


@given(size=SIZES, seed=st.integers(0, 10**6))
def test_nothing_without_mass_is_drawn_and_all_else_in_proportion(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random(size) * (rng.random(size) < 0.5)
    values[rng.integers(size)] = 1.0
    tree = tree_of(values)
    drawn = np.bincount(tree.draw(4000, rng), minlength=size)
    assert (drawn[values == 0] == 0).all()
    # One draw from each of equal parts: a count is off by 2 at most.
    assert (np.abs(drawn - 4000 * values / values.sum()) <= 2 + 1e-6).all()
