"""Everything that a run is made of while it trains, and how it is saved and continued."""

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from tokenq import checkpoint
from tokenq.acting.explore import Boltzmann
from tokenq.acting.rollout import PromptOrder, Rollout, RolloutSettings, Writer
from tokenq.config.train import TrainConfig
from tokenq.evaluation.policy import Evaluator
from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.scaling import PerPrompt, ReturnStatistics, Standardise, WorstIsZero
from tokenq.learning.target import Target
from tokenq.nets import loading
from tokenq.nets.encoder import QNetwork
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Replay
from tokenq.replay.shards import load_replay, save_replay
from tokenq.run.data import Data
from tokenq.run.models import codec_of
from tokenq.types import Episode

CHECKPOINTS = "checkpoints"
STATE = "state.safetensors"
REPLAY = "replay"
CLOCK = "clock.json"


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
    rollout: Rollout | None
    evaluator: Evaluator | None
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
        checkpoint.save_tensors(folder / STATE, self._state(metrics_offset))
        # Apart from everything else, which is the same bytes in every run of the same configuration.
        (folder / CLOCK).write_text(json.dumps({"seconds": self.seconds}), encoding="utf-8")
        save_replay(self.replay, folder / REPLAY, previous / REPLAY if previous else None)

    def _state(self, metrics_offset: int) -> dict[str, Any]:
        learner, rollout = self.learner, self.rollout
        return {
            "parameters": {n: p.detach() for n, p in self.network.named_parameters() if p.requires_grad},
            "optimiser": learner.optimiser.state_dict(),
            "target": learner.target.tensors(),
            "target_counters": learner.target.counters(),
            "random": checkpoint.capture({"replay": self.rng}),
            "statistics": asdict(learner.statistics),
            "update": learner.update_count,
            "cursor": rollout.order.cursor if rollout else None,
            "reward_calls": rollout.reward_calls if rollout else None,
            "rollout_metrics": rollout.metrics if rollout else None,
            "metrics_offset": metrics_offset,
            "before": self.before,
            "pending": self.pending,
        }

    def restore(self, folder: Path) -> int:
        """Go back to a checkpoint; the number of bytes of metrics that belong to it."""
        state = checkpoint.load_tensors(folder / STATE)
        learner = self.learner
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(state["parameters"][name])
        learner.optimiser.load_state_dict(state["optimiser"])
        learner.target.restore(state["target"], state["target_counters"])
        learner.statistics = ReturnStatistics(**state["statistics"])
        learner.update_count = state["update"]
        if self.rollout is not None:
            self.rollout.order.cursor = state["cursor"]
            self.rollout.reward_calls = state["reward_calls"]
            self.rollout.metrics = state["rollout_metrics"]
        kept = self.config.replay
        self.replay = load_replay(folder / REPLAY, kept.sampler, kept.capacity_episodes, kept.capacity_tokens)
        self.before = state["before"]
        self.pending = state["pending"]
        self.seconds = json.loads((folder / CLOCK).read_text("utf-8"))["seconds"]
        checkpoint.restore(state["random"], {"replay": self.rng})
        offset: int = state["metrics_offset"]
        return offset


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
        _optimisation(config),
        accelerator,
    )
    sampling = Boltzmann(config.temperature, config.top_k, config.top_p)
    model = network.causal
    writer = Writer(network, codec_of(model, tokenizer), loading.context_length(model))
    rollout = evaluator = None
    if data.rewards is not None and data.prompts:
        if online:
            rollout = Rollout(
                writer,
                PromptOrder(data.prompts, config.seed),
                data.rewards,
                config.exploration or sampling,
                reference,
                _rollout_settings(config),
            )
        evaluator = Evaluator(
            writer,
            data.rewards,
            reference,
            data.eval_prompts,
            sampling,
            config.eval_samples,
            config.max_completion_length,
            config.seed,
        )
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
        rollout,
        evaluator,
        offline_until,
    )


def _optimisation(config: TrainConfig) -> Optimisation:
    return Optimisation(
        learning_rate=config.learning_rate,
        schedule=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        max_steps=config.max_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        microbatches=config.gradient_accumulation_steps,
    )


def _rollout_settings(config: TrainConfig) -> RolloutSettings:
    return RolloutSettings(
        completions=config.generation_batch_size,
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_length,
        max_steps=config.max_steps,
        bootstrap_truncated=config.bootstrap_truncated,
        relative=isinstance(config.reward_scale, PerPrompt),
    )
