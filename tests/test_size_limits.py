"""The house stays small: files of at most 300 lines, functions of 60, 8 parameters, and no drawer called utils."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "examples", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 300, 60, 8
DRAWERS = {"utils", "util", "helpers", "common", "misc", "core", "base"}

# "path" or "path:function" -> why it may be larger.
EXCEPTIONS: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters(function: Function) -> int:
    """How many parameters a caller sees: `self` and `cls` do not count."""
    arguments = function.args
    names = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    return len([name for name in names if name not in ("self", "cls")])


def too_large(where: str, source: str) -> dict[str, str]:
    """What breaks a limit: "path" or "path:function" -> what was found."""
    lines = len(source.splitlines())
    found = {where: f"{lines} lines"} if lines > MAX_FILE_LINES else {}
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MAX_FUNCTION_LINES:
            found[f"{where}:{function.name}"] = f"{length} lines"
        if parameters(function) > MAX_PARAMETERS:
            found[f"{where}:{function.name}"] = f"{parameters(function)} parameters"
    return found


def all_too_large() -> dict[str, str]:
    """What breaks a limit anywhere."""
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    return {place: what for where, source in sources.items() for place, what in too_large(where, source).items()}


def test_nothing_is_too_large() -> None:
    assert {where: what for where, what in all_too_large().items() if where not in EXCEPTIONS} == {}


def test_every_exception_is_still_needed_and_gives_a_reason() -> None:
    assert EXCEPTIONS.keys() <= all_too_large().keys()
    assert all(len(reason.split()) >= 3 for reason in EXCEPTIONS.values())


def test_there_is_no_drawer() -> None:
    names = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert names & DRAWERS == set()


def test_the_limits_see_what_is_too_large() -> None:
    long = "async def long():\n" + "    x = 1\n" * 60
    wide = "class A:\n    def wide(self, a, b, /, c, d, e, *, f, g, h, i): ...\n"
    right = "    def right(self, a, b, c, d, e, f, g, h): ...\n"
    assert too_large("f.py", long + wide + right) == {"f.py:long": "61 lines", "f.py:wide": "9 parameters"}
    assert too_large("f.py", "x = 1\n" * 301) == {"f.py": "301 lines"}
