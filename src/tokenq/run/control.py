"""Train an agent on a Gymnasium environment: build the parts of the run and drive them to the end."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tokenq import checkpoint
from tokenq.acting.control import Collector
from tokenq.config.control import ControlConfig
from tokenq.config.parse import from_file
from tokenq.errors import CheckpointError
from tokenq.evaluation.control import Episodes
from tokenq.evaluation.tabular import start_values
from tokenq.learning.diagnostics import diagnose
from tokenq.learning.learner import Learner, Report
from tokenq.learning.scaling import RawRewards
from tokenq.learning.target import Target
from tokenq.nets.control import ControlQ
from tokenq.nets.noisy import without_noise
from tokenq.nets.readouts import Spread
from tokenq.replay.ring import STEP_BYTES
from tokenq.replay.segments import load_steps, save_steps
from tokenq.replay.transitions import Transitions
from tokenq.run.drive import ending, updates
from tokenq.run.figures import draw_curves
from tokenq.run.folder import CONFIG, claim, run_folder, whole_folder
from tokenq.run.learning import accelerator, optimisation, restored, save_state
from tokenq.run.report import Summary, agent_card, versions, write_summary, write_text
from tokenq.run.seeding import seed_everything
from tokenq.training import agent
from tokenq.types import Batch, Spaces, Steps

REPLAY = "replay.safetensors"
STEPS = "steps"
WEIGHTS = "network.safetensors"
LAST = 100
"""Greedy episodes of the last evaluation, at least."""


@dataclass(eq=False)
class ControlSession:
    """The parts of a run: what drives them needs is in `run.drive.Run`."""

    config: ControlConfig
    folder: Path
    learner: Learner
    replay: Transitions
    collector: Collector
    rng: np.random.Generator
    before: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Any] | None = None
    seconds: float = 0.0
    open_returns: np.ndarray = field(default_factory=lambda: np.zeros(0))
    last_return: float = float("nan")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.folder / "checkpoints"

    def opening(self) -> list[str]:
        """What is said before the first update."""
        parameters = sum(p.numel() for p in self.learner.network.parameters())
        target = f"target network {self.learner.target.bytes:,} bytes"
        environments = self.collector.environments
        seen = environments.observations[0].nbytes // self.config.environment.frames
        stored = f"replay up to {self.config.replay.capacity * (seen + STEP_BYTES):,} bytes"
        return [f"{self.config.environment.id}: {parameters:,} parameters, {target}, {stored}"]

    def begin(self) -> None:
        """Fill the replay with random steps."""
        for _ in range(self.config.learning_starts // self.config.num_envs):
            self._keep(self.collector.random(self.rng))

    def learn(self) -> Iterator[tuple[Report, Batch]]:
        """Alternate steps and updates until the last one."""
        config = self.config
        yield from agent(
            self.learner,
            self.replay,
            lambda update: self._keep(self.collector.step(update)),
            batch_size=config.per_device_train_batch_size * config.gradient_accumulation_steps,
            steps=config.steps_per_rollout // config.num_envs,
            updates=config.updates_per_rollout,
            until=config.max_steps,
            rng=self.rng,
        )

    def _keep(self, steps: Steps) -> None:
        """Store steps, and the return of an episode that ended among them."""
        self.replay.add(steps)
        self.open_returns = self.open_returns + steps.rewards
        if steps.ended.any():
            self.last_return = float(self.open_returns[steps.ended].mean())
            self.open_returns = self.open_returns * ~steps.ended

    def row(self, report: Report, batch: Batch) -> dict[str, Any]:
        """One line of metrics."""
        with without_noise(self.learner.network):
            diagnosed, _ = diagnose(self.learner, batch)
        del diagnosed["return_max"]  # a bound for values that begin with the episode, which these do not
        row: dict[str, Any] = {"update": report.update, "phase": "online", "return": self.last_return}
        row |= report.metrics | diagnosed | {"environment_steps": self.replay.added, "replay_steps": len(self.replay)}
        if hasattr(self.collector.exploration, "epsilon"):
            row["epsilon"] = self.collector.exploration.epsilon(report.update)
        return row

    def signs(self, row: dict[str, Any]) -> list[str]:
        """Values above those of the largest reward of all, earned for ever."""
        gamma, highest = self.config.objective.gamma, self.replay.largest_reward
        if gamma == 1 or row["q_max"] <= max(highest, 0.0) / (1 - gamma) + 1.0:
            return []
        bound = f"the largest reward seen, {highest:.3g}, earned at every step"
        advice = "values feed on themselves; lower learning_rate or slow the target"
        return [f"q_max {row['q_max']:.3g} exceeds {bound}: {advice}"]

    def measure(self) -> dict[str, float]:
        """The metrics of greedy episodes."""
        return self.evaluate(self.config.eval_samples)

    def evaluate(self, episodes: int) -> dict[str, float]:
        """The same of so many episodes."""
        config, network = self.config, self.collector.network
        returns = Episodes(config.environment, episodes, config.seed).evaluate(network)
        return returns | start_values(config.environment, network, config.objective.gamma)

    def save(self, metrics_offset: int) -> Path:
        """One atomic checkpoint of everything that the future depends on, and the bytes of metrics written so far."""
        update, keep = self.learner.update_count, self.config.save_total_limit
        return checkpoint.save(self.checkpoints, update, partial(self._write, metrics_offset), keep=keep)

    def _write(self, metrics_offset: int, folder: Path, previous: Path | None) -> None:
        checkpoint.save_tensors(folder / REPLAY, self.replay.head())
        save_steps(self.replay, folder / STEPS, previous and previous / STEPS)
        parts = {
            "environment": self.collector.environments.state(),
            "returns": self.open_returns.tolist(),
            "last_return": self.last_return,
        }
        save_state(self, folder, metrics_offset, parts)

    def restore(self, folder: Path) -> int:
        """Go back to a checkpoint; the number of bytes of metrics that belong to it."""
        with restored(self, folder) as state:
            self.collector.environments.restore(state["environment"])
            self.replay.restore(checkpoint.load_tensors(folder / REPLAY) | {"steps": load_steps(folder / STEPS)})
            self.open_returns, self.last_return = np.array(state["returns"]), state["last_return"]
        offset: int = state["metrics_offset"]
        return offset


def control(config: ControlConfig) -> Summary:
    """Run a configuration from the start, or from its newest whole checkpoint, to the end; what summary.json holds."""
    session = prepare(config)
    for _ in updates(session):
        pass
    with ending(session):
        return _finish(session)


def prepare(config: ControlConfig) -> ControlSession:
    """Every part of a run, with the environments made and checked."""
    folder = run_folder(config, config.environment.id.replace("/", "-").replace(":", "-"))
    seed_everything(config.seed)
    environments = config.environment.make(config.num_envs, config.seed)
    claim(folder, config)
    network = _network(config, environments.spaces)
    device = accelerator(config, folder)
    network.to(device.device)
    learner = Learner(
        network,
        config.objective,
        Target(network, config.target, config.seed),
        RawRewards(),
        optimisation(config),
        device,
    )
    return ControlSession(
        config,
        folder,
        learner,
        Transitions(
            config.replay.capacity,
            config.replay.n_step,
            config.objective.gamma,
            config.replay.sampler,
            config.environment.frames,
            config.replay.length,
        ),
        Collector(network, environments, config.exploration),
        np.random.default_rng(config.seed),
        open_returns=np.zeros(config.num_envs),
    )


def _network(config: ControlConfig, spaces: Spaces) -> ControlQ:
    return config.network.build(spaces, config.objective if isinstance(config.objective, Spread) else None)


def _finish(session: ControlSession) -> Summary:
    """Write what a run leaves behind, print the returns before and after, and return the summary."""
    folder, config = session.folder, session.config
    with whole_folder(folder / "model") as place:
        parameters = dict(session.collector.network.named_parameters())
        checkpoint.save_tensors(place / WEIGHTS, {name: p.detach().cpu() for name, p in parameters.items()})
    after = session.evaluate(max(LAST, config.eval_samples))
    summary = Summary(
        task=config.environment.id,
        seed=config.seed,
        before=session.before,
        after=after,
        reward_calls=session.replay.added,
        updates=session.learner.update_count,
        wall_seconds=session.seconds,
        target_bytes=session.learner.target.bytes,
        versions=versions(),
    )
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    write_summary(folder / "summary.json", summary)
    write_text(folder / "README.md", agent_card(folder.name, summary, type(config.objective).__name__))
    print(
        f"return: before {session.before['return']:.1f}  after {after['return']:.1f} "
        f"[{after['return_low']:.1f}, {after['return_high']:.1f}]"
    )
    if "start_value" in after:
        print(f"start value: {after['start_value']:.4f}, of the best policy {after['optimal_start_value']:.4f}")
    print(f"model, curves.png and summary.json are in {folder}")
    session.collector.environments.close()
    return summary


def is_agent(run: str) -> bool:
    """Whether a folder is that of a finished run of this kind."""
    return (Path(run) / "model" / WEIGHTS).is_file()


def load_agent(run: str) -> tuple[ControlConfig, ControlQ]:
    """The configuration and network of a finished run; raises `CheckpointError` if `run` is not the folder of one."""
    folder = Path(run)
    if not is_agent(run):
        raise CheckpointError(f"got {run}, expected the folder of a finished run, with {CONFIG} and model/ in it")
    config = replace(from_file(ControlConfig, folder / CONFIG), resume=False)
    environments = config.environment.make(1, config.seed)
    network = _network(config, environments.spaces)
    environments.close()
    network.load_state_dict(checkpoint.load_tensors(folder / "model" / WEIGHTS))
    return config, network
