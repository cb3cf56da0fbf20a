"""A picture of an episode: which frames are in it, and where there is none."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from PIL import Image, ImageSequence

from tokenq.cli import main
from tokenq.config.control import ControlConfig
from tokenq.envs.control import Gymnasium
from tokenq.errors import ConfigError
from tokenq.evaluation.control import APART
from tokenq.nets.control import ControlQ, Mlp
from tokenq.run.control import control
from tokenq.run.film import film
from tokenq.types import Spaces


class Shades(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows the number of its steps as a colour: red counts to 255, green the overflow, blue what the seed was."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 400}  # noqa: RUF012
    observation_space = Box(0, 1e4, (1,), np.float32)
    action_space = MultiDiscrete([2, 2])

    def __init__(self, length: int, render_mode: str | None = None, broken: bool = False) -> None:
        self.length, self.render_mode, self.broken = length, render_mode, broken

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.count, self.seed = 0, int(seed or 0)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.array([self.count], np.float32), 1.0, self.count == self.length, False, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        if self.broken:
            raise RuntimeError("no display")
        return np.full((300, 400, 3), [self.count % 256, self.count // 256 * 60, self.seed % 256], np.uint8)


class Unseen(Shades):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012


@pytest.fixture(scope="module", autouse=True)
def shades() -> None:
    gymnasium.register("Shades-v0", Shades, max_episode_steps=5000)
    gymnasium.register("Unseen-v0", Unseen, max_episode_steps=5000)


def shades_of(length: int, name: str = "Shades-v0", **kwargs: Any) -> Gymnasium:
    return Gymnasium(name, {"length": length, "disable_env_checker": True, **kwargs})


def agent() -> ControlQ:
    return Mlp(1, 2).build(Spaces((1,), None, (2, 2)))


def filmed(environment: Gymnasium, seed: int, path: Path) -> tuple[list[tuple[int, ...]], tuple[int, int], int]:
    """The colour of every frame, its size and the milliseconds that it is shown."""
    film(environment, agent(), seed, path)
    with Image.open(path) as picture:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
        return [frame.getpixel((5, 5)) for frame in frames], picture.size, picture.info["duration"]


def test_every_moment_of_a_short_episode_and_its_end(tmp_path: Path) -> None:
    colours, size, duration = filmed(shades_of(5), 0, tmp_path / "new" / "five.gif")
    assert [colour[0] for colour in colours] == [0, 1, 2, 3, 4, 5]
    # Four hundred steps a second are more than a picture can show.
    assert size == (240, 180) and duration == 20
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["five.gif"]


def test_a_long_episode_is_thinned_and_still_shows_its_end(tmp_path: Path) -> None:
    colours, _, duration = filmed(shades_of(1000), 0, tmp_path / "long.gif")
    steps = [red + 256 * (green // 60) for red, green, _ in colours]
    # Of 1001 moments every sixteenth, and the last one.
    assert steps == [*range(0, 1000, 16), 1000]
    assert duration == 40 and (tmp_path / "long.gif").stat().st_size < 100_000


def test_the_episode_is_the_first_of_the_evaluation(tmp_path: Path) -> None:
    environments = shades_of(3).make(4, 7 + APART)
    colours, _, _ = filmed(shades_of(3), 7, tmp_path / "first.gif")
    assert colours[0][2] == environments.vector.envs[0].unwrapped.seed % 256


def test_what_cannot_be_pictured_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "old.gif"
    path.write_bytes(b"old")
    with pytest.raises(ConfigError, match=r"Unseen-v0 cannot be pictured: got render modes \['human'\]"):
        film(shades_of(3, "Unseen-v0"), agent(), 0, path)
    with pytest.raises(ConfigError, match=r"Shades-v0 cannot be pictured on this machine \(no display\); install"):
        film(shades_of(3, broken=True), agent(), 0, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_evaluate_leaves_a_picture_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    run = str(tmp_path / "run")
    pendulum = Gymnasium("Pendulum-v1", max_episode_steps=20)
    control(
        ControlConfig(pendulum, 1, run, environment_steps=20, learning_starts=16, network=Mlp(1, 4), eval_samples=1)
    )
    assert main(["evaluate", run, "--eval_samples", "1", "--gif", str(tmp_path / "episode.gif")]) == 0
    with Image.open(tmp_path / "episode.gif") as picture:
        assert picture.size == (240, 240) and picture.n_frames > 1
        assert len(picture.convert("RGB").getcolors()) > 1
