"""What a run says about itself: summary, model card, and the table of completions."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokenq.errors import DataError
from tokenq.learning.values import Guidance

Metrics = Mapping[str, float | None]

_PACKAGES = ("tokenq", "torch", "transformers", "accelerate", "datasets", "tokenizers", "peft", "numpy")


@dataclass(frozen=True)
class Summary:
    """What summary.json holds.

    `before` and `after` are the evaluation at the start and at the end, None or NaN where a metric has no value.
    `reward_calls` counts scored completions, `updates` optimiser steps, `target_bytes` the memory of the target
    network. For an agent, `reward_calls` counts environment steps.
    """

    task: str
    seed: int
    before: Metrics
    after: Metrics
    reward_calls: int
    updates: int
    wall_seconds: float
    target_bytes: int
    versions: Mapping[str, str | None]


_DECIDES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForQuestionAnswering": "question-answering",
}
"""Classes whose models write nothing, and what the hub calls what they do instead."""


@dataclass(frozen=True)
class Origin:
    """How a model came about: the command that trained it, the method, and the model it started from."""

    command: str
    method: str
    auto_class: str = "AutoModelForCausalLM"
    """The class of transformers that loads the model."""
    own_code: bool = False
    """Whether code comes with the model, which transformers runs only if it is told to."""
    base_model: str | None = None
    """Hub id or folder; None for a model made from scratch."""
    guidance: Guidance | None = None
    """How heads guide the model when it writes; None for a model without them."""


def versions() -> dict[str, str | None]:
    """The versions a result depends on; None for a package that is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}}


def write_summary(path: Path, summary: Summary) -> None:
    """Write summary.json as a whole or not at all; a metric without a value is null."""
    write_text(path, json.dumps(defined(asdict(summary)), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def defined(figures: Any) -> Any:
    """The same figures, at any depth of mappings and lists, with None for a number that is not defined."""
    if isinstance(figures, Mapping):
        return {name: defined(inner) for name, inner in figures.items()}
    if isinstance(figures, list):
        return [defined(inner) for inner in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all: a full disk leaves what was there."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def model_card(name: str, summary: Summary, origin: Origin) -> str:
    """The README.md of a trained model: front matter for the hub, results before and after, and how to repeat them."""
    versions = ", ".join(f"{package} {version}" for package, version in summary.versions.items() if version)
    start = f"`{origin.base_model}`" if origin.base_model else "a model made from scratch"
    return f"""{_front_matter(origin)}
# {name}

Trained from {start} by deep Q-learning with tokenq (method `{origin.method}`, task: {summary.task}):
{summary.updates:,} updates, {summary.reward_calls:,} reward calls.

{_results(summary.before, summary.after)}
![Curves](curves.png)

## Use

It is an ordinary checkpoint and needs no tokenq:

```python
from transformers import {origin.auto_class}, AutoTokenizer

model = {origin.auto_class}.from_pretrained("model"{", trust_remote_code=True" if origin.own_code else ""})
tokenizer = AutoTokenizer.from_pretrained("model")
```
{_guided(origin)}
## Training

```
{origin.command}
```

Seed {summary.seed}, {summary.wall_seconds:,.0f} seconds, {summary.target_bytes:,} bytes for the target network.
Versions: {versions}.
"""


def agent_card(name: str, summary: Summary, method: str) -> str:
    """The README.md of a trained agent: results before and after, and how to use and repeat them."""
    versions = ", ".join(f"{package} {version}" for package, version in summary.versions.items() if version)
    return f"""# {name}

An agent for `{summary.task}`, trained by deep Q-learning with tokenq (method `{method}`): {summary.updates:,} updates,
{summary.reward_calls:,} environment steps.

{_results(summary.before, summary.after)}
![Curves](curves.png)

`tokenq evaluate` with this folder plays it again; `tokenq train` with config.yaml in it and another `output_dir` trains
it again. Seed {summary.seed}, {summary.wall_seconds:,.0f} seconds. Versions: {versions}.
"""


def write_completions(folder: Path, step: int, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write completions/completions_<step>.parquet: TRL's table, which is also a scored data set.

    Args:
        folder: The run's folder.
        step: The update the completions were made at; it becomes the first column.
        columns: `prompt`, `completion`, one column per reward, and whatever else; all of one length.

    Returns:
        The file written.

    Raises:
        DataError: Columns of unequal length, or one whose values have no common type.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"completions of step {step}: got columns of {lengths} values, expected one length")
    arrays = {"step": pa.array([step] * next(iter(lengths.values())), pa.int64())}
    arrays |= {name: _array(name, values) for name, values in columns.items()}
    path = folder / "completions" / f"completions_{step:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(arrays), temporary)
    os.replace(temporary, path)
    return path


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _front_matter(origin: Origin) -> str:
    lines = ["library_name: transformers", f"pipeline_tag: {_DECIDES.get(origin.auto_class, 'text-generation')}"]
    # The hub follows `base_model` as a link, which a folder of this machine is not.
    if origin.base_model and not Path(origin.base_model).exists():
        lines.append(f"base_model: {json.dumps(origin.base_model)}")
    lines += ["tags:", *(f"- {tag}" for tag in ("tokenq", "reinforcement-learning", "q-learning", origin.method))]
    return "\n".join(["---", *lines, "---", ""])


def _guided(origin: Origin) -> str:
    if origin.guidance is None:
        return ""
    if origin.auto_class in _DECIDES:
        return """
Alone it imitates its data. What was measured is the model under the guidance of the heads in `q_heads.safetensors`, as
`tokenq evaluate` and `tokenq generate` with this folder show it.
"""
    said = ", ".join(f"{name}={number}" for name, number in vars(origin.guidance).items() if number or name == "beta")
    return f"""
Alone it imitates its data. What was measured is the model under the guidance of the heads in `q_heads.safetensors`:

```python
from tokenq import PriorGuided, load_q_heads

with PriorGuided(model, load_q_heads("model", {said})) as guide:
    model.generate(**tokenizer("...", return_tensors="pt"), logits_processor=[guide], do_sample=True)
```
"""


def _results(before: Metrics, after: Metrics) -> str:
    metrics = list(dict.fromkeys([*before, *after]))
    rows = [f"| {metric} | {_figure(before.get(metric))} | {_figure(after.get(metric))} |" for metric in metrics]
    return "\n".join(["| metric | before | after |", "|---|---:|---:|", *rows, ""])


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _array(name: str, values: Sequence[Any]) -> Any:
    try:
        return pa.array(list(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"completions column '{name}': {error}; give all values one type") from error
