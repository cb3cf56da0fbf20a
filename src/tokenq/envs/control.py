"""Gymnasium environments side by side, without autoreset: what a step led to is never mistaken for a fresh start.

Letters: M environments, k frames that the network sees together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from tokenq.envs.actions import Choices, choices
from tokenq.errors import ConfigError, DataError
from tokenq.types import Spaces, Steps

SPACES = "observations: Box, Discrete; actions: Discrete, MultiDiscrete, bounded Box"
LIFE = "life_lost"
"""Key of an environment's info: whether this step cost a life, where that ends an episode."""


@dataclass(frozen=True)
class Gymnasium:
    """A registered Gymnasium environment."""

    id: str = "CartPole-v1"
    """Its name in the registry; `module:Name-v0` imports the module first."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated, >= 1; null: what is registered, if there is a limit."""
    bins: int | None = None
    """Values of each dimension of continuous actions, evenly spaced between its bounds, >= 2; null: 3."""
    frames: int = 1
    """Observations that the network sees together, the newest last, >= 1."""

    def __post_init__(self) -> None:
        if self.bins is not None and self.bins < 2:
            raise ConfigError(f"bins: got {self.bins}, expected an integer >= 2, or null")
        if self.frames < 1:
            raise ConfigError(f"frames: got {self.frames}, expected an integer >= 1")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps: got {self.max_episode_steps}, expected an integer >= 1, or null")

    def make(self, num_envs: int, seed: int, pictured: bool = False) -> "Environments":
        """So many of them, with seeds of their own; `pictured` ones can be asked for a picture of themselves."""
        extra: dict[str, Any] = {"render_mode": "rgb_array"} if pictured else {}
        if pictured:
            self._check_pictured(seed)
        limit: dict[str, Any] = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        made = registered(self.id, num_envs, {**limit, **self.kwargs, **extra})
        if made.spec is not None and made.spec.max_episode_steps is None and not limit:
            raise ConfigError(
                f"environment: {self.id} has no time limit, so an episode may never end; "
                "set environment.max_episode_steps"
            )
        if self.frames > 1 and isinstance(made.single_observation_space, Discrete):
            raise ConfigError(f"frames: got {self.frames} for the discrete observations of {self.id}; set it to 1")
        return Environments(self.id, made, choices_of(self.id, made, self.bins), seed, self.frames)

    def _check_pictured(self, seed: int) -> None:
        plain = self.make(1, seed)
        modes = plain.metadata.get("render_modes", [])
        plain.close()
        if "rgb_array" not in modes:
            raise ConfigError(f"{self.id} cannot be pictured: got render modes {modes}, expected rgb_array among them")

    @property
    def evaluation(self) -> "Gymnasium":
        """What an agent is measured on: the same."""
        return self


def registered(
    name: str, num_envs: int, kwargs: Mapping[str, Any], wrappers: Sequence[Callable[..., Any]] = ()
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """So many registered environments without autoreset; raises `ConfigError` for what cannot be made."""
    try:
        return gymnasium.make_vec(
            name,
            num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
            wrappers=wrappers,
            **kwargs,
        )
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"environment: got {name} with {dict(kwargs)}; {said}") from error


def choices_of(name: str, made: gymnasium.vector.VectorEnv[Any, Any, Any], bins: int | None) -> Choices:
    """The actions there are; raises `ConfigError` for spaces that no network here reads or answers."""
    seen, action = made.single_observation_space, made.single_action_space
    found = choices(name, action, bins)
    if found is None or not isinstance(seen, Box | Discrete):
        raise ConfigError(
            f"environment: {name} has observations {seen} and actions {action}; expected {SPACES}; "
            "register it with a wrapper that makes these of them"
        )
    return found


