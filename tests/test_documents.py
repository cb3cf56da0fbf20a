"""What the documents say about files is true: links lead somewhere, the tree is the real one, examples are Python."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TREE_LINE = re.compile(r"^( *)(\S+)", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def files_in_the_tree(readme: str) -> list[str]:
    """The paths that the README's tree shows, folders resolved by indentation of two spaces."""
    tree = readme.split("```\nsrc/tokenq/\n")[1].split("```")[0]
    folders: list[str] = []
    files = []
    for indent, entry in TREE_LINE.findall(tree):
        folders = folders[: len(indent) // 2 - 1]
        if entry.endswith("/"):
            folders.append(entry)
        else:
            files.append("".join([*folders, entry]))
    return files


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    package = ROOT / "src" / "tokenq"
    real = [path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.stat().st_size]
    assert sorted(files_in_the_tree((ROOT / "README.md").read_text(encoding="utf-8"))) == sorted(real)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_python_example_compiles(document: Path) -> None:
    for number, block in enumerate(BLOCK.findall(document.read_text(encoding="utf-8"))):
        compile(block, f"{name(document)} block {number}", "exec")


def test_the_readme_has_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command, end in (("train", "tokenq train examples/walks.yaml"), ("test", "python -m pytest -n 2")):
        block = readme.split(f"<!-- command: {command} -->\n```bash\n")[1].split("\n```\n")[0]
        assert block.endswith(end)
