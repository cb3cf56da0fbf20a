"""Atari games as environments of agents, with the preprocessing that published scores assume."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, TransformReward

from tokenq.envs.control import LIFE, Environments, choices_of, registered
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class Atari:
    """A game of the Arcade Learning Environment: 84×84 grey frames (Machado et al. 2018, arXiv 1709.06009).

    Agents are measured on whole games with their own rewards, whatever training does.
    """

    id: str = "ALE/Pong-v5"
    """Its name in the registry."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the game; `repeat_action_probability` is 0.25 unless set: the last action sticks that often."""
    frames: int = 4
    """Observations that the network sees together, the newest last, >= 1."""
    frame_skip: int = 4
    """Frames of the game that an action lasts, >= 1; the last two are merged by their brighter pixels."""
    no_ops: int = 30
    """A game begins with 1 to so many frames without action, >= 0."""
    fire: bool = True
    """Press FIRE where a life begins, in games that wait for it (not in Machado et al.: a greedy agent may never)."""
    life_loss: bool = True
    """Whether a lost life terminates an episode in training."""
    clip_rewards: bool = True
    """Whether rewards are clipped to their sign in training."""
    max_episode_steps: int = 27_000
    """Steps after which a game is truncated, >= 1; 27,000 are 30 minutes of play."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("frame_skip", 1), ("no_ops", 0), ("max_episode_steps", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected an integer >= {least}")

    @property
    def evaluation(self) -> "Atari":
        """What an agent is measured on: whole games, with the rewards that they give."""
        return replace(self, life_loss=False, clip_rewards=False)

    def make(self, num_envs: int, seed: int, pictured: bool = False) -> Environments:
        """So many of them, with seeds of their own; `pictured` ones can be asked for a picture of themselves."""
        try:
            import ale_py
        except ImportError as error:
            raise ConfigError(f"environment: {self.id} needs ale-py; pip install 'tokenq[atari]'") from error
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        limit = self.max_episode_steps * self.frame_skip
        fixed = {
            "frameskip": 1,
            "obs_type": "grayscale",
            "max_num_frames_per_episode": limit,
            "disable_env_checker": True,
            **({"render_mode": "rgb_array"} if pictured else {}),
        }
        wrappers: list[Callable[..., Any]] = [
            partial(AtariPreprocessing, noop_max=self.no_ops, frame_skip=self.frame_skip),
            partial(Lives, ends=self.life_loss, fire=self.fire),
            *([partial(TransformReward, func=_sign)] if self.clip_rewards else []),
        ]
        made = registered(self.id, num_envs, {**fixed, **self.kwargs}, wrappers)
        return Environments(self.id, made, choices_of(self.id, made, None), seed, self.frames)


class Lives(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Says in the info when a life is lost, if that `ends` an episode, and presses FIRE where a life begins."""

    def __init__(self, env: gymnasium.Env[Any, Any], ends: bool, fire: bool) -> None:
        super().__init__(env)
        game: Any = env.unwrapped
        self.game = game
        self.ends = ends
        self.fires = fire and game.get_action_meanings()[1:2] == ["FIRE"]
        self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new game."""
        seen, info = self.env.reset(seed=seed, options=options)
        self.left = self.game.ale.lives()
        return (self.env.step(1)[0] if self.fires else seen), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; if it costs a life and the game goes on, what is seen is the beginning of the next one."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        lost = self.game.ale.lives() < self.left and not (terminated or truncated)
        self.left = self.game.ale.lives()
        if lost and self.fires:
            seen, more, terminated, truncated, info = self.env.step(1)
            reward = float(reward) + float(more)
        return seen, reward, terminated, truncated, info | {LIFE: self.ends and lost}


def _sign(reward: SupportsFloat) -> float:
    return float(np.sign(float(reward)))
