"""Reward functions by TRL's contract: asked once per batch of completions, combined into one number for each.

Every function is called by keyword with `prompts`, `completions`, `completion_ids`, every other column of the data,
`trainer_state`, `log_extra` and `log_metric`, so it must accept `**kwargs`. It answers one finite number per
completion, or None where it does not apply. It may be `async`.
"""

import asyncio
import inspect
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float

from tokenq.errors import ConfigError, RewardError

Prompt = str | list[dict[str, Any]]
"""A plain text, or a list of messages with `role` and `content`."""

Answer = Sequence[float | None]
RewardFunction = Callable[..., Answer | Awaitable[Answer]]

# Columns that reach a reward function under another name, or that belong to one completion only.
_HIDDEN_COLUMNS = frozenset({"prompt", "completion", "completion_ids"})
_RESERVED_COLUMNS = frozenset({"prompts", "completions", "trainer_state", "log_extra", "log_metric"})
TABLE_COLUMNS = frozenset({"step", "prompt", "completion", "reward", "terminated"})
"""What every table of completions holds, whatever the reward functions."""


@dataclass(frozen=True)
class TrainerState:
    """How far training is, for rewards that change along the way: the update reached and the last one planned."""

    global_step: int
    max_steps: int


@dataclass(frozen=True, eq=False)
class Scores:
    """What all reward functions said about n completions.

    `total` is the weighted sum of the answers, NaN where every function answered None. `parts` holds each function's
    own answers by name. `metrics` are scalars for the log: mean and deviation of each function and whatever was passed
    to `log_metric`. `extras` are the columns passed to `log_extra`, one value per completion.
    """

    total: Float[np.ndarray, "n"]
    parts: dict[str, list[float | None]]
    metrics: dict[str, float]
    extras: dict[str, list[Any]]


class _Log:
    """What one reward function writes down while it scores."""

    def __init__(self) -> None:
        self.extras: dict[str, list[Any]] = {}
        self.metrics: dict[str, list[float]] = {}

    def extra(self, column: str, values: Sequence[Any]) -> None:
        self.extras.setdefault(column, []).extend(values)

    def metric(self, name: str, value: SupportsFloat) -> None:
        self.metrics.setdefault(name, []).append(float(value))


class Rewards:
    """Several reward functions as one.

    Args:
        functions: At least one function.
        weights: One finite factor per function; None means 1 for each.

    Raises:
        ConfigError: No function, or weights that do not match the functions.
    """

    def __init__(self, functions: Sequence[RewardFunction], weights: Sequence[float] | None = None) -> None:
        if not functions:
            raise ConfigError("reward_funcs: got no reward function, expected at least one; name one as 'file.py:name'")
        self._functions = tuple(functions)
        self._names = _unique_names(self._functions)
        given = [1.0] * len(functions) if weights is None else list(weights)
        if len(given) != len(functions) or not np.isfinite(given).all():
            raise ConfigError(
                f"reward_weights: got {given}, expected {len(functions)} finite numbers, one for each of "
                f"{', '.join(self._names)}"
            )
        self._weights = np.asarray(given, dtype=np.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """The functions' names in order, each one unique; they name the metrics and the columns of the table."""
        return self._names

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Prompt],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
        state: TrainerState,
    ) -> Scores:
        """Score n completions with every function; asynchronous ones wait at the same time.

        Raises:
            RewardError: A function raised, answered the wrong number of values, or something that is not finite.
        """
        keywords = {
            "prompts": list(prompts),
            "completions": list(completions),
            "completion_ids": [list(ids) for ids in completion_ids],
            **_passed_on(columns, len(prompts)),
            "trainer_state": state,
        }
        logs = [_Log() for _ in self._functions]
        answers = self._ask(keywords, logs)
        parts = {
            name: _checked_answer(name, answer, prompts) for name, answer in zip(self._names, answers, strict=True)
        }
        values = np.array(list(parts.values()), dtype=np.float64)  # None becomes NaN
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.where(np.isnan(values), 0.0, self._weights[:, None] * values).sum(axis=0)
        if not np.isfinite(sums).all():
            raise RewardError(f"the weighted sum of {', '.join(self._names)} is not finite; lower reward_weights")
        total = np.where(np.isnan(values).all(axis=0), np.nan, sums)
        return Scores(
            total=total,
            parts=parts,
            metrics=reward_stats(parts) | _merged_metrics(logs),
            extras=_merged_extras(dict(zip(self._names, logs, strict=True)), len(prompts)),
        )

    def _ask(self, keywords: dict[str, Any], logs: Sequence[_Log]) -> list[Any]:
        calls: list[Callable[[], Any]] = [
            partial(function, **keywords, log_extra=log.extra, log_metric=log.metric)
            for function, log in zip(self._functions, logs, strict=True)
        ]
        waiting = [i for i, function in enumerate(self._functions) if _is_async(function)]
        outcomes = {i: _outcome(call) for i, call in enumerate(calls) if i not in waiting}
        outcomes |= zip(waiting, _gathered([calls[i] for i in waiting]), strict=True)
        for i, name in enumerate(self._names):
            if isinstance(error := outcomes[i], BaseException):
                raise RewardError(
                    f"reward function '{name}' raised {type(error).__name__}: {_one_line(str(error))}; while scoring "
                    f"completions 0 to {len(keywords['prompts']) - 1}, first prompt {_shortened(keywords['prompts'])}"
                ) from error
        return [outcomes[i] for i in range(len(calls))]


