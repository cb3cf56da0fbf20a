"""Environments that tell their transition table, and what is best in them: the answers that learning must find.

Letters: S states, A actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Float, Int

from tokenq.envs.control import Gymnasium
from tokenq.errors import ConfigError

Outcomes = Mapping[int, Mapping[int, Sequence[tuple[Any, ...]]]]
"""Gymnasium's `P`: for every state and action the probability, next state, reward and termination of each outcome."""

CHANGED = (gymnasium.ObservationWrapper, gymnasium.ActionWrapper, gymnasium.RewardWrapper)
PRECISION = 1e-12
"""Change of a sweep, relative to the largest value, below which values count as found."""


@dataclass(frozen=True, eq=False)
class Model:
    """A Markov decision process with finitely many states.

    `start` is the distribution of the first state, `rewards` the expected reward of an action. `following` is the
    probability that the episode goes on in a state: where it terminates, less than 1 is left. There is no time limit.
    """

    start: Float[np.ndarray, "S"]
    rewards: Float[np.ndarray, "S A"]
    following: Float[np.ndarray, "S A S"]


def read_model(environment: Gymnasium) -> Model | None:
    """The model of an environment of Gymnasium's toy text; None for one whose table is not there or not the whole."""
    made = gymnasium.make(environment.id, **dict(environment.kwargs))
    base: Any = made.unwrapped
    table, start, states = (getattr(base, name, None) for name in ("P", "initial_state_distrib", "observation_space"))
    # Taxi's fickle passenger changes the destination behind the table's back.
    whole = isinstance(states, Discrete) and states.start == 0 and not getattr(base, "fickle_passenger", False)
    made.close()
    if table is None or start is None or not whole or _changed(made):
        return None
    return model_from(table, np.asarray(start, np.float64))


def model_from(outcomes: Outcomes, start: Float[np.ndarray, "S"]) -> Model:
    """The arrays of a table in Gymnasium's form, with the distribution of the first state."""
    rewards = np.zeros((len(outcomes), len(outcomes[0])))
    following = np.zeros((*rewards.shape, len(outcomes)))
    for state, actions in outcomes.items():
        for action, possible in actions.items():
            for probability, after, reward, terminated in possible:
                rewards[state, action] += probability * reward
                following[state, action, after] += probability * (not terminated)
    return Model(start, rewards, following)


def optimal_values(known: Model, gamma: float) -> Float[np.ndarray, "S"]:
    """V* of every state, by value iteration: V(s) ← max_a r(s, a) + γ·Σ p(s'|s, a)·V(s').

    Source: Sutton & Barto (2018), section 4.4, eq. 4.10. Raises `ConfigError` unless γ < 1, where it always converges.
    """
    _check(gamma)
    values = np.zeros(len(known.start))
    while True:
        best: np.ndarray = (known.rewards + gamma * (known.following @ values)).max(-1)
        change = np.abs(best - values).max()
        values = best
        if change <= PRECISION * max(1.0, np.abs(values).max()):
            return values


def policy_values(known: Model, policy: Int[np.ndarray, "S"], gamma: float) -> Float[np.ndarray, "S"]:
    """V of every state under one action per state: the solution of V = r_π + γ·P_π·V, also if no episode ever ends.

    Source: Sutton & Barto (2018), section 4.1, eq. 4.4. Raises `ConfigError` unless γ < 1.
    """
    _check(gamma)
    states = np.arange(len(policy))
    rewards, following = known.rewards[states, policy], known.following[states, policy]
    solution: np.ndarray = np.linalg.solve(np.eye(len(policy)) - gamma * following, rewards)
    return solution


def _check(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise ConfigError(f"gamma: got {gamma}, expected a number in [0, 1): an episode may never end")


def _changed(environment: gymnasium.Env[Any, Any]) -> bool:
    """Whether a wrapper shows other observations, actions or rewards than those of the table."""
    layer: Any = environment
    while layer is not environment.unwrapped:
        if isinstance(layer, CHANGED):
            return True
        layer = layer.env
    return False
