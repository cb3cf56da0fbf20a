"""Everything that a run is made of while it trains, and how it is saved and continued."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from tokenq import checkpoint
from tokenq.acting.games import GameRollout
from tokenq.acting.rollout import Rollout, Writer, repeatable
from tokenq.config.train import TrainConfig
from tokenq.evaluation.games import GameEvaluator
from tokenq.evaluation.policy import Evaluator
from tokenq.learning.diagnostics import diagnose, is_calibrated, signs_of_divergence
from tokenq.learning.learner import Learner, Report
from tokenq.learning.scaling import Standardise, WorstIsZero
from tokenq.learning.target import Target
from tokenq.nets.encoder import QNetwork
from tokenq.nets.language import context_length
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Replay
from tokenq.replay.shards import load_replay, save_replay
from tokenq.run.acting import evaluator_of, rollout_of
from tokenq.run.data import Data
from tokenq.run.learning import optimisation, restored, save_state
from tokenq.run.models import codec_of
from tokenq.run.report import write_completions
from tokenq.training import offline, online
from tokenq.types import Batch, Episode

CHECKPOINTS = "checkpoints"
REPLAY = "replay"


@dataclass(eq=False)
class Session:
    """The parts of a run. `rollout` is there if fresh text is written, `evaluator` if there are rewards and prompts.

    `logged` are the scored episodes of the data, for a run that starts. `pending` is a row of metrics that waits for
    its evaluation: should that fail, it is part of what is saved.
    """

    config: TrainConfig
    folder: Path
    data: Data
    tokenizer: Any
    network: QNetwork
    reference: Reference
    learner: Learner
    replay: Replay
    rng: np.random.Generator
    rollout: Rollout | GameRollout | None
    evaluator: Evaluator | GameEvaluator | None
    offline_until: int
    before: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    logged: list[Episode] = field(default_factory=list)
    pending: dict[str, Any] | None = None

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.folder / CHECKPOINTS

    def save(self, metrics_offset: int) -> Path:
        """One atomic checkpoint of everything that the future depends on, and the bytes of metrics written so far."""
        return checkpoint.save(
            self.checkpoints,
            self.learner.update_count,
            partial(self._write, metrics_offset),
            keep=self.config.save_total_limit,
        )

    def _write(self, metrics_offset: int, folder: Path, previous: Path | None) -> None:
        rollout = self.rollout
        parts = {
            "cursor": rollout.order.cursor if rollout else None,
            "reward_calls": rollout.reward_calls if rollout else None,
            "rollout_metrics": rollout.metrics if rollout else None,
        }
        save_state(self, folder, metrics_offset, parts)
        save_replay(self.replay, folder / REPLAY, previous / REPLAY if previous else None)

    def restore(self, folder: Path) -> int:
        """Go back to a checkpoint; the number of bytes of metrics that belong to it."""
        with restored(self, folder) as state:
            if self.rollout is not None:
                self.rollout.order.cursor = state["cursor"]
                self.rollout.reward_calls = state["reward_calls"]
                self.rollout.metrics = state["rollout_metrics"]
            kept = self.config.replay
            self.replay = load_replay(folder / REPLAY, kept.sampler, kept.capacity_episodes, kept.capacity_tokens)
        offset: int = state["metrics_offset"]
        return offset

    def opening(self) -> list[str]:
        """What is said before the first update."""
        parameters = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        target = f"target network {self.learner.target.bytes:,} bytes"
        lines = [f"{self.data.name}: {parameters:,} trained parameters, {target}"]
        if not self.network.factored:
            lines.append("this model scales or caps its logits: full logit tensors are used, which costs memory")
        return lines + [f"{name}: {value:.3f}" for name, value in self.data.bounds.items()]

    def begin(self) -> None:
        """Fill the replay with the scored episodes of the data."""
        if self.logged:
            episodes = self.reference.record(self.logged)
            self.replay.add(episodes)
            self.learner.observe(episodes)

    def signs(self, row: dict[str, Any]) -> list[str]:
        """What looks like divergence in a row of metrics."""
        return signs_of_divergence(row, is_calibrated(self.learner))

    def measure(self) -> dict[str, float] | None:
        """The metrics of an evaluation; None where there is nothing to score with."""
        return None if self.evaluator is None else self.evaluator.evaluate().metrics

    def learn(self) -> Iterator[tuple[Report, Batch]]:
        """Make the updates that are left: from the data first, then from fresh text."""
        config = self.config
        size = config.per_device_train_batch_size * config.gradient_accumulation_steps
        yield from offline(self.learner, self.replay, batch_size=size, until=self.offline_until, rng=self.rng)
        if self.rollout is not None:
            yield from online(
                self.learner,
                self.replay,
                partial(self._write_episodes, self.rollout),
                batch_size=size,
                since=self.offline_until,
                until=config.max_steps,
                steps_per_generation=config.steps_per_generation,
                rng=self.rng,
            )

    def _write_episodes(self, rollout: Rollout | GameRollout, update: int) -> list[Episode]:
        """A rollout before this update; the first one of every `logging_steps` updates is kept as a table."""
        config = self.config
        before = update - config.steps_per_generation
        first = update == self.offline_until or update // config.logging_steps > before // config.logging_steps
        with repeatable(rollout):
            episodes = rollout(update)
            if config.log_completions and first and rollout.completions is not None:
                write_completions(self.folder, update, rollout.completions.table())
        return episodes

    def row(self, report: Report, batch: Batch) -> dict[str, Any]:
        """One line of metrics."""
        rollout = self.rollout
        diagnosed, greedy = diagnose(self.learner, batch)
        fresh = report.update > self.offline_until
        row: dict[str, Any] = {"update": report.update, "phase": "online" if fresh else "offline"}
        row |= report.metrics | diagnosed | {"replay_episodes": len(self.replay)}
        episodes = self.replay.stored(batch.index.cpu().numpy())
        row["unseen_greedy_share"] = self.replay.unseen_share(episodes, greedy, batch.decided.cpu().numpy())
        if rollout is not None and fresh:
            row |= rollout.metrics
            if hasattr(rollout.exploration, "epsilon"):
                row["epsilon"] = rollout.exploration.epsilon(report.update)
        return row


def build_session(
    config: TrainConfig,
    folder: Path,
    data: Data,
    tokenizer: Any,
    network: QNetwork,
    reference: Reference,
    offline_until: int,
    accelerator: Accelerator,
) -> Session:
    """Put the parts of a run together; nothing is generated or learned yet."""
    online = offline_until < config.max_steps
    default_scale = Standardise() if online and offline_until == 0 else WorstIsZero()
    learner = Learner(
        network,
        config.objective,
        Target(network, config.target, config.seed),
        config.reward_scale or default_scale,
        optimisation(config),
        accelerator,
        config.clock,
    )
    model = network.causal
    writer = Writer(network, codec_of(model, tokenizer, config.turns_seen), context_length(model))
    replay = Replay(config.replay.capacity_episodes, config.replay.capacity_tokens, config.replay.sampler)
    return Session(
        config,
        folder,
        data,
        tokenizer,
        network,
        reference,
        learner,
        replay,
        np.random.default_rng(config.seed),
        rollout_of(config, data, writer, reference) if online else None,
        evaluator_of(config, data, writer, reference),
        offline_until,
    )
