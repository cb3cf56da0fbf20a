"""The help text of a verb: one entry for every option of the classes chosen so far, one section for every group."""

from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, Literal

from jsonargparse import ArgumentParser

from tokenq.config.fields import docs_of, item, tag
from tokenq.config.resolve import Resolution


def print_help(resolution: Resolution, prog: str, positional: Sequence[str]) -> None:
    """Print the help text; `positional` are the fields that are given without a flag."""
    lists = [name for name in positional if item(resolution.leaves[name].field.hint) is not None]
    place = " ".join(f"{name.upper()}{' ...' if name in lists else ''}" for name in positional) or "[CONFIG.yaml]"
    description = (resolution.cls.__doc__ or "").split("\n\n")[0]
    parser = ArgumentParser(prog=prog, usage=f"{prog} {place} [--option VALUE ...]", description=description)
    parser.add_argument("--print_config", action="store_true", default=SUPPRESS, help="Print all options and stop.")
    sections: dict[str, Any] = {}
    for key in resolution.order:
        if key in positional or (key in resolution.options and not resolution.options[key][1].tagged):
            continue
        group = key.split(".")[0]
        if group in resolution.leaves:
            section: Any = parser
        elif group in sections:
            section = sections[group]
        else:
            section = sections[group] = parser.add_argument_group(group)
        _add_leaf(section, resolution, key) if key in resolution.leaves else _add_type(section, resolution, key)
    parser.print_help()


def _add_leaf(section: Any, resolution: Resolution, key: str) -> None:
    leaf = resolution.leaves[key]
    doc = docs_of(leaf.owner).get(leaf.field.name, "")
    items = item(leaf.field.hint)
    section.add_argument(
        f"--{key}",
        type=leaf.field.hint if items is None else items,
        **({"required": True} if leaf.default is MISSING else {"default": leaf.default}),
        help=doc if items is None else f"{doc} Repeatable.".strip(),
    )


def _add_type(section: Any, resolution: Resolution, key: str) -> None:
    owner, options = resolution.options[key]
    chosen = resolution.chosen[key]
    doc = docs_of(owner).get(key.split(".")[-1], "")
    section.add_argument(
        f"--{key}.type",
        type=Literal[options.tags],
        default="null" if chosen is None else tag(chosen),
        help=f"{doc} Short: --{key}.".strip(),
    )