class Environments:
    """Environments that step together; each begins a new episode when its last one is over.

    Every episode has a seed of its own, made from `seed`, the environment's number and the episode's number: the state
    of an environment is known from that seed and the actions since, which is how a run is resumed.

    With `frames` > 1 observations are stacks [M, k, *shape]; at the beginning of an episode its first observation is
    repeated, as Gymnasium's FrameStackObservation does it. An environment may say in its info that a life was lost:
    that terminates the episode, and the next one goes on from there.
    """

    def __init__(
        self,
        name: str,
        vector: gymnasium.vector.VectorEnv[Any, Any, Any],
        choices: Choices,
        seed: int,
        frames: int = 1,
    ) -> None:
        self.name = name
        self.vector = vector
        self.choices = choices
        self.seed = seed
        self.frames = frames
        self.number = vector.num_envs
        self.episodes = [-1] * self.number
        self.taken: list[list[int]] = [[] for _ in range(self.number)]
        self.observations = self._all_begin()

    @property
    def spaces(self) -> Spaces:
        """What is observed, and the actions there are."""
        seen = self.vector.single_observation_space
        stack = (self.frames,) if self.frames > 1 else ()
        states = int(seen.n) if isinstance(seen, Discrete) else None
        return Spaces((*stack, *(seen.shape or ())), states, self.choices.heads)

    def step(self, actions: Int[np.ndarray, "M"]) -> Steps:
        """One action in every environment, given by its code; those whose episode is over begin another one.

        Raises `DataError` for an observation or reward that is not finite.
        """
        steps, newest, over = self.advance(actions)
        if over.any():
            newest = self._begin(over)
        if steps.ended.any():
            self.observations = self._stacked(steps.before, newest, steps.ended)
        return steps

    def advance(
        self, actions: Int[np.ndarray, "M"]
    ) -> tuple[Steps, Shaped[np.ndarray, "M *shape"], Bool[np.ndarray, "M"]]:
        """One action in every environment; what they show now without its stack, and which of them must begin anew."""
        before = self.observations
        newest, rewards, terminated, truncated, info = self.vector.step(self.choices.of(actions))
        self._check(newest, rewards, made=1)
        for history, action in zip(self.taken, actions.tolist(), strict=True):
            history.append(action)
        self.observations = self._stacked(before, newest)
        lost = info.get(LIFE, False)
        steps = Steps(before, actions, rewards, self.observations, terminated | lost, truncated)
        return steps, newest, terminated | truncated

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the environment says about itself: how it can be rendered, and its steps per second."""
        return self._envs[0].metadata

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """What the first environment looks like now; raises `ConfigError` where that cannot be drawn."""
        try:
            seen: Any = self._envs[0].render()
        except Exception as error:  # whatever a graphics driver says
            raise ConfigError(
                f"{self.name} cannot be pictured on this machine ({' '.join(str(error).split())}); "
                'install "tokenq[render]"; for MuJoCo without a screen, set MUJOCO_GL=egl in the shell'
            ) from error
        return np.asarray(seen, dtype=np.uint8)

    @property
    def _envs(self) -> Sequence[gymnasium.Env[Any, Any]]:
        envs: Sequence[gymnasium.Env[Any, Any]] = self.vector.envs  # type: ignore[attr-defined]
        return envs

    def state(self) -> dict[str, Any]:
        """Seeds and actions of the open episodes, for a checkpoint."""
        return {"episodes": list(self.episodes), "taken": [list(history) for history in self.taken]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the open episodes of a checkpoint up where they were, by playing them again."""
        self.episodes = [number - 1 for number in state["episodes"]]
        self.observations = self._all_begin()
        for i, history in enumerate(state["taken"]):
            for action in history:
                # Only the one environment steps: the others have histories of other lengths.
                newest, life = self._alone(i, action)
                one = slice(i, i + 1)
                self.observations[one] = self._stacked(self.observations[one], newest[None], np.array([life]))
        self.taken = [list(history) for history in state["taken"]]

    def close(self) -> None:
        """Let go of windows and processes."""
        self.vector.close()

    def _all_begin(self) -> Shaped[np.ndarray, "M *shape"]:
        newest = self._begin(np.ones(self.number, bool)).copy()
        return newest if self.frames == 1 else np.repeat(newest[:, None], self.frames, 1)

    def _stacked(
        self,
        before: Shaped[np.ndarray, "n *stack"],
        newest: Shaped[np.ndarray, "n *shape"],
        fresh: Bool[np.ndarray, "n"] | None = None,
    ) -> Shaped[np.ndarray, "n *stack"]:
        """What is seen after one more observation; those that are `fresh` stand alone."""
        if self.frames == 1:
            return newest
        stack = np.concatenate([before[:, 1:], newest[:, None]], 1)
        if fresh is not None:
            stack[fresh] = newest[fresh, None]
        return stack

    def _begin(self, which: Bool[np.ndarray, "M"]) -> Shaped[np.ndarray, "M *shape"]:
        seeds: Any = [None] * self.number
        for i in np.flatnonzero(which).tolist():
            self.episodes[i] += 1
            self.taken[i] = []
            seeds[i] = int(np.random.SeedSequence([self.seed, i, self.episodes[i]]).generate_state(1)[0])
        observations, _ = self.vector.reset(seed=seeds, options={"reset_mask": which})
        self._check(observations, np.zeros(self.number), made=0)
        return np.asarray(observations)

    def _alone(self, i: int, action: int) -> tuple[np.ndarray, bool]:
        newest, _, _, _, info = self._envs[i].step(self.choices.of(np.array([action]))[0])
        return np.asarray(newest), bool(info.get(LIFE, False))

    def _check(self, observations: Any, rewards: Float[np.ndarray, "M"], made: int) -> None:
        """Raise `DataError` for what is not finite; `made` counts the step that is not yet in the history."""
        parts = (("observation", np.asarray(observations)), ("reward", rewards))
        for what, values in parts:
            broken = ~np.isfinite(values).reshape(self.number, -1).all(-1)
            if broken.any():
                i = int(np.flatnonzero(broken)[0])
                where = f"environment {i} of {self.name}, episode {self.episodes[i]}, step {len(self.taken[i]) + made}"
                raise DataError(f"{where}: {what} {values[i]} is not finite; repair the environment")