def reward_stats(parts: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Mean and standard deviation (n-1 in the denominator) of each function's answers, None left out.

    Returns:
        `rewards/<name>/mean` and `rewards/<name>/std`; NaN where there are too few answers to tell.
    """
    stats = {}
    for name, answers in parts.items():
        rated = [answer for answer in answers if answer is not None]
        stats[f"rewards/{name}/mean"] = float(np.mean(rated)) if rated else math.nan
        stats[f"rewards/{name}/std"] = float(np.std(rated, ddof=1)) if len(rated) > 1 else math.nan
    return stats


def _unique_names(functions: Sequence[RewardFunction]) -> tuple[str, ...]:
    names: list[str] = []
    for function in functions:
        plain = function.func if isinstance(function, partial) else function
        name = getattr(plain, "__name__", type(plain).__name__)
        candidates = (name if i == 1 else f"{name}_{i}" for i in range(1, len(functions) + 1))
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return tuple(names)


def _passed_on(columns: Mapping[str, Sequence[Any]], n: int) -> dict[str, list[Any]]:
    if taken := sorted(_RESERVED_COLUMNS & columns.keys()):
        raise RewardError(f"column '{taken[0]}' has a name that reward functions receive already; rename it")
    for name, values in columns.items():
        if len(values) != n:
            raise RewardError(f"column '{name}' has {len(values)} values, expected one for each of {n} prompts")
    return {name: list(values) for name, values in columns.items() if name not in _HIDDEN_COLUMNS}


def _is_async(function: RewardFunction) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _outcome(call: Callable[[], Any]) -> Any:
    """The answer, or the exception raised instead of one: all functions are judged in order, once all are done."""
    try:
        return call()
    except Exception as error:
        return error


def _gathered(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    if not calls:
        return []

    async def answer(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    async def gather() -> list[Any]:
        return await asyncio.gather(*map(answer, calls), return_exceptions=True)

    return asyncio.run_coroutine_threadsafe(gather(), _background_loop()).result()


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """One event loop for the life of the process.

    It has its own thread because a notebook's thread runs a loop already, and it stays open because HTTP clients kept
    by a reward function belong to the loop they were made in.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="tokenq-rewards", daemon=True).start()
    return loop


def _checked_answer(name: str, answer: Any, prompts: Sequence[Prompt]) -> list[float | None]:
    try:
        values = list(answer)
    except TypeError as error:
        raise RewardError(
            f"reward function '{name}' answered {type(answer).__name__}, expected a list of {len(prompts)} numbers; "
            f"first prompt {_shortened(prompts)}"
        ) from error
    if len(values) != len(prompts):
        raise RewardError(
            f"reward function '{name}' answered {len(values)} values for {len(prompts)} completions; "
            f"return one per completion; first prompt {_shortened(prompts)}"
        )
    return [None if value is None else _finite(name, value, i, prompts) for i, value in enumerate(values)]


def _finite(name: str, value: Any, index: int, prompts: Sequence[Prompt]) -> float:
    complaint = (
        f"reward function '{name}' answered {_one_line(repr(value))} for completion {index} (prompt "
        f"{_shortened(prompts, index)}); expected a finite number, or None where it does not apply"
    )
    if not isinstance(value, SupportsFloat):
        raise RewardError(complaint)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RewardError(complaint) from error
    if not math.isfinite(number):
        raise RewardError(complaint)
    return number


def _merged_metrics(logs: Sequence[_Log]) -> dict[str, float]:
    merged: dict[str, list[float]] = {}
    for log in logs:
        for name, values in log.metrics.items():
            merged.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in merged.items()}


def _merged_extras(logs: Mapping[str, _Log], n: int) -> dict[str, list[Any]]:
    writers = Counter([*TABLE_COLUMNS, *logs, *(column for log in logs.values() for column in log.extras)])
    for name, log in logs.items():
        for column, values in log.extras.items():
            if writers[column] > 1:
                raise RewardError(
                    f"reward function '{name}': log_extra column '{column}' is taken; choose another name"
                )
            if len(values) != n:
                raise RewardError(
                    f"reward function '{name}': log_extra column '{column}' got {len(values)} values, expected {n}, "
                    "one per completion"
                )
    return {column: values for log in logs.values() for column, values in log.extras.items()}


def _shortened(prompts: Sequence[Prompt], index: int = 0) -> str:
    prompt = prompts[index] if prompts else ""
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "")) if prompt else ""
    return repr(_one_line(text, 60))


def _one_line(text: str, width: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
