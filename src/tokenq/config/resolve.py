"""From what the user wrote to one configuration object: pick every group's class, then type and check every leaf."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from difflib import get_close_matches
from typing import Any

import yaml
from jsonargparse import ArgumentError
from yaml import YAMLError

from tokenq.config.fields import Field, Options, describe, fields_of, item, tag
from tokenq.config.typed import from_texts, typed
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class Leaf:
    """A field of `owner` with a plain value, and the value as the user wrote it.

    `written` is MISSING if nobody gave one; `texts` is true if it is a list of strings from the command line.
    """

    owner: type
    field: Field
    default: Any
    written: Any
    texts: bool


class Resolution:
    """Every leaf and the class of every group, for one configuration class and what a user wrote.

    `mapping` holds the values of a file called `source`; `flags` the texts of each dotted key on the command line, in
    order. The command line beats the file, the file beats the default.
    """

    def __init__(self, cls: type, mapping: Mapping[str, Any], source: str, flags: Mapping[str, Sequence[str]]) -> None:
        self.cls = cls
        self.source = source
        self.flags = dict(flags)
        self.leaves: dict[str, Leaf] = {}
        self.options: dict[str, tuple[type, Options]] = {}
        self.chosen: dict[str, type | None] = {}
        self.order: list[str] = []
        self.unknown: list[str] = []
        self.switched: set[str] = set()
        self.replaced: set[str] = set()
        self._read(cls, mapping, "", None)
        self._refuse_unknown()

    def build(self) -> Any:
        """The configuration object.

        Raises:
            ConfigError: a value is missing, has a wrong type or is out of range; the message names its dotted key.
        """
        return self._build(self.cls, "")

    def _build(self, cls: type, prefix: str) -> Any:
        values: dict[str, Any] = {}
        for field in fields_of(cls):
            key = prefix + field.name
            if field.options is None:
                values[field.name] = self._value(key)
            else:
                chosen = self.chosen[key]
                values[field.name] = None if chosen is None else self._build(chosen, f"{key}.")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{prefix}{error}") from error

    def _value(self, key: str) -> Any:
        leaf = self.leaves[key]
        if leaf.written is MISSING:
            if leaf.default is MISSING:
                raise ConfigError(f"{key}: missing, expected {describe(leaf.field.hint)}")
            return leaf.default
        try:
            return from_texts(leaf.field.hint, leaf.written) if leaf.texts else typed(leaf.field.hint, leaf.written)
        except (ArgumentError, YAMLError):
            several = not leaf.texts or (item(leaf.field.hint) is not None and len(leaf.written) > 1)
            written = leaf.written if several else leaf.written[-1]
            got = f"got {written!r} ({type(written).__name__}), expected {describe(leaf.field.hint)}"
            raise ConfigError(f"{'' if leaf.texts else self.source + ': '}{key}: {got}") from None

    def _read(self, cls: type, mapping: Mapping[str, Any], prefix: str, default: Any) -> None:
        rest = dict(mapping)
        for field in fields_of(cls):
            key = prefix + field.name
            self.order.append(key)
            written = rest.pop(field.name, MISSING)
            initial = field.default if default is None else getattr(default, field.name)
            if field.options is None:
                texts = self.flags.pop(key, None)
                self.leaves[key] = Leaf(cls, field, initial, written if texts is None else texts, texts is not None)
            else:
                self.options[key] = (cls, field.options)
                self._read_group(key, field, field.options, written, None if initial is MISSING else initial)
        self.unknown += [f"{prefix}{name}" for name in rest]

    def _read_group(self, key: str, field: Field, options: Options, written: Any, default: Any) -> None:
        replacement = self._replacement(key)
        written = written if replacement is None else replacement
        inner = {str(name): value for name, value in written.items()} if isinstance(written, Mapping) else {}
        chosen = self._choose(key, options, written, inner, default)
        self.chosen[key] = chosen
        if chosen is None:
            self.unknown += [f"{key}.{name}" for name in inner]
        else:
            self._read(chosen, inner, f"{key}.", field.preset(chosen, default))

    def _replacement(self, key: str) -> Mapping[str, Any] | None:
        """A whole group given on the command line, as in --target.sync '{type: polyak, tau: 0.1}'."""
        texts = self.flags.get(key, ())
        if not texts or not texts[-1].lstrip().startswith("{"):
            return None
        try:
            mapping = yaml.safe_load(texts[-1])
        except YAMLError:
            mapping = None
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"{key}: got {texts[-1]!r}, expected a mapping such as '{{type: …, name: value}}'")
        del self.flags[key]
        self.replaced.add(key)
        return mapping

    def _choose(self, key: str, options: Options, written: Any, inner: dict[str, Any], default: Any) -> type | None:
        """The class that is asked for, or whose fields alone fit; takes the file's `type` out of `inner`."""
        if not options.tagged:
            if written is not MISSING and not isinstance(written, Mapping):
                raise ConfigError(f"{self.source}: {key}: got {written!r}, expected a mapping of its fields")
            (only,) = options.classes.values()
            return only
        in_file = inner.pop("type", MISSING) if isinstance(written, Mapping) else written
        texts = [*self.flags.pop(key, ()), *self.flags.pop(f"{key}.type", ())]
        wanted = texts[-1] if texts else in_file
        if texts and wanted != in_file:
            self.switched.add(key)
        if wanted is not MISSING:
            return _by_tag(key, options, wanted)
        if default is not None:
            return type(default)
        flags = {flag.removeprefix(f"{key}.").split(".")[0] for flag in self.flags if flag.startswith(f"{key}.")}
        if not isinstance(written, Mapping) and not flags:
            return None
        named = flags | inner.keys()
        fitting = [cls for cls in options.classes.values() if named <= {field.name for field in fields_of(cls)}]
        if len(fitting) != 1:
            raise ConfigError(f"{key}.type: missing, expected one of {', '.join(options.tags)}")
        return fitting[0]

    def _refuse_unknown(self) -> None:
        if not self.unknown and not self.flags:
            return
        key = self.unknown[0] if self.unknown else next(iter(self.flags))
        source = "command line" if any(key.startswith(f"{group}.") for group in self.replaced) else self.source
        what, dashes = (f"{source}: unknown key", "") if self.unknown else ("unknown option", "--")
        tagged = [group for group, (_, options) in self.options.items() if options.tagged]
        groups = [group for group in tagged if key.startswith(f"{group}.")]
        where = f" (the type of {groups[-1]} is {_tag_of(self.chosen[groups[-1]])})" if groups else ""
        if self.unknown and groups and groups[-1] in self.switched:
            whole = f"--{groups[-1]} '{{type: {_tag_of(self.chosen[groups[-1]])}}}'"
            raise ConfigError(f"{what} '{key}'{where}; to put another in its place as a whole, write {whole}")
        close = get_close_matches(key, [*self.leaves, *tagged, *(f"{group}.type" for group in tagged)], n=1)
        hint = f"did you mean '{dashes}{close[0]}'?" if close else "--help lists all of them"
        raise ConfigError(f"{what} '{dashes}{key}'{where}; {hint}")


def _by_tag(key: str, options: Options, wanted: Any) -> type | None:
    if options.optional and wanted in (None, "null"):
        return None
    if not isinstance(wanted, str) or wanted not in options.classes:
        raise ConfigError(f"{key}.type: got {wanted!r}, expected one of {', '.join(options.tags)}")
    return options.classes[wanted]


def _tag_of(chosen: type | None) -> str:
    return "null" if chosen is None else tag(chosen)
