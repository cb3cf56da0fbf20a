"""The steps of an agent's replay on disk: compressed segments, of which a checkpoint writes only the new ones.

    steps-<first time>-<time after the last>.zst    safetensors, compressed with Zstandard

A segment holds times that begin and end at multiples of its length, which is about 16,384 steps. One that reaches its
end never changes again and is hard-linked from checkpoint to checkpoint until all of it has left the replay; only the
newest is written anew. Frames of games shrink to a small part of their size. No pickle is written or read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tokenq.errors import CheckpointError
from tokenq.replay.links import link
from tokenq.replay.transitions import Transitions

_STEPS = 16_384
_NAME = re.compile(r"steps-(\d+)-(\d+)\.zst")
_CODEC = "zstd"


def save_steps(replay: Transitions, folder: Path, previous: Path | None, length: int | None = None) -> None:
    """Writes the stored steps into `folder`, linking (or else copying) from `previous` what cannot have changed.

    `previous` is the folder of an earlier save of the same replay, or None. `length` is that of a segment in times,
    the same one at every save; by default it follows from the number of environments. Raises OSError if the disk
    refuses.
    """
    folder.mkdir(parents=True)
    times = replay.times
    if not times:
        return
    length = length or max(1, _STEPS * times.stop // replay.added)
    done = {} if previous is None else {stop: path for _, stop, path in _segments(previous)}
    for end in range(times.start - times.start % length + length, times.stop + length, length):
        if end in done:
            link(done[end], folder / done[end].name)
        else:
            part = range(max(times.start, end - length), min(times.stop, end))
            _write(folder / f"steps-{part.start:012d}-{part.stop:012d}.zst", replay.piece(part))


def load_steps(folder: Path) -> Iterator[dict[str, Any]]:
    """The pieces that `save_steps` wrote, for `Transitions.restore`; one at a time is in memory.

    Raises CheckpointError if a file is damaged.
    """
    for first, _, path in sorted(_segments(folder)):
        try:
            with pyarrow.input_stream(str(path), compression=_CODEC) as file:
                yield {"first": first, **load(file.read())}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: the steps cannot be read ({error}); use an older checkpoint") from error


def _segments(folder: Path) -> list[tuple[int, int, Path]]:
    names = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(int(name[1]), int(name[2]), path) for name, path in names if name]


def _write(path: Path, piece: dict[str, Any]) -> None:
    tensors = {name: part for name, part in piece.items() if isinstance(part, torch.Tensor)}
    with pyarrow.output_stream(str(path), compression=_CODEC) as file:
        file.write(save(tensors))
