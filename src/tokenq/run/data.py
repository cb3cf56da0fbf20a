"""Which episodes, prompts and rewards a run learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenq.acting.reward_loading import load_reward
from tokenq.acting.rewards import RewardFunction, Rewards
from tokenq.config.schema import TrainConfig
from tokenq.errors import ConfigError, DataError
from tokenq.nets.reward_model import SequenceClassifierReward
from tokenq.replay.rows import read_rows
from tokenq.run.given import Given, Rows

SCORES = frozenset({"reward", "rewards", "label", "chosen"})


@dataclass(frozen=True, eq=False)
class Data:
    """Rows by use. `bounds` are scores known beforehand, such as the best possible one."""

    name: str
    scored: Rows
    scored_source: str
    prompts: Rows
    prompts_source: str
    eval_prompts: Rows
    rewards: Rewards | None
    bounds: Mapping[str, float]


def load_data(config: TrainConfig, given: Given) -> Data:
    """Read every file that the configuration names and every reward function."""
    functions = [*given.rewards, *(_reward(spec) for spec in config.reward_funcs)]
    if config.task is not None:
        functions = functions or [config.task.reward]
    rows, source = _main_rows(config, given)
    scored = [row for row in rows if SCORES & row.keys()]
    if scored and len(scored) < len(rows):
        number = next(i for i, row in enumerate(rows, 1) if not SCORES & row.keys())
        raise DataError(f"{source} row {number}: no reward; expected one of {sorted(SCORES)} as in the other rows")
    prompts, prompts_source = rows, source
    if config.prompt_dataset is not None:
        prompts, prompts_source = read_rows(config.prompt_dataset), config.prompt_dataset
    elif config.task is not None and not config.dataset:
        prompts = config.task.prompts()
    prompts = _distinct(_with_prompts(prompts, config.prompt_words))
    if config.eval_dataset is not None:
        evaluated: Rows = _with_prompts(read_rows(config.eval_dataset), config.prompt_words)
    else:
        evaluated = given.eval_rows if given.eval_rows is not None else prompts
    return Data(
        name=_name(config),
        scored=scored,
        scored_source=source,
        prompts=prompts,
        prompts_source=prompts_source,
        eval_prompts=_distinct(evaluated),
        rewards=Rewards(functions, config.reward_weights) if functions else None,
        bounds={} if config.task is None else config.task.bounds(),
    )


def _main_rows(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    if given.rows is not None:
        return [dict(row) for row in given.rows], "train_dataset"
    if config.dataset is not None:
        return read_rows(config.dataset), config.dataset
    if config.task is not None:
        return config.task.rows(), _name(config)
    if config.prompt_dataset is not None:
        return [], config.prompt_dataset
    raise ConfigError(
        "dataset: got none, expected a file of scored rows or of prompts; set dataset, prompt_dataset or task"
    )


def _reward(spec: str | Mapping[str, Any]) -> RewardFunction:
    path = spec if isinstance(spec, str) else spec.get("path")
    if isinstance(path, str) and ":" not in path:
        return SequenceClassifierReward(path, **(dict(spec.get("args") or {}) if isinstance(spec, Mapping) else {}))
    return load_reward(spec)


def _distinct(rows: Rows) -> list[Mapping[str, Any]]:
    """Rows with each prompt once, in order; what rates an answer is no longer a prompt's."""
    seen: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        kept = {
            name: value
            for name, value in row.items()
            if name not in SCORES | {"completion", "rejected", "completion_ids"}
        }
        seen.setdefault(repr(kept), kept)
    return list(seen.values())


def _with_prompts(rows: Rows, words: int | None) -> list[Mapping[str, Any]]:
    """Rows that have a prompt, cut from their text if that is asked for."""
    if words is not None:
        rows = [row if "prompt" in row or "text" not in row else _cut(row, words) for row in rows]
    return [row for row in rows if "prompt" in row]


def _cut(row: Mapping[str, Any], words: int) -> Mapping[str, Any]:
    return {"prompt": " ".join(row["text"].split()[:words])}


def _name(config: TrainConfig) -> str:
    if config.task is not None:
        return type(config.task).__name__.lower()
    return Path(config.dataset or config.prompt_dataset or "texts").stem


def offline_updates(config: TrainConfig, data: Data) -> int:
    """How many updates learn from the scored rows alone, before fresh text comes in."""
    online = data.rewards is not None and len(data.prompts) > 0
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


def texts(config: TrainConfig, data: Data) -> Sequence[str]:
    """What pretraining reads: whole texts, from `pretrain.dataset` or from the scored rows."""
    rows = read_rows(config.pretrain.dataset) if config.pretrain.dataset else data.scored or data.prompts
    source = config.pretrain.dataset or data.scored_source
    found = []
    for number, row in enumerate(rows, 1):
        text = row.get("text", None if "prompt" not in row else f"{row['prompt']}{row.get('completion') or ''}")
        if not isinstance(text, str):
            raise DataError(
                f"{source} row {number}: no text; expected a column text, or prompt and completion as strings"
            )
        found.append(text)
    return found
