"""Checkpoints: folders that are either whole or not there, tensors without pickle, and every random stream.

A checkpoint is written under a temporary name, sealed with a manifest of sizes and hashes, flushed to disk and only
then renamed to `step-00000100`. Whatever is interrupted leaves the checkpoints before it untouched.
"""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tokenq.errors import CheckpointError

FORMAT = 1
MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
STEP = re.compile(r"step-(\d{8,})")
METADATA_KEY = "structure"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and the number of updates made before it was saved."""

    folder: Path
    update: int


# --- folders -------------------------------------------------------------------------------------------------------


def save(root: Path, update: int, write: Callable[[Path, Path | None], None], keep: int) -> Path:
    """Save one checkpoint atomically and drop all but the newest `keep`.

    `write` gets an empty folder to fill and the folder of the newest whole checkpoint (None for the first), from which
    it may hard-link files that did not change. A checkpoint of the same update is replaced.

    Returns:
        The folder `root/step-<update>`.

    Raises:
        CheckpointError: the disk refused, or `root` holds a later whole checkpoint. Those before it stay whole.
    """
    if keep < 1:
        raise CheckpointError(f"keep: got {keep}, expected at least 1 checkpoint to keep")
    target = root / f"step-{update:08d}"
    previous, _ = newest_whole(root)
    if previous and previous.update > update:
        held = f"{root} already holds {previous.folder.name}"
        raise CheckpointError(f"{held}, later than {target.name}; resume from it or use another folder")
    temporary = root / (TEMPORARY + target.name)
    try:
        _sweep(root)
        temporary.mkdir(parents=True)
        write(temporary, previous.folder if previous else None)
        _seal(temporary, update)
        if target.exists():
            _discard(target)
        temporary.rename(target)
        _flush(root)
    except (OSError, SafetensorError) as error:
        kept = f"{previous.folder.name} is whole" if previous else "there is none before it"
        raise CheckpointError(f"{target}: not saved ({error}); {kept}; free or repair the disk, then resume") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(root, update, keep)
    return target


def newest_whole(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint under `root` whose every file has the size and hash its manifest promises.

    Returns:
        The checkpoint, or None if there is no whole one, and a line `name: reason` for each newer one passed over,
        newest first. The caller shows these lines to the user.
    """
    skipped: list[str] = []
    for checkpoint in _checkpoints(root):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint, skipped
        skipped.append(f"{checkpoint.folder.name}: {fault}")
    return None, skipped


def _checkpoints(root: Path) -> list[Checkpoint]:
    """Everything named like a checkpoint, newest first."""
    names = ((path, STEP.fullmatch(path.name)) for path in root.iterdir()) if root.is_dir() else ()
    found = [Checkpoint(path, int(name[1])) for path, name in names if name]
    return sorted(found, key=lambda checkpoint: checkpoint.update, reverse=True)


