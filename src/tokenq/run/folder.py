"""The folder of a run: whose it is, and folders that are whole or not there."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from tokenq.config.control import ControlConfig
from tokenq.config.parse import dump, from_file, to_mapping
from tokenq.config.train import TrainConfig
from tokenq.errors import CheckpointError, ConfigError
from tokenq.run.report import write_text

C = TypeVar("C")
CONFIG = "config.yaml"

# What changes nothing that is learned.
_BESIDE = frozenset(
    "resume save_steps save_total_limit logging_steps eval_steps log_completions report_to output_dir".split()
)
# What may change between a run and its continuation without making it another run.
_FREE = _BESIDE | {"max_steps", "environment_steps"}


def run_folder(config: TrainConfig | ControlConfig, name: str) -> Path:
    """The run's folder, which may not be there yet; nothing is written.

    Raises `CheckpointError` if it holds a run and `resume` is false, if it holds another run, or something else.
    """
    folder = Path(config.output_dir or f"runs/{name}")
    known = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"output_dir: {folder} is a file; choose a folder")
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if inside == {CONFIG} and _is_ours(known, config):
        return folder  # an earlier attempt got no further, so there is nothing to lose
    if CONFIG in inside:
        if not config.resume:
            raise CheckpointError(
                f"output_dir: {folder} already holds a run; set resume to true to go on with it, or choose another"
            )
        _same_run(_there(known, config), config, folder)
    elif inside:
        raise CheckpointError(f"output_dir: {folder} is not empty and holds no run; choose another folder")
    return folder


def claim(folder: Path, config: TrainConfig | ControlConfig) -> None:
    """Make the folder, if need be, and write the resolved configuration into it.

    Raises `CheckpointError` if another process makes this run.
    """
    try:
        with alone(folder, wait=False):
            write_text(folder / CONFIG, dump(replace(config, resume=False)))
    except OSError as error:
        advice = "free the disk or choose another folder"
        raise CheckpointError(f"output_dir: {folder} cannot be written ({error}); {advice}") from error


def finished_config(cls: type[C], run: str) -> C:
    """The configuration of a finished run; raises `CheckpointError` if `run` is not the folder of one."""
    folder = Path(run)
    if not (folder / CONFIG).is_file() or not (folder / "model").is_dir():
        raise CheckpointError(f"got {run}, expected the folder of a finished run, with {CONFIG} and model/ in it")
    return from_file(cls, folder / CONFIG)


def _there(path: Path, config: TrainConfig | ControlConfig) -> TrainConfig | ControlConfig:
    """The configuration of the run that is there, which must be of the same kind."""
    try:
        return from_file(type(config), path)
    except ConfigError as error:
        kind = "an agent" if isinstance(config, ControlConfig) else "a language model"
        raise CheckpointError(
            f"output_dir: {path.parent} holds no run of {kind} ({error}); choose another folder"
        ) from error


def _is_ours(path: Path, config: TrainConfig | ControlConfig) -> bool:
    """Whether a configuration is as `claim` writes it, and no one's own file."""
    try:
        return path.read_text(encoding="utf-8") == dump(from_file(type(config), path))
    except (ConfigError, UnicodeDecodeError):
        return False


def changes(old: Any, new: Any, free: frozenset[str] = _BESIDE) -> list[str]:
    """The settings in which two configurations differ, but for those that change nothing that is learned."""
    before, after = to_mapping(old), to_mapping(new)
    return [key for key in after if key not in free and before.get(key) != after[key]]


def _same_run(old: Any, new: Any, folder: Path) -> None:
    before, after = to_mapping(old), to_mapping(new)
    changed = changes(old, new, _FREE)
    if changed:
        was = ", ".join(f"{key} {_short(before.get(key))} there and {_short(after[key])} here" for key in changed[:3])
        raise CheckpointError(f"output_dir: {folder} holds another run: {was}; use its settings, or another folder")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def alone(folder: Path, wait: bool) -> Iterator[None]:
    """Hold a folder, which is made if need be, against other processes; the system lets go of it if this one dies.

    Raises:
        CheckpointError: another process holds it, and `wait` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise CheckpointError(f"output_dir: {folder} is in use by another process; choose another") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill; it takes the place of `target` once the block ends without an error.

    Raises OSError if the disk refuses.
    """
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except SafetensorError as error:  # a full disk, in the words of the library that writes weights
        raise OSError(f"{target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
