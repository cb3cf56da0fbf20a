"""Which episodes, prompts and rewards a run learns from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tokenq.acting.loading_by_name import load_factory, load_reward
from tokenq.acting.rewards import RewardFunction, Rewards
from tokenq.config.fields import tag
from tokenq.config.train import MadeTask, TrainConfig
from tokenq.envs.examples import Numbered
from tokenq.envs.guard import Guarded
from tokenq.envs.text import Game, TextEnvironment
from tokenq.errors import ConfigError, DataError
from tokenq.nets.reward_model import SequenceClassifierReward
from tokenq.replay.rows import read_rows
from tokenq.run.given import Given, Rows

OwnRows = MadeTask | Game
"""Tasks that make their own rows and know their bounds."""
SCORES = frozenset({"reward", "rewards", "label", "chosen"})
ANSWERS = frozenset({"messages", "completion", "completion_ids", "chosen"})


@dataclass(frozen=True, eq=False)
class Playable:
    """A game of several turns: what makes an environment, and the arguments that its games begin with."""

    make: Callable[[], TextEnvironment]
    starts: Rows


@dataclass(frozen=True, eq=False)
class Data:
    """Rows by use, and the game if there is one. `bounds` are scores known beforehand, such as the best possible one.

    Prompts are there once each; `prompt_numbers` and `eval_numbers` say which row of its source each one is, from 1.
    """

    name: str
    scored: Rows
    scored_source: str
    prompts: Rows
    prompt_numbers: Sequence[int]
    prompts_source: str
    eval_prompts: Rows
    eval_numbers: Sequence[int]
    eval_source: str
    rewards: Rewards | None
    bounds: Mapping[str, float]
    game: Playable | None = None


def load_data(config: TrainConfig, given: Given) -> Data:
    """Read every file that the configuration names and every reward function."""
    functions = [*given.rewards, *(_reward(spec) for spec in config.reward_funcs)]
    game = _game(config, given)
    if config.task is not None and not isinstance(config.task, Game):
        functions = functions or [config.task.reward]
    if config.reward_weights is not None and not functions:
        raise ConfigError(f"reward_weights: got {config.reward_weights} without reward_funcs; set both or neither")
    rows, source = _main_rows(config, given)
    prompts_source = source
    if game is not None:
        prompts: Sequence[Numbered] = []
    elif config.prompt_dataset is not None:
        prompts, prompts_source = numbered_prompts(config, config.prompt_dataset), config.prompt_dataset
    elif isinstance(config.task, MadeTask) and not config.dataset:
        prompts = _distinct(_numbered(config.task.prompts()))
    else:
        prompts = _distinct(_numbered(rows), config.prompt_words)
    evaluated, eval_source = prompts, prompts_source
    if config.eval_dataset is not None:
        evaluated, eval_source = numbered_prompts(config, config.eval_dataset), config.eval_dataset
        if config.prompt_dataset is not None:
            check_against(config, [row for _, row in prompts], evaluated, eval_source)
    elif isinstance(config.task, MadeTask) and not config.dataset:
        evaluated = _distinct(_numbered(config.task.eval_prompts()))
    elif given.eval_rows is not None:
        evaluated, eval_source = _all_prompts(_numbered(given.eval_rows), None, "eval_dataset"), "eval_dataset"
    return Data(
        name=_name(config),
        scored=_scored(rows, source, bool(functions)),
        scored_source=source,
        prompts=[row for _, row in prompts],
        prompt_numbers=[number for number, _ in prompts],
        prompts_source=prompts_source,
        eval_prompts=[row for _, row in evaluated],
        eval_numbers=[number for number, _ in evaluated],
        eval_source=eval_source,
        rewards=Rewards(functions, config.reward_weights) if functions else None,
        bounds=config.task.bounds() if isinstance(config.task, OwnRows) else {},
        game=game,
    )


def _game(config: TrainConfig, given: Given) -> Playable | None:
    """The game that is played: a task, or what the user's own factory makes, guarded against its failures."""
    starts = None if config.prompt_dataset is None else partial(read_rows, config.prompt_dataset)
    if config.game is not None:
        return Playable(config.game.make, (starts or config.game.starts)())
    make = given.environment_factory
    if make is None and config.environment_factory is not None:
        make = load_factory(config.environment_factory, "environment_factory")
    if make is None:
        return None
    made = make()
    if not isinstance(made, TextEnvironment) and callable(getattr(made, "make", None)):
        make = made.make
        made = make()
    if not isinstance(made, TextEnvironment):
        raise ConfigError(
            f"environment_factory: got a {type(made).__name__}, expected an object with the methods reset and step, or "
            "with a method make that makes one"
        )
    return Playable(lambda: Guarded(make, config.environment_timeout), [{}] if starts is None else starts())


@lru_cache(maxsize=1)
def made_rows(task: OwnRows) -> Rows:
    """The rows of a task that makes its own; the stages of a run read the same ones."""
    return task.rows()