def _fault(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be trusted; None if it is whole."""
    try:
        manifest = json.loads((checkpoint.folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return f"has format {manifest['format']}, this version reads format {FORMAT}"
        if manifest["update"] != checkpoint.update:
            return f"was saved at update {manifest['update']}"
        for name, promised in manifest["files"].items():
            path = checkpoint.folder / name
            if path.stat().st_size != promised["size"]:
                return f"{name} has {path.stat().st_size} bytes instead of {promised['size']}"
            if _sha256(path) != promised["sha256"]:
                return f"{name} was altered (its hash differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror}: {Path(str(error.filename)).name})"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def _seal(folder: Path, update: int) -> None:
    """Write the manifest and force everything onto the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    promised = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "update": update, "files": promised}, indent=1))
    for path in (*files, manifest, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prune(root: Path, update: int, keep: int) -> None:
    """Remove what is older than the newest `keep`, and what is newer: `save` found that it is not whole."""
    done = [checkpoint for checkpoint in _checkpoints(root) if checkpoint.update <= update]
    wanted = {checkpoint.folder for checkpoint in done[:keep]}
    for checkpoint in _checkpoints(root):
        if checkpoint.folder not in wanted:
            _discard(checkpoint.folder)


def _discard(folder: Path) -> None:
    """Remove a checkpoint; renamed first, so that a half-removed one never carries a checkpoint's name."""
    doomed = folder.with_name(f"{TEMPORARY}old-{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sweep(root: Path) -> None:
    """Remove what an interrupted save left behind."""
    for stale in root.glob(TEMPORARY + "*"):
        shutil.rmtree(stale)


# --- states --------------------------------------------------------------------------------------------------------


def flatten(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a nested state into named tensors and a JSON structure that says where they belong.

    Takes dicts with text or whole-number keys, lists, tuples, None, bool, int, float, str and tensors, which covers
    `state_dict()` of modules, optimisers and schedulers. Two views of the same tensor (tied weights) are kept once.

    Raises:
        TypeError: the state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}

    def split(node: Any, path: str) -> Any:
        if isinstance(node, Tensor):
            same = (node.device, node.data_ptr(), node.dtype, node.shape, node.stride())
            name = names.setdefault(same, path)
            if name == path:
                if name in tensors:
                    raise TypeError(f"two tensors of the state would be named {name!r}")
                tensors[name] = _own(node)
            return {"tensor": name}
        if isinstance(node, Mapping):
            if not all(isinstance(key, str | int) for key in node):
                raise TypeError(f"{path}: the keys of a saved dict must be str or int, got {list(node)}")
            return {"dict": [[key, split(value, f"{path}/{key}" if path else str(key))] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            kind = "list" if isinstance(node, list) else "tuple"
            return {kind: [split(value, f"{path}/{index}") for index, value in enumerate(node)]}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"{path}: cannot save a {type(node).__name__} without pickle")

    return tensors, split(state, "")


def unflatten(tensors: Mapping[str, Tensor], structure: Any) -> Any:
    """The inverse of `flatten`."""
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unflatten(tensors, value) for key, value in content}
    items = [unflatten(tensors, value) for value in content]
    return items if kind == "list" else tuple(items)


def save_tensors(path: Path, state: Any) -> None:
    """Write a nested state (see `flatten`) to one safetensors file; numbers survive bit for bit."""
    tensors, structure = flatten(state)
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(structure)})


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, damaged or was written by something else.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            structure = json.loads((file.metadata() or {})[METADATA_KEY])
            return unflatten({name: file.get_tensor(name) for name in file.keys()}, structure)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no readable state ({error}); resume from another checkpoint") from error


def _own(tensor: Tensor) -> Tensor:
    """A contiguous tensor that owns all of its storage, copied only where it must be."""
    whole = tensor.detach().contiguous()
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


# --- random streams ------------------------------------------------------------------------------------------------


def capture(generators: Mapping[str, np.random.Generator]) -> dict[str, Any]:
    """The state of every random stream, for `save_tensors`: torch's (CPU and CUDA), Python's, NumPy's and yours."""
    legacy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": _plain(legacy),
        "generators": {name: _plain(generator.bit_generator.state) for name, generator in generators.items()},
    }


def restore(state: Mapping[str, Any], generators: Mapping[str, np.random.Generator]) -> None:
    """Put every random stream back to where `capture` saw it; `generators` are set in place.

    CUDA streams are restored for the devices that this machine has.

    Raises:
        CheckpointError: the generators have other names than those captured.
    """
    captured = state["generators"]
    if captured.keys() != generators.keys():
        raise CheckpointError(f"the checkpoint has random streams {sorted(captured)}, expected {sorted(generators)}")
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda.cpu(), device)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    for name, generator in generators.items():
        generator.bit_generator.state = captured[name]


def _plain(state: Any) -> Any:
    """A NumPy bit generator's state with its arrays as lists, which NumPy takes back as they are."""
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state
