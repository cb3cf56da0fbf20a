"""A picture of what an agent does: one greedy episode as a small GIF."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tokenq.acting.control import act
from tokenq.acting.explore import Greedy
from tokenq.envs.atari import Atari
from tokenq.envs.control import Environments, Gymnasium
from tokenq.evaluation.control import APART
from tokenq.nets.control import ControlQ

MOST = 120
"""Frames at most: every second, fourth, ... step is left out where an episode has more."""
SIDE = 240
"""Pixels of the longer side at most."""
COLOURS = 64
"""Colours of each frame."""
SLOWEST, FASTEST = 100, 20
"""Milliseconds that a frame is shown at most, so that a long episode runs faster than life, and at least."""


def film(environment: Gymnasium | Atari, network: ControlQ, seed: int, path: Path) -> None:
    """Write the first episode of the evaluation with this seed, as a whole file or not at all.

    Raises `ConfigError` if the environment has no picture of itself, and OSError if the disk refuses.
    """
    environments = environment.evaluation.make(1, seed + APART, pictured=True)
    frames, stride = _thinned(_played(environments, network))
    steps_per_second = environments.metadata.get("render_fps") or 30
    duration = min(max(round(1000 * stride / steps_per_second), FASTEST), SLOWEST)
    environments.close()
    first, *others = [_small(frame) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        first.save(temporary, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _played(environments: Environments, network: ControlQ) -> Iterator[Environments]:
    """The environment at every moment of one greedy episode, its end included."""
    over = np.zeros(1, bool)
    yield environments
    while not over[0]:
        # Not `step`, which goes on to the next episode before the end of this one could be seen.
        _, _, over = environments.advance(act(network, Greedy(), environments.observations, 0))
        yield environments


def _thinned(moments: Iterator[Environments]) -> tuple[list[UInt8[np.ndarray, "H W 3"]], int]:
    """Pictures at every so many steps, and after the last one; only those that may be kept are drawn."""
    frames: list[np.ndarray] = []
    stride, step = 1, -1
    for step, environments in enumerate(moments):
        if step % stride == 0:
            frames.append(environments.picture())
        if len(frames) == MOST:
            frames, stride = frames[::2], 2 * stride
    if step % stride:
        frames.append(environments.picture())
    return frames, stride


def _small(frame: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    image = Image.fromarray(frame)
    image.thumbnail((SIDE, SIDE))
    return image.quantize(COLOURS, dither=Image.Dither.NONE)