def _main_rows(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    if given.rows is not None:
        return [dict(row) for row in given.rows], "train_dataset"
    if config.dataset is not None:
        return read_rows(config.dataset), config.dataset
    if isinstance(config.task, OwnRows):
        return made_rows(config.task), _name(config)
    if config.prompt_dataset is not None:
        return [], config.prompt_dataset
    if config.environment_factory is not None or given.environment_factory is not None:
        return [], "environment_factory"
    raise ConfigError(
        "dataset: got none, expected a file of scored rows or of prompts; set dataset, prompt_dataset or task"
    )


def _scored(rows: Rows, source: str, judged: bool) -> Rows:
    """All rows or none; `judged` if there is a reward function."""
    # With something to score fresh text with, a prompt's column of such a name is the reward functions' business.
    rated = [bool(SCORES & row.keys() and (ANSWERS & row.keys() or not judged)) for row in rows]
    if not any(rated) or all(rated):
        return rows if any(rated) else []
    first = rated.index(False)
    lacks = "a reward and no completion" if SCORES & rows[first].keys() else "no reward"
    wanted = f"one of {', '.join(sorted(SCORES))}, and what it rates, as in the other rows"
    raise DataError(f"{source} row {first + 1}: {lacks}; expected {wanted}; fix or drop the row")


def _reward(spec: str | Mapping[str, Any]) -> RewardFunction:
    path = spec if isinstance(spec, str) else spec.get("path")
    if isinstance(path, str) and ":" not in path:
        return SequenceClassifierReward(path, **(dict(spec.get("args") or {}) if isinstance(spec, Mapping) else {}))
    return load_reward(spec)


def numbered_prompts(config: TrainConfig, source: str) -> Sequence[Numbered]:
    """The prompts of a file, once each and in order, by their rows; raises `DataError` for a row without one."""
    return _all_prompts(numbered_examples(config, source), config.prompt_words, source)


def numbered_examples(config: TrainConfig, source: str) -> Sequence[Numbered]:
    """The rows of a file, as the task understands them: with prompt, completion and references, by their numbers."""
    rows = read_rows(source)
    if config.row_task is None:
        return _numbered(rows)
    with _located(source):
        found = config.row_task.numbered(rows)
    if not found:
        raise DataError(f"{source}: has {len(rows)} rows and no question; expected at least one")
    return found


def is_scored(row: Mapping[str, Any]) -> bool:
    """Whether a row is an episode with its score, and none of a task's."""
    return bool(SCORES & row.keys() and ANSWERS & row.keys())


def check_against(config: TrainConfig, train: Rows, evaluated: Sequence[Numbered], source: str) -> None:
    """Raise `DataError`, with file and row, if the task finds something evaluated that training does not teach."""
    if config.row_task is not None:
        with _located(source):
            config.row_task.check(train, evaluated)


@contextmanager
def _located(source: str) -> Iterator[None]:
    """Names the file of a row that a task complains of."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source} {error}") from error


def _numbered(rows: Iterable[Mapping[str, Any]]) -> Sequence[Numbered]:
    return list(enumerate(rows, 1))


def _all_prompts(rows: Sequence[Numbered], words: int | None, source: str) -> Sequence[Numbered]:
    """The prompts of rows that must all have one."""
    for number, row in rows:
        if _prompted(row, words) is None:
            raise DataError(f"{source} row {number}: no prompt; expected a column prompt, or prompt_words and a text")
    return _distinct(rows, words)


def _distinct(rows: Sequence[Numbered], words: int | None = None) -> Sequence[Numbered]:
    """The prompt of each row, once and in order; what rates an answer is no longer a prompt's."""
    seen: dict[str, Numbered] = {}
    for number, row in rows:
        prompted = _prompted(row, words)
        if prompted is not None:
            dropped = SCORES | {"completion", "rejected", "completion_ids"} if ANSWERS & row.keys() else frozenset()
            kept = {name: value for name, value in prompted.items() if name not in dropped}
            seen.setdefault(repr(kept), (number, kept))
    return list(seen.values())


def _prompted(row: Mapping[str, Any], words: int | None) -> Mapping[str, Any] | None:
    """A row with its prompt, cut from its text if that is asked for; None if it has none."""
    if "prompt" in row:
        return row
    text = row.get("text")
    return {"prompt": " ".join(text.split()[:words])} if words is not None and isinstance(text, str) else None


def _name(config: TrainConfig) -> str:
    if config.task is not None:
        return tag(type(config.task))
    if config.environment_factory is not None:
        spec = config.environment_factory
        return str(spec if isinstance(spec, str) else spec.get("path")).rpartition(":")[2].lower()
    return Path(config.dataset or config.prompt_dataset or "texts").stem


def offline_updates(config: TrainConfig, data: Data) -> int:
    """How many updates learn from the scored rows alone, before fresh text comes in."""
    online = data.game is not None or (data.rewards is not None and len(data.prompts) > 0)
    if not data.scored and data.rewards is not None and not online:
        raise DataError(f"{data.prompts_source}: no row has a prompt or a reward; expected a column prompt")
    if not data.scored and not online:
        raise ConfigError("got rows without scores and no reward function; add a reward column, or set reward_funcs")
    if config.offline_steps is None:
        return 0 if not data.scored else config.max_steps // 2 if online else config.max_steps
    if config.offline_steps > 0 and not data.scored:
        raise ConfigError(f"offline_steps: got {config.offline_steps}, but no row has a reward; set it to 0")
    if config.offline_steps < config.max_steps and not online:
        raise ConfigError(
            f"offline_steps: got {config.offline_steps} of {config.max_steps}, but there is no reward function for "
            "fresh text; set reward_funcs, or leave offline_steps out"
        )
    return config.offline_steps
