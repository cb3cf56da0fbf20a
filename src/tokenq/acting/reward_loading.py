"""Finds a reward function by the name it has in a configuration."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tokenq.acting.rewards import RewardFunction
from tokenq.errors import ConfigError

_FORMS = "'package.module:name' or 'path/file.py:name'"


def load_reward(spec: str | Mapping[str, Any]) -> RewardFunction:
    """Import one reward function.

    Args:
        spec: `package.module:name`, `path/file.py:name` (relative to the working directory), or a mapping
            `{path: ..., args: {...}}` whose path is one of these. A class is instantiated, with `args` if given.
            Anything else is taken as it is without `args`, and called with them to make the function otherwise.

    Raises:
        ConfigError: Nothing callable is there; the message says what is.
    """
    if isinstance(spec, str):
        return _loaded(spec, None)
    path, args = spec.get("path"), spec.get("args")
    if not isinstance(path, str) or not isinstance(args, Mapping | None) or spec.keys() - {"path", "args"}:
        raise ConfigError(f"reward_funcs: got {dict(spec)}, expected {{path: ..., args: {{...}}}} with path {_FORMS}")
    return _loaded(path, args)


def _loaded(spec: str, args: Mapping[str, Any] | None) -> RewardFunction:
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        raise ConfigError(f"reward_funcs: got '{spec}', expected {_FORMS}")
    module = _from_file(Path(place), spec) if place.endswith(".py") else _from_package(place, name)
    if not hasattr(module, name):
        raise ConfigError(f"reward_funcs: '{place}' has no '{name}'; {_instead(name, _own_callables(module))}")
    found = getattr(module, name)
    if inspect.isclass(found) or args is not None:
        found = _made(found, args or {}, spec)
    if not callable(found):
        raise ConfigError(f"reward_funcs: '{spec}' is {type(found).__name__}, expected something that can be called")
    reward: RewardFunction = found
    return reward


def _from_file(path: Path, spec: str) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        files = (file.name for file in path.parent.glob("*.py"))
        raise ConfigError(f"reward_funcs: no file {path}; {_instead(path.name, files)}")
    # The digest keeps two files of one name apart; being listed is what dataclasses and pickle ask of a module.
    title = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(title, path)
    if found is None or found.loader is None:
        raise ConfigError(f"reward_funcs: '{spec}' is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[title] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[title]
        raise _import_failed(spec, error) from error
    return module


def _from_package(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise _import_failed(place, error) from error
        file = Path(*place.split(".")).with_suffix(".py")
        advice = f"did you mean '{file}:{name}'?" if file.is_file() else f"install it, or name a file: {_FORMS}"
        raise ConfigError(f"reward_funcs: no module '{error.name}'; {advice}") from error
    except Exception as error:
        raise _import_failed(place, error) from error


def _own_callables(module: ModuleType) -> list[str]:
    package = module.__name__.partition(".")[0]

    def is_own(value: object) -> bool:
        return callable(value) and str(getattr(value, "__module__", "")).partition(".")[0] == package

    return [name for name, value in vars(module).items() if is_own(value) and not name.startswith("_")]


def _made(factory: Any, args: Mapping[str, Any], spec: str) -> Any:
    try:
        return factory(**args)
    except Exception as error:
        raise ConfigError(f"reward_funcs: calling '{spec}' with {dict(args)} failed: {_said(error)}") from error


def _import_failed(place: str, error: Exception) -> ConfigError:
    return ConfigError(f"reward_funcs: importing '{place}' failed: {_said(error)}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _instead(wrong: str, names: Iterable[str]) -> str:
    there = sorted(names)
    if close := difflib.get_close_matches(wrong, there, n=1):
        return f"did you mean '{close[0]}'?"
    return f"there is {', '.join(there)}" if there else "there is none"
