"""What players earn in a maze, exactly: by breadth-first search, as a Markov chain, over what can be known.

Every move costs 1 but the one that arrives. Letters: S squares that are not the goal.
"""

from collections import deque

import numpy as np
from jaxtyping import Float

Cell = tuple[int, int]
Belief = tuple[Cell, ...]
AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1))


def distances(free: frozenset[Cell], goal: Cell) -> dict[Cell, int]:
    """Moves from each free square to the goal."""
    far = {goal: 0}
    waiting = deque([goal])
    while waiting:
        cell = waiting.popleft()
        for side in range(4):
            beside = _moved(cell, side, free)
            if beside not in far:
                far[beside] = far[cell] + 1
                waiting.append(beside)
    return far


def behaviour_return(free: frozenset[Cell], goal: Cell, random: float, limit: int) -> float:
    """Mean return, over all starts, of a player that moves at random with this probability, else one step closer.

    After `limit` moves without arrival one more costs 1 and ends the game: that game earns −(limit + 1).
    """
    far = distances(free, goal)
    cells = sorted(free - {goal})
    chain: Float[np.ndarray, "S S"] = np.zeros((len(cells), len(cells)))
    for number, cell in enumerate(cells):
        nearest = [far[_moved(cell, side, free)] for side in range(4)]
        for side in range(4):
            after = _moved(cell, side, free)
            if after != goal:
                chain[number, cells.index(after)] += random / 4 + (1 - random) * (side == np.argmin(nearest))
    alive = np.full(len(cells), 1 / len(cells))
    cost = 0.0
    for _ in range(limit):
        alive = alive @ chain
        cost += alive.sum()
    return -float(cost + alive.sum())


def best_seen_return(free: frozenset[Cell], goal: Cell) -> float:
    """The best mean return, over all starts, of a player that sees only which sides have walls, with perfect memory.

    What it knows is where it may be, K: a square for each start that fits what it saw. W(K), the cost of all of these
    games together, is the fixed point of W(K) = min over moves of Σ over what is seen next of (|K'| + W(K')), K'
    without the games that arrived; by value iteration, which ends, for costs are whole numbers that only grow.
    """
    first = _seen_apart(tuple(free - {goal}), free)
    follow: dict[Belief, list[list[Belief]]] = {}
    waiting = deque(first)
    while waiting:
        known = waiting.popleft()
        if known not in follow:
            moved = [tuple(_moved(cell, side, free) for cell in known) for side in range(4)]
            follow[known] = [_seen_apart(tuple(cell for cell in after if cell != goal), free) for after in moved]
            waiting.extend(after for parts in follow[known] for after in parts)
    costs = dict.fromkeys(follow, 0)
    changed = True
    while changed:
        changed = False
        for known, sides in follow.items():
            cost = min(sum(len(after) + costs[after] for after in parts) for parts in sides)
            changed, costs[known] = changed or cost != costs[known], cost
    return -sum(costs[known] for known in first) / (len(free) - 1)


def _seen_apart(cells: Belief, free: frozenset[Cell]) -> list[Belief]:
    """The squares by the walls around them."""
    parts: dict[tuple[bool, ...], list[Cell]] = {}
    for cell in sorted(cells):
        parts.setdefault(tuple(_moved(cell, side, free) == cell for side in range(4)), []).append(cell)
    return [tuple(part) for part in parts.values()]


def _moved(cell: Cell, side: int, free: frozenset[Cell]) -> Cell:
    after = (cell[0] + AROUND[side][0], cell[1] + AROUND[side][1])
    return after if after in free else cell
