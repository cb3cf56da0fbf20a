"""The command line and YAML files of every verb: argument strings in, one checked configuration object out.

    tokenq train CONFIG.yaml --objective dqn --objective.gamma 0.99

A field without a default is a positional argument, and all of them if it is a list; a class that has none takes a YAML
file there. `--group name` is short for `--group.type name`, `--flag` for `--flag true`; an option for a list may be
repeated, one item each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tokenq.config.fields import fields_of, item, tag
from tokenq.config.help import print_help
from tokenq.config.resolve import Resolution
from tokenq.errors import ConfigError

C = TypeVar("C")


@dataclass
class _Words:
    """A command line, sorted."""

    positional: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)
    bare: list[str] = field(default_factory=list)
    help: bool = False
    print_config: bool = False


def parse(argv: Sequence[str], cls: type[C], prog: str = "tokenq") -> C:
    """The configuration that a command line asks for: its options beat its YAML file, which beats the defaults.

    `--help` and `--print_config` print and end the program with status 0.

    Raises:
        ConfigError: anything the user must put right, in one line.
    """
    words = _sort(argv)
    wanted = [spec for spec in fields_of(cls) if spec.default is MISSING]
    required = [spec.name for spec in wanted]
    several = len(wanted) == 1 and item(wanted[0].hint) is not None
    mapping, source = _positionals(words, required, several)
    resolution = Resolution(cls, mapping, source, words.options)
    for key in words.bare:
        if key not in resolution.leaves or resolution.leaves[key].field.hint is not bool:
            raise ConfigError(f"--{key}: got no value, expected one, as in --{key} VALUE or --{key}=VALUE")
    if words.help:
        print_help(resolution, prog, required)
        raise SystemExit(0)
    config: C = resolution.build()
    if words.print_config:
        print(dump(config), end="")
        raise SystemExit(0)
    return config


def names(argv: Sequence[str], key: str) -> bool:
    """Whether a command line, or the YAML file that it names, sets this key or something inside it.

    Raises:
        ConfigError: the file cannot be read.
    """
    words = _sort(argv)
    set_there = _read_yaml(Path(words.positional[0])) if words.positional else {}
    return any(name == key or name.startswith(f"{key}.") for name in (*words.options, *set_there))


def from_mapping(cls: type[C], mapping: Mapping[str, Any], source: str) -> C:
    """The configuration that a mapping describes; `source` names it in errors.

    Raises:
        ConfigError: as for `parse`.
    """
    config: C = Resolution(cls, mapping, source, {}).build()
    return config


def from_file(cls: type[C], path: Path) -> C:
    """The configuration in a YAML file, as `dump` writes it.

    Raises:
        ConfigError: as for `parse`.
    """
    return from_mapping(cls, _read_yaml(path), path.name)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`, with every default spelled out."""
    mapping: dict[str, Any] = {}
    for spec in fields_of(type(config)):
        value = getattr(config, spec.name)
        if spec.options is not None and value is not None:
            kind = {"type": tag(type(value))} if spec.options.tagged else {}
            mapping[spec.name] = kind | to_mapping(value)
        else:
            mapping[spec.name] = value
    return mapping


def dump(config: Any) -> str:
    """A configuration as YAML text with every default spelled out."""
    text: str = yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)
    return text


def _sort(argv: Sequence[str]) -> _Words:
    words = _Words()
    rest = list(reversed(argv))
    while rest:
        word = rest.pop()
        if word in ("-h", "--help"):
            words.help = True
        elif word == "--print_config":
            words.print_config = True
        elif not word.startswith("--"):
            words.positional.append(word)
        else:
            key, equals, text = word.removeprefix("--").partition("=")
            if not equals and (not rest or rest[-1].startswith("--")):
                words.bare.append(key)
                text = "true"
            elif not equals:
                text = rest.pop()
            words.options.setdefault(key, []).append(text)
    return words


def _positionals(words: _Words, required: Sequence[str], several: bool) -> tuple[Mapping[str, Any], str]:
    """Give positional words to the required fields, or take the one word as a YAML file: its content and name.

    `several`: the one required field is a list, and takes all words.
    """
    if several:
        if words.positional:
            words.options[required[0]] = words.positional
        return {}, "command line"
    expected = required or ["CONFIG.yaml"]
    if len(words.positional) > len(expected):
        raise ConfigError(f"got {' '.join(words.positional)!r}, expected only {' '.join(expected)} and --options")
    if required:
        words.options.update({name: [word] for name, word in zip(required, words.positional, strict=False)})
        return {}, "command line"
    if not words.positional:
        return {}, "defaults"
    path = Path(words.positional[0])
    return _read_yaml(path), path.name


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader), path.name)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; expected a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: got a {type(content).__name__}, expected lines of the form key: value")
    return {str(key): value for key, value in content.items()}


def _refuse_duplicates(node: Any, name: str) -> None:
    """YAML keeps the last of two equal keys without a word; we do not."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if str(key.value) in seen:
            raise ConfigError(f"{name} line {key.start_mark.line + 1}: key {key.value!r} stands there twice; keep one")
        seen.add(str(key.value))
        _refuse_duplicates(value, name)
