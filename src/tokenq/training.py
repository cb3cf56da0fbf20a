"""The training loops, as generators that yield one report per update.

Whoever drives them decides when to log, evaluate, save and stop. They are functions of the learner's update counter and
of the state of the objects passed in, so that a resumed loop goes on exactly where the interrupted one was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from tokenq.learning.learner import Learner, Report
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.replay.transitions import Transitions
from tokenq.types import Batch, Episode


@runtime_checkable
class Replay(Protocol):
    """Stored episodes to learn from."""

    def add(self, episodes: Sequence[Episode]) -> list[int]:
        """Take in episodes; their identities."""

    def sample(self, n: int, rng: np.random.Generator, update: int) -> Sample:
        """Draw n episodes."""

    def set_priorities(self, index: Int[np.ndarray, "B"], priority: Float[np.ndarray, "B"]) -> None:
        """Say how surprising episodes were."""


def offline(
    learner: Learner, replay: Replay, *, batch_size: int, until: int, rng: np.random.Generator
) -> Iterator[tuple[Report, Batch]]:
    """Learn from what the replay holds until the learner has made `until` updates."""
    while learner.update_count < until:
        yield _update(learner, replay, batch_size, rng)


def online(
    learner: Learner,
    replay: Replay,
    rollout: Callable[[int], list[Episode]],
    *,
    batch_size: int,
    since: int,
    until: int,
    steps_per_generation: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Report, Batch]]:
    """Alternate fresh episodes and updates until the learner has made `until` updates.

    `rollout(update)` writes and scores new episodes; it is called before update `since` and then every
    `steps_per_generation` updates.
    """
    while learner.update_count < until:
        if (learner.update_count - since) % steps_per_generation == 0:
            episodes = rollout(learner.update_count)
            replay.add(episodes)
            learner.observe(episodes)
        yield _update(learner, replay, batch_size, rng)


def agent(
    learner: Learner,
    replay: Transitions,
    step: Callable[[int], None],
    *,
    batch_size: int,
    steps: int,
    updates: int,
    until: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Report, Batch]]:
    """Alternate `steps` steps of environments and `updates` updates until the learner has made `until` of these.

    `step(update)` steps all environments once with the policy as it is, and stores what happened in the replay. All
    batches of a round are drawn at its start: the replay keeps the draws, so a loop can be taken up in the middle.
    """
    drawn = replay.drawn()
    while learner.update_count < until:
        done = learner.update_count % updates
        if done == 0:
            for _ in range(steps):
                step(learner.update_count)
            drawn = replay.sample_many(batch_size, updates, rng, learner.update_count)
        batches = [batch.to(learner.accelerator.device) for batch in drawn]
        for report, batch in zip(learner.updates(batches, done), batches[done:], strict=True):
            if replay.prioritised:
                replay.set_priorities(report.index.cpu().numpy(), report.priority.cpu().numpy())
            yield report, batch


def _update(learner: Learner, replay: Replay, batch_size: int, rng: np.random.Generator) -> tuple[Report, Batch]:
    sample = replay.sample(batch_size, rng, learner.update_count)
    batch = collate(sample, pad_token=0).to(learner.accelerator.device)
    report = learner.update(batch)
    replay.set_priorities(report.index.cpu().numpy(), report.priority.cpu().numpy())
    return report, batch
