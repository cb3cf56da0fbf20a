"""What a configuration class looks like from outside: its fields, their help, and the classes a group may choose from.

A *leaf* is a field with a plain value. A *group* is a field whose type is a dataclass or a union of dataclasses; where
there is a choice (several classes, or null) the key `type` of the group names the class in snake_case.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NULL = type(None)
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Options:
    """The classes a group may choose from, by tag; `optional` if null is one of the choices."""

    classes: dict[str, type]
    optional: bool

    @property
    def tagged(self) -> bool:
        """Whether there is anything to choose, and so a key `type`."""
        return self.optional or len(self.classes) > 1

    @property
    def tags(self) -> tuple[str, ...]:
        """Everything that `type` may say."""
        return (*self.classes, "null") if self.optional else tuple(self.classes)


@dataclass(frozen=True)
class Field:
    """One field of a configuration class; `options` is None for a leaf, `default` is MISSING if it must be given."""

    name: str
    hint: Any
    default: Any
    options: Options | None
    alternatives: tuple[Any, ...] = ()

    def preset(self, chosen: type | None, default: Any) -> Any:
        """The object whose fields are the defaults of a class chosen here; None: those of the class itself."""
        return next((one for one in (default, *self.alternatives) if type(one) is chosen), None)


def alternatives(*presets: Any) -> Mapping[str, Any]:
    """Metadata of a group: what other classes than the default's look like here if they are chosen by name alone."""
    return {"alternatives": presets}


def tag(cls: type) -> str:
    """The name of a class in configurations: its own `tag`, or `DoubleDQN` → `double_dqn`."""
    own: str | None = vars(cls).get("tag")
    return own or WORD_START.sub("_", cls.__name__).lower()


def fields_of(cls: type) -> tuple[Field, ...]:
    """The fields of a configuration class, in order."""
    hints = get_type_hints(cls)
    found = []
    for field in fields(cls):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        hint, presets = hints[field.name], field.metadata.get("alternatives", ())
        found.append(Field(field.name, hint, default, _options(hint), presets))
    return tuple(found)


def docs_of(cls: type) -> dict[str, str]:
    """The string literal below each field, its own or inherited, as one line."""
    docs = {}
    for owner in filter(is_dataclass, reversed(cls.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, below in pairwise(definition.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def describe(hint: Any) -> str:
    """A type in the words of an error message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is list:
        return f"a list of {describe(arguments[0])}"
    if origin is dict or hint is dict:
        return "a mapping"
    return "null" if hint is NULL else str(hint.__name__)


def item(hint: Any) -> Any:
    """The type of a list's items; None if the type is no list."""
    lists = [part for part in members(hint) if get_origin(part) is list]
    return get_args(lists[0])[0] if lists else None


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; the type alone if it is none."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _options(hint: Any) -> Options | None:
    alternatives = members(hint)
    classes = {tag(member): member for member in alternatives if is_dataclass(member) and isinstance(member, type)}
    if not classes:
        return None
    if len(classes) + (NULL in alternatives) != len(alternatives):
        raise TypeError(f"{hint}: a group is a dataclass, a union of dataclasses with different names, or null")
    return Options(classes, NULL in alternatives)
