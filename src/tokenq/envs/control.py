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
from jaxtyping import Bool, Float, Int, Shaped

from tokenq.errors import ConfigError, DataError
from tokenq.types import Spaces, Steps

SPACES = "observations: Box, Discrete; actions: Discrete"
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
    frames: int = 1
    """Observations that the network sees together, the newest last, >= 1."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"frames: got {self.frames}, expected an integer >= 1")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps: got {self.max_episode_steps}, expected an integer >= 1, or null")

    def make(self, num_envs: int, seed: int) -> "Environments":
        """So many of them, with seeds of their own; nothing is reset yet."""
        limit: dict[str, Any] = {} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}
        made = registered(self.id, num_envs, {**limit, **self.kwargs})
        if made.spec is not None and made.spec.max_episode_steps is None and not limit:
            raise ConfigError(
                f"environment: {self.id} has no time limit, so an episode may never end; "
                "set environment.max_episode_steps"
            )
        _check_spaces(self.id, made.single_observation_space, made.single_action_space)
        if self.frames > 1 and isinstance(made.single_observation_space, Discrete):
            raise ConfigError(f"frames: got {self.frames} for the discrete observations of {self.id}; set it to 1")
        return Environments(self.id, made, seed, self.frames)

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


class Environments:
    """Environments that step together; each begins a new episode when its last one is over.

    Every episode has a seed of its own, made from `seed`, the environment's number and the episode's number: the state
    of an environment is known from that seed and the actions since, which is how a run is resumed.

    With `frames` > 1 observations are stacks [M, k, *shape]; at the beginning of an episode its first observation is
    repeated, as Gymnasium's FrameStackObservation does it. An environment may say in its info that a life was lost:
    that terminates the episode, and the next one goes on from there.
    """

    def __init__(
        self, name: str, vector: gymnasium.vector.VectorEnv[Any, Any, Any], seed: int, frames: int = 1
    ) -> None:
        self.name = name
        self.vector = vector
        self.seed = seed
        self.frames = frames
        self.number = vector.num_envs
        self.episodes = [-1] * self.number
        self.taken: list[list[int]] = [[] for _ in range(self.number)]
        self.observations = self._all_begin()

    @property
    def spaces(self) -> Spaces:
        """What is observed, and the actions there are."""
        seen, action = self.vector.single_observation_space, self.vector.single_action_space
        states = int(seen.n) if isinstance(seen, Discrete) else None
        choices: Any = action
        stack = (self.frames,) if self.frames > 1 else ()
        return Spaces((*stack, *(seen.shape or ())), states, (int(choices.n),))

    def step(self, actions: Int[np.ndarray, "M"]) -> Steps:
        """One action in every environment; those whose episode is over begin another one.

        Raises `DataError` for an observation or reward that is not finite.
        """
        before = self.observations
        first = int(getattr(self.vector.single_action_space, "start", 0))
        newest, rewards, terminated, truncated, info = self.vector.step(actions + first)
        self._check(newest, rewards, made=1)
        for history, action in zip(self.taken, actions.tolist(), strict=True):
            history.append(action)
        over = terminated | truncated
        after = self._stacked(before, newest)
        steps = Steps(before, actions, rewards, after, terminated | info.get(LIFE, False), truncated)
        if over.any():
            newest = self._begin(over)
        self.observations = self._stacked(before, newest, steps.ended) if steps.ended.any() else after
        return steps

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
        envs: Sequence[gymnasium.Env[Any, Any]] = self.vector.envs  # type: ignore[attr-defined]
        first = int(getattr(self.vector.single_action_space, "start", 0))
        newest, _, _, _, info = envs[i].step(action + first)
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


def _check_spaces(name: str, observations: Any, actions: Any) -> None:
    """Raise `ConfigError` for spaces that no network here reads or answers."""
    if not isinstance(observations, Box | Discrete) or not isinstance(actions, Discrete):
        raise ConfigError(
            f"environment: {name} has observations {observations} and actions {actions}; expected {SPACES}; "
            "register it with a wrapper that makes these of them"
        )
