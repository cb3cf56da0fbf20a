"""One value and its type: from YAML content, or from the texts of the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from tokenq.config.fields import NULL, item, members

FREE = dict[str, Any]


def typed(hint: Any, value: Any) -> Any:
    """A value from a file, as its type; `1` is a float where one is expected, and so is `1e-3`.

    Raises:
        ArgumentError: it is no such thing.
    """
    if isinstance(value, Mapping) and FREE in members(hint):
        return dict(value)  # as it stands: the parser would make a number of the text '6' in it
    items = item(hint)
    if items is not None and isinstance(value, list):
        return [typed(items, part) for part in value]
    return _parser(hint).parse_object({"value": value})["value"]


def from_texts(hint: Any, texts: Sequence[str]) -> Any:
    """Texts from the command line, as a type: the last one counts, but each is an item where a list is expected.

    Raises:
        ArgumentError, YAMLError: a text is no such thing.
    """
    items = item(hint)
    if items is None or (texts[-1] == "null" and NULL in members(hint)):
        return _from_text(hint, texts[-1])
    return [] if list(texts) == ["[]"] else [_from_text(items, text) for text in texts]


def _from_text(hint: Any, text: str) -> Any:
    if FREE in members(hint) and text.startswith("{"):
        return typed(hint, yaml.safe_load(text))
    return _parser(hint).parse_args([f"--value={text}"])["value"]


def _parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(prog="", exit_on_error=False, add_help=False)
    parser.add_argument("--value", type=hint)
    return parser
