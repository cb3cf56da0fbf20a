"""Search spaces: which settings of `tokenq train` may be varied, and how far.

Each entry is checked against the configuration that it varies, by building that configuration with the entry's lowest
and highest value, or with each of its choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import yaml

from tokenq.config.parse import from_mapping, to_mapping
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError

# These say which run it is, or what its score means.
_FIXED = frozenset("output_dir resume seed eval_dataset eval_samples eval_steps".split())


@runtime_checkable
class Suggests(Protocol):
    """What chooses values: a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """One of low, low + step, …, up to high."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices."""


@dataclass(frozen=True)
class Floats:
    """Numbers in [low, high], uniform or, with `log`, uniform in their logarithm."""

    low: float
    high: float
    log: bool

    def suggest(self, trial: Suggests, key: str) -> float:
        """One of them, as the trial chooses."""
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def name(self, value: Any) -> Any:
        """What a trial calls this value; None if it is none of these."""
        return value if isinstance(value, float) and self.low <= value <= self.high else None

    def value(self, name: Any) -> Any:
        """The value that a trial calls so."""
        return name


@dataclass(frozen=True)
class Ints:
    """Integers low, low + step, …, at most high."""

    low: int
    high: int
    step: int
    log: bool

    def suggest(self, trial: Suggests, key: str) -> int:
        """One of them, as the trial chooses."""
        return trial.suggest_int(key, self.low, self.high, step=self.step, log=self.log)

    def name(self, value: Any) -> Any:
        """What a trial calls this value; None if it is none of these."""
        inside = isinstance(value, int) and self.low <= value <= self.high and (value - self.low) % self.step == 0
        return value if inside else None

    def value(self, name: Any) -> Any:
        """The value that a trial calls so."""
        return name


@dataclass(frozen=True)
class Choices:
    """Values of any kind; a trial knows them by their text, `names`. `resolved` has their defaults spelled out."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    resolved: tuple[Any, ...]

    def suggest(self, trial: Suggests, key: str) -> Any:
        """One of them, as the trial chooses."""
        return self.value(trial.suggest_categorical(key, self.names))

    def name(self, value: Any) -> Any:
        """What a trial calls this resolved value; None if it is none of these."""
        return self.names[self.resolved.index(value)] if value in self.resolved else None

    def value(self, name: str) -> Any:
        """The value that a trial calls so."""
        return self.values[self.names.index(name)]


Space = Floats | Ints | Choices


@dataclass(frozen=True)
class _Range:
    """An entry with two ends, as it is written."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ConfigError(f"low: got {self.low}, expected at most high ({self.high})")
        if self.log and self.low <= 0:
            raise ConfigError(f"low: got {self.low}, expected a number > 0 where log is true")
        if self.step is not None and (self.log or self.step < 1):
            raise ConfigError(f"step: got {self.step}, expected an integer >= 1, and none where log is true")


@dataclass(frozen=True)
class _Listed:
    """An entry with choices, as it is written."""

    choices: list[Any]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ConfigError("choices: got none, expected at least one")


def read_search(default: TrainConfig, search: Mapping[str, Any]) -> dict[str, Space]:
    """The space of each dotted key.

    Raises:
        ConfigError: no such key, an entry that is malformed, or a value that the setting does not accept while all
            others are as in `default`.
    """
    for key in search:
        _check_key(key, default, search)
    return {key: _space(key, default, entry) for key, entry in search.items()}


def configured(default: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The configuration with other values at dotted keys; a part that is given takes the place of the whole part.

    Raises:
        ConfigError: these values do not go together.
    """
    mapping = to_mapping(default)
    for key, value in values.items():
        *groups, name = key.split(".")
        inner = mapping
        for group in groups:
            inner = inner[group]
        inner[name] = value
    return from_mapping(TrainConfig, mapping, "search")


def value_at(config: TrainConfig, key: str) -> Any:
    """What a configuration has at a dotted key, as in a YAML file with every default spelled out."""
    value: Any = to_mapping(config)
    for name in key.split("."):
        value = value[name]
    return value


def text_of(value: Any) -> str:
    """A value as one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def _check_key(key: str, default: TrainConfig, search: Mapping[str, Any]) -> None:
    known = list(_dotted(to_mapping(default), ""))
    if key in _FIXED:
        raise ConfigError(f"search: got {key!r}, which must be the same in all trials; set it in config")
    if key not in known:
        close = get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "tokenq train --help lists all of them"
        raise ConfigError(f"search: unknown key {key!r} (with the types that config chooses); {hint}")
    if key.endswith(".type"):
        part = key.removesuffix(".type")
        raise ConfigError(f"search: got {key!r}, expected {part!r}, whose choices take the place of the whole part")
    inside = [other for other in search if key.startswith(f"{other}.")]
    if inside:
        raise ConfigError(f"search: {key!r} lies inside {inside[0]!r}; search one of them, or write it in the choices")


def _dotted(mapping: Mapping[str, Any], prefix: str) -> list[str]:
    keys = []
    for name, value in mapping.items():
        keys += [f"{prefix}{name}", *(_dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else [])]
    return keys


def _space(key: str, default: TrainConfig, entry: Any) -> Space:
    where = f"search.{key}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {entry!r}, expected {{low: …, high: …}} or {{choices: […]}}")
    try:
        if "choices" in entry:
            values = tuple(from_mapping(_Listed, entry, where).choices)
            resolved = tuple(value_at(configured(default, {key: value}), key) for value in values)
            names = tuple(text_of(value) for value in values)
            if len(set(names)) < len(names):
                raise ConfigError(f"choices: got {list(values)}, expected each of them once")
            return Choices(names, values, resolved)
        ends = from_mapping(_Range, entry, where)
        low, high = (value_at(configured(default, {key: end}), key) for end in (ends.low, ends.high))
    except ConfigError as error:
        text = str(error).removeprefix("search: ")
        raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from error
    if type(low) is int and type(high) is int:
        return Ints(low, high, ends.step or 1, ends.log)
    if not isinstance(low, float) or not isinstance(high, float):
        raise ConfigError(f"{where}: got a range, expected choices, since it is no number")
    if ends.step is not None:
        raise ConfigError(f"{where}: got step {ends.step}, expected none, since it is no integer")
    return Floats(low, high, ends.log)
