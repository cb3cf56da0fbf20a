"""Deal or No Deal as a game in text: two share books, hats and balls whose values are private (Lewis et al. 2017).

The first observation states the game, `1 books worth 10, 3 hats worth 0, 1 balls worth 0.`, and what the partner said,
if it opens. They talk in turn until one enters a split, `take 1 0 0`: the books, hats and balls that it wants for
itself. The other is then told `<selection>` and enters its own. If the two together are exactly what lies on the table,
each gets the points of its items, 10 at most; otherwise both get nothing.

The published game has no reward but these points, and neither has this one: silence, passed on as `...`, costs one of
the turns, and a split that cannot be read costs the agreement. Both have `info["invalid"]`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenq.errors import ConfigError, DataError

ITEMS = ("books", "hats", "balls")
SELECTION = "<selection>"
SILENCE = "..."
TURNS = 20
"""Turns that the agent may take before the game is cut off; the longest logged conversations have eleven."""
_TAKE = re.compile(r"take (\d{1,3}) (\d{1,3}) (\d{1,3})", re.ASCII)

Split = tuple[int, ...]
Partner = Callable[[Sequence[Mapping[str, str]]], str]
"""The other player: from its messages, the last of which is the observation, to its answer."""


@dataclass(frozen=True)
class Scenario:
    """What lies on the table, and what each item is worth to the agent and to its partner."""

    counts: Split
    values: Split
    partner_values: Split

    def __post_init__(self) -> None:
        for name in ("counts", "values", "partner_values"):
            given = getattr(self, name)
            if len(given) != len(ITEMS) or not all(type(n) is int and n >= 0 for n in given):
                raise DataError(f"{name}: got {given}, expected three whole numbers >= 0, for books, hats and balls")


def stated(counts: Sequence[int], values: Sequence[int]) -> str:
    """The first message of a game, which only the player that it is for can see."""
    return ", ".join(f"{n} {item} worth {v}" for n, item, v in zip(counts, ITEMS, values, strict=True)) + "."


def entered(text: str) -> Split | None:
    """The split that a message enters, or None if it is talk."""
    found = _TAKE.fullmatch(" ".join(text.split()).lower())
    return None if found is None else tuple(map(int, found.groups()))


def read_scenarios(path: Path) -> list[Scenario]:
    """The scenarios of a file of contexts: pairs of lines, each with `count value` three times, one for each player."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"contexts: {path}: no such file, expected contexts in pairs of lines") from error
    sides = [_side(line, f"{path} row {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if len(sides) % 2 or not sides:
        raise DataError(f"{path}: has {len(sides)} contexts, expected pairs of them; fix the file")
    found = []
    for number in range(0, len(sides), 2):
        (counts, values), (same, partner_values) = sides[number : number + 2]
        if counts != same:
            raise DataError(f"{path} row {number + 2}: has the counts {same}, expected {counts} as in the row before")
        found.append(Scenario(counts, values, partner_values))
    return found


def _side(line: str, place: str) -> tuple[Split, Split]:
    parts = line.split()
    if len(parts) != 2 * len(ITEMS) or not all(part.isdecimal() for part in parts):
        raise DataError(f"{place}: is {line[:60]!r}, expected `count value` three times; fix or drop the pair")
    numbers = tuple(map(int, parts))
    return numbers[::2], numbers[1::2]


class Negotiation:
    """One game after another against a given partner; a `TextEnvironment`.

    A game is one of `scenarios`, drawn with the seed, or what the row says (`counts`, `values`, `partner_values`); so
    is who opens (`opens`: whether the agent does).
    """

    def __init__(self, partner: Partner, scenarios: Sequence[Scenario] = (), turns: int = TURNS) -> None:
        self.partner = partner
        self.scenarios = scenarios
        self.turns = turns
        self._rng = np.random.default_rng()
        self._over = True
        self._partner_split: Split | None = None

    def reset(self, *, seed: int | None = None, **row: Any) -> tuple[str, dict[str, Any]]:
        """A new game; without a seed the random numbers go on."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        drawn, tossed = self._rng.integers(2**31), bool(self._rng.integers(2))
        if "counts" in row:
            sides = (tuple(row.get(name) or ()) for name in ("counts", "values", "partner_values"))
            self._game = Scenario(*sides)
        elif self.scenarios:
            self._game = self.scenarios[int(drawn) % len(self.scenarios)]
        else:
            raise ConfigError("reset: got no scenario, expected scenarios or a row with counts and values")
        opens = row.get("opens")
        self._over, self._taken, self._partner_split = False, 0, None
        self._heard: list[dict[str, str]] = []
        first = stated(self._game.counts, self._game.values)
        if tossed if opens is None else opens:
            return first, {}
        said = self._answer("")
        return f"{first} {said}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What the partner says to it, or the end of the game. Raises `DataError` before a reset and after the end."""
        if self._over:
            raise DataError("step: the game is over or has not begun, expected a reset before the next action")
        self._taken += 1
        split = entered(action)
        if self._partner_split is not None:
            return self._settled(split, self._partner_split)
        if split is not None:
            return self._settled(split, entered(self._answer(SELECTION)))
        said = self._answer(" ".join(action.split()) or SILENCE)
        self._partner_split = entered(said)
        truncated = self._over = self._taken >= self.turns
        info = {} if action.strip() else {"invalid": True}
        return said if self._partner_split is None else SELECTION, 0.0, False, truncated, info

    def _answer(self, said: str) -> str:
        """What the partner says next; its first observation states the game as it sees it."""
        if not self._heard:
            said = f"{stated(self._game.counts, self._game.partner_values)} {said}".strip()
        self._heard.append({"role": "user", "content": said})
        answer = " ".join(self.partner(list(self._heard)).split()) or SILENCE
        self._heard.append({"role": "assistant", "content": answer})
        return answer

    def _settled(self, split: Split | None, theirs: Split | None) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The end: points if both splits together are what lies on the table."""
        self._over = True
        agreed = split is not None and theirs is not None
        agreed = agreed and all(
            a + b == n for a, b, n in zip(split or (), theirs or (), self._game.counts, strict=True)
        )
        points = [
            float(np.dot(taken, values)) if agreed and taken is not None else 0.0
            for taken, values in ((split, self._game.values), (theirs, self._game.partner_values))
        ]
        info: dict[str, Any] = {"agreed": agreed, "partner_points": points[1]}
        if split is None:
            info["invalid"] = True
        return "", points[0], True, False, info


@dataclass(frozen=True)
class Agreeable:
    """A partner that takes whatever is left: it says `deal`, and enters what the other named last, or else nothing.

    It finds what the other wants in messages such as `i take 1 0 2`.
    """

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The next thing it says."""
        if messages[-1]["content"] != SELECTION:
            return "deal"
        counts = [int(n) for n in re.findall(r"(\d+) (?:books|hats|balls) worth", messages[0]["content"])]
        named = [
            found
            for m in messages
            if m["role"] == "user"
            for found in re.findall(r"i take (\d+) (\d+) (\d+)", m["content"])
        ]
        wanted = map(int, named[-1]) if named else counts
        return "take " + " ".join(str(max(n - w, 0)) for n, w in zip(counts, wanted, strict=True))


@dataclass(frozen=True)
class Stubborn:
    """A partner that enters everything for itself, after it has said so for some turns."""

    turns: int = 1
    """Times that it says so first, >= 0."""

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The next thing it says."""
        counts = re.findall(r"(\d+) (?:books|hats|balls) worth", messages[0]["content"])
        said = sum(message["role"] == "assistant" for message in messages)
        if messages[-1]["content"] == SELECTION or said >= self.turns:
            return "take " + " ".join(counts)
        return "i want everything"
