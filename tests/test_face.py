"""The public face: what `tokenq` promises to have is there, documented, and costs nothing until it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tokenq


def names_for_type_checkers() -> dict[str, str]:
    """Name to room, from the `if TYPE_CHECKING` block of the face."""
    tree = ast.parse(Path(tokenq.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    inside = [node for node in imports if node.module and node.module.startswith("tokenq.")]
    return {alias.asname or "": f"{node.module}" for node in inside for alias in node.names}


def test_the_names_are_sorted_and_none_is_private() -> None:
    assert list(tokenq._HOMES) == tokenq.__all__ == sorted(tokenq.__all__)
    assert not [name for name in tokenq.__all__ if name.startswith("_")]


def test_type_checkers_see_the_same_names_in_the_same_rooms() -> None:
    assert names_for_type_checkers() == {name: f"tokenq.{room}" for name, room in tokenq._HOMES.items()}


@pytest.mark.parametrize("name", tokenq.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    thing = getattr(tokenq, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)
    assert name in dir(tokenq)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'QTainer'"):
        _ = tokenq.QTainer


def test_importing_the_face_imports_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "transformers", "jsonargparse", "matplotlib"]
    code = f"import sys, tokenq; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
