"""Numbers that change with the count of updates."""

import math
from typing import Literal

Decay = Literal["constant", "linear", "cosine"]
"""How a learning rate falls."""


def linear(start: float, end: float, over: int, update: int) -> float:
    """From `start` at update 0 in a straight line to `end` at update `over`, constant afterwards."""
    share = 1.0 if over <= 0 else min(update / over, 1.0)
    return start + share * (end - start)


def exponential(start: float, end: float, over: int, update: int) -> float:
    """From `start` at update 0 by equal factors to `end` at update `over`; both must be positive."""
    share = 1.0 if over <= 0 else min(update / over, 1.0)
    return float(start * (end / start) ** share)


def cosine(over: int, update: int) -> float:
    """From 1 at update 0 along half a cosine to 0 at update `over` (Loshchilov & Hutter 2017, eq. 5)."""
    share = 1.0 if over <= 0 else min(update / over, 1.0)
    return 0.5 * (1 + math.cos(math.pi * share))


def decay(kind: Decay, over: int, update: int) -> float:
    """From 1 at update 0 to 0 at update `over`, in a straight line or along half a cosine; or 1 all the time."""
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return linear(1.0, 0.0, over, update)
        case "cosine":
            return cosine(over, update)


def warmup(over: int, update: int) -> float:
    """From 1/over at update 0 to 1 at update over − 1, then 1; the first update is never lost to a rate of 0."""
    return 1.0 if over <= 0 else min((update + 1) / over, 1.0)
