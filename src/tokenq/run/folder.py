"""The folder of a run: whose it is, and folders that are whole or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenq.config.parse import dump, from_file, to_mapping
from tokenq.config.schema import TrainConfig
from tokenq.errors import CheckpointError

CONFIG = "config.yaml"

# What may change between a run and its continuation without making it another run.
_FREE = frozenset(
    "resume max_steps save_steps save_total_limit logging_steps eval_steps log_completions report_to output_dir".split()
)


def claim(config: TrainConfig, name: str) -> Path:
    """The run's folder, made if need be, with the resolved configuration in it.

    Raises `CheckpointError` if the folder holds a run and `resume` is false, or if it holds another run.
    """
    folder = Path(config.output_dir or f"runs/{name}")
    known = folder / CONFIG
    if known.is_file():
        if not config.resume:
            raise CheckpointError(
                f"output_dir: {folder} already holds a run; set resume to true to go on with it, or choose another"
            )
        _same_run(from_file(TrainConfig, known), config, folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(f"output_dir: {folder} is not empty and holds no run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    known.write_text(dump(replace(config, resume=False)), encoding="utf-8")
    return folder


def _same_run(old: TrainConfig, new: TrainConfig, folder: Path) -> None:
    before, after = to_mapping(old), to_mapping(new)
    changed = [key for key in after if key not in _FREE and before.get(key) != after[key]]
    if changed:
        was = ", ".join(f"{key} {_short(before.get(key))} there and {_short(after[key])} here" for key in changed[:3])
        raise CheckpointError(f"output_dir: {folder} holds another run: {was}; use its settings, or another folder")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill; it takes the place of `target` once the block ends without an error."""
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
