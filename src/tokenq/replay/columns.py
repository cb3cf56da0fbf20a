"""Checked access to the columns of one data row; a null counts as absent.

Every function raises a DataError that names the column; whoever reads the file adds its name and the row.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tokenq.errors import DataError

Row = Mapping[str, Any]
Message = Mapping[str, Any]

# NaN, infinity and whole numbers that no float can hold all fail to be at most this.
_LARGEST = sys.float_info.max

# Which roles may stand right before each role; None is the start of the conversation.
_BEFORE: dict[str, set[str | None]] = {
    "system": {None},
    "user": {None, "system", "assistant", "tool"},
    "assistant": {"system", "user", "tool"},
    "tool": {"assistant", "tool"},
}


def present(row: Row, column: str) -> bool:
    """True if the row has this column and it is not null."""
    return row.get(column) is not None


def finite(value: object, column: str) -> float:
    """The value as a float, if it is a finite number (true and false are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise wrong(column, value, "a finite number")
    return float(value)


def score(row: Row) -> float:
    """The row's `reward` (finite), or its `label` as 1 (true) or 0 (false)."""
    if present(row, "reward") and present(row, "label"):
        raise DataError("columns 'reward' and 'label' are both set; expected one of them; drop the other")
    if not present(row, "label"):
        return finite(row.get("reward"), "reward")
    if row["label"] not in (0, 1):
        raise wrong("label", row["label"], "true or false")
    return float(row["label"])


def turn_scores(row: Row, turns: int) -> list[float]:
    """The row's `rewards`, one per assistant turn, with NaN where the file says null; at least one must be rated."""
    rewards = row["rewards"]
    if not isinstance(rewards, list):
        raise wrong("rewards", rewards, "a list with one number or null per assistant turn")
    if len(rewards) != turns:
        raise DataError(
            f"column 'rewards' has {len(rewards)} entries; expected {turns}, one per assistant turn "
            "(null where unrated); fix or drop the row"
        )
    if all(reward is None for reward in rewards):
        raise DataError("column 'rewards' rates no turn; expected at least one number; fix or drop the row")
    return [math.nan if reward is None else finite(reward, f"rewards[{i}]") for i, reward in enumerate(rewards)]


def terminated(row: Row) -> bool:
    """True if the episode ended by itself (the default), false if it was cut off."""
    value = row.get("terminated")
    if value is None:
        return True
    if not isinstance(value, bool):
        raise wrong("terminated", value, "true (ended by itself) or false (cut off)")
    return value


def text_or_messages(row: Row, column: str) -> str | list[Message]:
    """The column as a string or as a list of messages, each with `role` and `content` strings."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    raise wrong(column, value, "a string, or a list of messages {role, content}")


def token_ids(row: Row, column: str, vocabulary: int) -> list[int]:
    """The column as a list of at least one token id in 0..vocabulary-1."""
    value = row.get(column)
    if not isinstance(value, list) or not value or not all(type(i) is int and 0 <= i < vocabulary for i in value):
        raise wrong(column, value, f"a list of token ids in 0..{vocabulary - 1}, at least one")
    return value


def check_order(messages: Sequence[Message], column: str) -> None:
    """Raises if a role cannot follow the one before it: system first, then user and assistant in turn."""
    previous = None
    for i, message in enumerate(messages):
        role = message["role"]
        if role not in _BEFORE:
            raise DataError(
                f"column '{column}' message {i} has the role {role!r}; expected one of {', '.join(_BEFORE)}"
            )
        if previous not in _BEFORE[role]:
            place = f"follows {previous!r}" if previous else "comes first"
            raise DataError(
                f"column '{column}' message {i} is from {role!r} and {place}; "
                "expected an optional system message, then user and assistant in turn; merge or drop messages"
            )
        previous = role


def check_open(prompt: Sequence[Message]) -> None:
    """Raises if the assistant spoke last, so that it is not its turn."""
    if prompt[-1]["role"] == "assistant":
        raise DataError(
            "column 'prompt' ends with an assistant message; expected another role last; fix or drop the row"
        )


def wrong(column: str, value: object, expected: str) -> DataError:
    """The error for a value that is not what its column needs."""
    return DataError(f"column '{column}' is {_shown(value)}; expected {expected}; fix or drop the row")


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
