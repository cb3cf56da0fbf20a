"""Gymnasium environments side by side, without autoreset: what a step led to is never mistaken for a fresh start.

Letters: M environments.
"""

from collections.abc import Mapping, Sequence
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

    def __post_init__(self) -> None:
        if self.bins is not None and self.bins < 2:
            raise ConfigError(f"bins: got {self.bins}, expected an integer >= 2, or null")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps: got {self.max_episode_steps}, expected an integer >= 1, or null")

    def make(self, num_envs: int, seed: int, pictured: bool = False) -> "Environments":
        """So many of them, with seeds of their own; `pictured` ones can be asked for a picture of themselves."""
        extra: dict[str, Any] = {"render_mode": "rgb_array"} if pictured else {}
        if pictured:
            self._check_pictured(seed)
        limit: dict[str, Any] = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        try:
            made = gymnasium.make_vec(
                self.id,
                num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
                **limit,
                **{**self.kwargs, **extra},
            )
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"environment: got {self.id} with {dict(self.kwargs)}; {said}") from error
        if made.spec is not None and made.spec.max_episode_steps is None and not limit:
            raise ConfigError(
                f"environment: {self.id} has no time limit, so an episode may never end; "
                "set environment.max_episode_steps"
            )
        return Environments(self.id, made, self._choices(made), seed)

    def _check_pictured(self, seed: int) -> None:
        plain = self.make(1, seed)
        modes = plain.metadata.get("render_modes", [])
        plain.close()
        if "rgb_array" not in modes:
            raise ConfigError(f"{self.id} cannot be pictured: got render modes {modes}, expected rgb_array among them")

    def _choices(self, made: gymnasium.vector.VectorEnv[Any, Any, Any]) -> Choices:
        """The actions there are; raises `ConfigError` for spaces that no network here reads or answers."""
        seen, action = made.single_observation_space, made.single_action_space
        found = choices(self.id, action, self.bins)
        if found is None or not isinstance(seen, Box | Discrete):
            raise ConfigError(
                f"environment: {self.id} has observations {seen} and actions {action}; expected {SPACES}; "
                "register it with a wrapper that makes these of them"
            )
        return found


class Environments:
    """Environments that step together; each begins a new episode when its last one is over.

    Every episode has a seed of its own, made from `seed`, the environment's number and the episode's number: the state
    of an environment is known from that seed and the actions since, which is how a run is resumed.
    """

    def __init__(
        self, name: str, vector: gymnasium.vector.VectorEnv[Any, Any, Any], choices: Choices, seed: int
    ) -> None:
        self.name = name
        self.vector = vector
        self.choices = choices
        self.seed = seed
        self.number = vector.num_envs
        self.episodes = [-1] * self.number
        self.taken: list[list[int]] = [[] for _ in range(self.number)]
        self.observations = self._begin(np.ones(self.number, bool))

    @property
    def spaces(self) -> Spaces:
        """What is observed, and the actions there are."""
        seen = self.vector.single_observation_space
        return Spaces(seen.shape or (), int(seen.n) if isinstance(seen, Discrete) else None, self.choices.heads)

    def step(self, actions: Int[np.ndarray, "M"]) -> Steps:
        """One action in every environment, given by its code; those whose episode is over begin another one.

        Raises `DataError` for an observation or reward that is not finite.
        """
        before = self.observations
        after, rewards, terminated, truncated, _ = self.vector.step(self.choices.of(actions))
        self._check(after, rewards, made=1)
        for history, action in zip(self.taken, actions.tolist(), strict=True):
            history.append(action)
        steps = Steps(before, actions, rewards, after, terminated, truncated)
        self.observations = self._begin(steps.ended) if steps.ended.any() else after
        return steps

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
        self.observations = self._begin(np.ones(self.number, bool)).copy()
        for i, history in enumerate(state["taken"]):
            for action in history:
                # Only the one environment steps: the others have histories of other lengths.
                self.observations[i] = self._alone(i, action)
        self.taken = [list(history) for history in state["taken"]]

    def close(self) -> None:
        """Let go of windows and processes."""
        self.vector.close()

    def _begin(self, which: Bool[np.ndarray, "M"]) -> Shaped[np.ndarray, "M *shape"]:
        seeds: Any = [None] * self.number
        for i in np.flatnonzero(which).tolist():
            self.episodes[i] += 1
            self.taken[i] = []
            seeds[i] = int(np.random.SeedSequence([self.seed, i, self.episodes[i]]).generate_state(1)[0])
        observations, _ = self.vector.reset(seed=seeds, options={"reset_mask": which})
        self._check(observations, np.zeros(self.number), made=0)
        return np.asarray(observations)

    def _alone(self, i: int, action: int) -> Any:
        return self._envs[i].step(self.choices.of(np.array([action]))[0])[0]

    def _check(self, observations: Any, rewards: Float[np.ndarray, "M"], made: int) -> None:
        """Raise `DataError` for what is not finite; `made` counts the step that is not yet in the history."""
        parts = (("observation", np.asarray(observations)), ("reward", rewards))
        for what, values in parts:
            broken = ~np.isfinite(values).reshape(self.number, -1).all(-1)
            if broken.any():
                i = int(np.flatnonzero(broken)[0])
                where = f"environment {i} of {self.name}, episode {self.episodes[i]}, step {len(self.taken[i]) + made}"
                raise DataError(f"{where}: {what} {values[i]} is not finite; repair the environment")
