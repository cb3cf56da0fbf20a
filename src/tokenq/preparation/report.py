"""The report: what every step removed, changed and added, as data and as a page to read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from tokenq.preparation.records import Note, Record
from tokenq.preparation.words import count_words

EXAMPLES = 5
_SNIPPET = 80
_PACKAGES = ("tokenq", "datasets", "ftfy", "py3langid", "rensa")


@dataclass(frozen=True, eq=False)
class Step:
    """One step: rows before and after it, and notes on the rows it removed or changed.

    `added` counts rows by what made them, `facts` holds whatever else there is to know.
    """

    name: str
    before: int
    after: int
    removed: Sequence[Note] = ()
    changed: Sequence[Note] = ()
    added: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that is known about one preparation; the same for the same input and settings."""

    files: Mapping[str, int]
    """Rows read, by file."""
    steps: Sequence[Step]
    parts: Mapping[str, Mapping[str, Any]]
    """Figures of each part, by its name."""
    seed: int
    columns: Sequence[str]
    versions: Mapping[str, str]

    @property
    def read(self) -> int:
        """Rows read in all."""
        return sum(self.files.values())

    @property
    def kept(self) -> int:
        """Rows read that are in one of the parts."""
        return self.read - sum(self.removed.values())

    @property
    def removed(self) -> dict[str, int]:
        """Rows read that were removed, by reason, in the order of the steps."""
        reasons: dict[str, int] = {}
        for note in (note for step in self.steps for note in step.removed):
            reasons[note.reason] = reasons.get(note.reason, 0) + 1
        return reasons

    def content(self) -> dict[str, Any]:
        """What report.json holds."""
        return {
            "rows": {"read": self.read, "kept": self.kept, "removed": self.removed},
            "files": dict(self.files),
            "steps": [_step(step, self.columns) for step in self.steps],
            "parts": {name: dict(figures) for name, figures in self.parts.items()},
            "seed": self.seed,
            "versions": dict(self.versions),
        }

    def table(self) -> str:
        """A short table for the terminal: rows read, removed by reason, kept, and the size of each part."""
        lines = [("rows read", self.read)]
        lines += [(f"  removed: {reason}", -count) for reason, count in self.removed.items()]
        lines.append(("rows kept", self.kept))
        lines += [(f"  added: {kind}", count) for step in self.steps for kind, count in step.added.items()]
        lines += [(part, figures["rows"]) for part, figures in self.parts.items()]
        lines += [
            (f"  texts cut to the longest length allowed: {part}", figures["truncated"])
            for part, figures in self.parts.items()
            if figures.get("truncated")
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {count:>10,}" for name, count in lines)

    def page(self) -> str:
        """What report.md says."""
        share = f" ({self.kept / self.read:.1%})" if self.read else ""
        files = "".join(f"| {_cell(file)} | {rows:,} |\n" for file, rows in self.files.items())
        steps = "".join(_section(step, self.columns) for step in self.steps)
        return f"""# Data report

{self.read:,} rows were read and {self.kept:,}{share} kept. Rows are counted from 1 within their file.

![Rows kept and removed by each step](report.png)

| file | rows |
|---|---:|
{files}
## Parts

{_figures(self.parts)}
## Steps

{_overview(self.steps)}
{steps}
Seed {self.seed}; {", ".join(f"{name} {version}" for name, version in self.versions.items())}.
"""


def versions() -> dict[str, str]:
    """The versions of the packages that the result depends on, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def figures_of(records: Sequence[Record], columns: Sequence[str], label: str | None) -> dict[str, Any]:
    """Rows, words and longest text in characters of a part, and how often each label occurs if there are labels."""
    texts = [record.text(column) for record in records for column in columns]
    figures: dict[str, Any] = {
        "rows": len(records),
        "words": sum(map(count_words, texts)),
        "longest_characters": max(map(len, texts)),
    }
    if label is not None:
        figures["labels"] = dict(sorted(Counter(str(record.values[label]) for record in records).items()))
    return figures


def _step(step: Step, columns: Sequence[str]) -> dict[str, Any]:
    return {
        "step": step.name,
        "before": step.before,
        "after": step.after,
        "removed": _grouped(step.removed, columns),
        "changed": _grouped(step.changed, columns),
        "added": dict(step.added),
        "facts": dict(step.facts),
    }


def _grouped(notes: Sequence[Note], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Note]] = {}
    for note in notes:
        groups.setdefault(note.reason, []).append(note)
    return {
        reason: {"rows": len(group), "examples": [_example(note, columns) for note in group[:EXAMPLES]]}
        for reason, group in groups.items()
    }


def _example(note: Note, columns: Sequence[str]) -> dict[str, Any]:
    text = " / ".join(" ".join(note.record.text(column).split()) for column in columns)
    snippet = text if len(text) <= _SNIPPET else f"{text[: _SNIPPET - 1]}…"
    # Half a surrogate pair is one of the reasons for a removal, and no file can hold it.
    snippet = snippet.encode("utf-8", errors="replace").decode()
    return {"file": note.record.file, "row": note.record.row, "detail": note.detail, "text": snippet}


def _overview(steps: Sequence[Step]) -> str:
    rows = "".join(
        f"| {step.name} | {step.before:,} | {len(step.removed):,} | {sum(step.added.values()):,} | {step.after:,} |\n"
        for step in steps
    )
    return f"| step | rows before | removed | added | rows after |\n|---|---:|---:|---:|---:|\n{rows}"


def _section(step: Step, columns: Sequence[str]) -> str:
    blocks = [
        f"{what}, {reason}: {group['rows']:,}\n\n{_examples(group['examples'])}"
        for what, notes in (("Removed", step.removed), ("Changed", step.changed))
        for reason, group in _grouped(notes, columns).items()
    ]
    blocks += [f"Added, {kind}: {count:,}\n" for kind, count in step.added.items()]
    blocks += [f"{name.replace('_', ' ').capitalize()}: {_said(value)}\n" for name, value in step.facts.items()]
    return f"### {step.name.capitalize()}\n\n" + "\n".join(blocks) + "\n" if blocks else ""


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"| {_cell(one['file'])} | {one['row']} | {_cell(one['detail'])} | {_cell(one['text'])} |\n" for one in examples
    )
    return f"| file | row | what decided | text |\n|---|---:|---|---|\n{rows}"


def _figures(parts: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for figures in parts.values() for name in figures))
    head = f"| part | {' | '.join(name.replace('_', ' ') for name in names)} |\n|---|{'---:|' * len(names)}\n"
    return head + "".join(
        f"| {part} | {' | '.join(_cell(_said(figures.get(name, '–'))) for name in names)} |\n"
        for part, figures in parts.items()
    )


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_said(inner)}" for name, inner in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table and stays as it is."""
    for mark in "\\|`*_<[":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
