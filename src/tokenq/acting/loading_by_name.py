"""Finds reward functions, and what makes environments, by the names they have in a configuration."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    with _about("reward_funcs"):
        path, args = _split(spec)
        found = _found(path)
        if inspect.isclass(found) or args is not None:
            found = _made(found, args or {}, path)
        return _callable(found, path)


def load_factory(spec: str | Mapping[str, Any], key: str) -> Callable[[], Any]:
    """Import what makes an object each time that it is called: a class or a function, with `args` if given.

    Raises:
        ConfigError: Nothing callable is there, or it fails when it is called; the message begins with `key`.
    """
    with _about(key):
        path, args = _split(spec)
        factory = _callable(_found(path), path)

    def make() -> Any:
        with _about(key):
            return _made(factory, args or {}, path)

    return make


@contextmanager
def _about(key: str) -> Iterator[None]:
    """Names the setting that an error is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error.__cause__


def _split(spec: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    if isinstance(spec, str):
        return spec, None
    path, args = spec.get("path"), spec.get("args")
    if not isinstance(path, str) or not isinstance(args, Mapping | None) or spec.keys() - {"path", "args"}:
        raise ConfigError(f"got {dict(spec)}, expected {{path: ..., args: {{...}}}} with path {_FORMS}")
    return path, args


def _found(spec: str) -> Any:
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        raise ConfigError(f"got '{spec}', expected {_FORMS}")
    module = _from_file(Path(place), spec) if place.endswith(".py") else _from_package(place, name)
    if not hasattr(module, name):
        raise ConfigError(f"'{place}' has no '{name}'; {_instead(name, _own_callables(module))}")
    return getattr(module, name)


def _callable(found: Any, spec: str) -> Callable[..., Any]:
    if not callable(found):
        raise ConfigError(f"'{spec}' is {type(found).__name__}, expected something that can be called")
    called: Callable[..., Any] = found
    return called


def _from_file(path: Path, spec: str) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        files = (file.name for file in path.parent.glob("*.py"))
        raise ConfigError(f"no file {path}; {_instead(path.name, files)}")
    # The digest keeps two files of one name apart; being listed is what dataclasses and pickle ask of a module.
    title = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(title, path)
    if found is None or found.loader is None:
        raise ConfigError(f"'{spec}' is no Python file")
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
        raise ConfigError(f"no module '{error.name}'; {advice}") from error
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
        raise ConfigError(f"calling '{spec}' with {dict(args)} failed: {_said(error)}") from error


def _import_failed(place: str, error: Exception) -> ConfigError:
    return ConfigError(f"importing '{place}' failed: {_said(error)}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _instead(wrong: str, names: Iterable[str]) -> str:
    there = sorted(names)
    if close := difflib.get_close_matches(wrong, there, n=1):
        return f"did you mean '{close[0]}'?"
    return f"there is {', '.join(there)}" if there else "there is none"
