"""Train: build the parts of a run from its configuration and drive them to the end."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tokenq import checkpoint
from tokenq.config.schema import TrainConfig
from tokenq.errors import CheckpointError, ConfigError, TokenqError
from tokenq.learning.diagnostics import diagnose, is_calibrated, signs_of_divergence
from tokenq.learning.learner import Report
from tokenq.nets import loading
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows
from tokenq.run.data import load_data, offline_updates
from tokenq.run.finish import finish
from tokenq.run.folder import claim
from tokenq.run.given import Given
from tokenq.run.models import build_network, load_start, load_tokenizer
from tokenq.run.report import Summary, write_completions
from tokenq.run.seeding import seed_everything
from tokenq.run.session import Session, build_session
from tokenq.tracking import MetricsFile, Progress
from tokenq.training import offline, online
from tokenq.types import Batch, Episode


def train(config: TrainConfig, given: Given | None = None) -> Summary:
    """Run a configuration from the start, or from its newest whole checkpoint, to the end; what summary.json holds."""
    return train_session(prepare(config, given or Given()))


def train_session(session: Session) -> Summary:
    """Drive a prepared session to its last update."""
    config = session.config
    with Progress(config.max_steps, session.learner.update_count) as progress:
        _announce(session, progress)
        with _resume_or_start(session, progress) as metrics:
            _drive(session, metrics, progress)
    summary = finish(session)
    session.learner.accelerator.end_training()
    return summary


def prepare(config: TrainConfig, given: Given) -> Session:
    """Every part of a run, with data and models loaded and checked."""
    data = load_data(config, given)
    offline_until = offline_updates(config, data)
    tokenizer = load_tokenizer(config, given)
    folder = claim(config, data.name)
    accelerator = _accelerator(config, folder)
    seed_everything(config.seed)
    model = load_start(config, given, data, tokenizer, folder)
    _check_context(config, model)
    prompts_from_rows(
        data.prompts if offline_until < config.max_steps else [],
        tokenizer,
        data.prompts_source,
        loading.context_length(model),
    )
    seed_everything(config.seed)
    network, reference = build_network(config, given, model)
    network.to(accelerator.device)
    reference.network.to(accelerator.device)
    return build_session(config, folder, data, tokenizer, network, reference, offline_until, accelerator)


def _accelerator(config: TrainConfig, folder: Path) -> Accelerator:
    try:
        accelerator = Accelerator(log_with=config.report_to or None, project_dir=str(folder))
        accelerator.init_trackers("tokenq")
    except (ValueError, ImportError) as error:
        raise ConfigError(f"report_to: got {config.report_to}; {error}") from error
    if accelerator.num_processes > 1:
        raise ConfigError(f"got {accelerator.num_processes} processes, expected one: start tokenq without a launcher")
    return accelerator


def _check_context(config: TrainConfig, model: Any) -> None:
    context = loading.context_length(model)
    if context is not None and config.max_completion_length >= context:
        raise ConfigError(
            f"max_completion_length: got {config.max_completion_length}, "
            f"expected less than {context}, the model's context"
        )


def _announce(session: Session, progress: Progress) -> None:
    parameters = sum(p.numel() for p in session.network.parameters() if p.requires_grad)
    progress.say(
        f"{session.data.name}: {parameters:,} trained parameters, target network {session.learner.target.bytes:,} bytes"
    )
    if not session.network.factored:
        progress.say("this model scales or caps its logits: full logit tensors are used, which costs memory")
    for name, value in session.data.bounds.items():
        progress.say(f"{name}: {value:.3f}")


def _resume_or_start(session: Session, progress: Progress) -> MetricsFile:
    path = session.folder / "metrics.jsonl"
    found, skipped = checkpoint.newest_whole(session.checkpoints)
    for reason in skipped:
        progress.say(f"skipped a damaged checkpoint, {reason}")
    if found is not None:
        metrics = MetricsFile(path, session.restore(found.folder))
        progress.say(f"resumed from {found.folder.name}")
        return metrics
    if skipped:
        raise CheckpointError(
            f"{session.checkpoints}: none of {len(skipped)} checkpoints is whole; start in another folder"
        )
    if session.offline_until > 0:
        context = loading.context_length(session.network.causal)
        episodes = episodes_from_rows(session.data.scored, session.tokenizer, session.data.scored_source, context)
        episodes = session.reference.record(episodes)
        session.replay.add(episodes)
        session.learner.observe(episodes)
    if session.evaluator is not None:
        session.before = session.evaluator.evaluate().metrics
        progress.say(f"before: {_spoken(session.before)}")
    return MetricsFile(path)


def _drive(session: Session, metrics: MetricsFile, progress: Progress) -> None:
    """Make updates until the last one; log, evaluate and save on their periods, and save before any error leaves."""
    config, began = session.config, time.monotonic() - session.seconds
    warned: set[str] = set()
    try:
        for report, batch in _updates(session):
            update = report.update
            session.seconds = time.monotonic() - began
            if update == 1 or update % config.logging_steps == 0 or update == config.max_steps:
                row = _row(session, report, batch)
                metrics.write(row)
                session.learner.accelerator.log(row, step=update)
                progress.report(row)
                for sign in signs_of_divergence(row, is_calibrated(session.learner)):
                    if sign.split()[0] not in warned:
                        warned.add(sign.split()[0])
                        progress.say(f"warning, update {update}: {sign}")
            progress.advance(update)
            if update % config.save_steps == 0 or update == config.max_steps:
                session.save(metrics.offset)
    except CheckpointError:
        raise
    except TokenqError as error:
        saved = session.save(metrics.offset)
        raise type(error)(f"{error} (state saved in {saved}; --resume true goes on from there)") from error


def _updates(session: Session) -> Iterator[tuple[Report, Batch]]:
    config = session.config
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    yield from offline(session.learner, session.replay, batch_size=size, until=session.offline_until, rng=session.rng)
    if session.rollout is not None:
        yield from online(
            session.learner,
            session.replay,
            partial(_write_episodes, session),
            batch_size=size,
            since=session.offline_until,
            until=config.max_steps,
            steps_per_generation=config.steps_per_generation,
            rng=session.rng,
        )


def _write_episodes(session: Session, update: int) -> list[Episode]:
    """A rollout before this update; the first one of every `logging_steps` updates is kept as a table."""
    config, rollout = session.config, session.rollout
    if rollout is None:
        raise ConfigError("reward_funcs: got none, expected at least one to score fresh text with")
    episodes = rollout(update)
    before = update - config.steps_per_generation
    first = update == session.offline_until or update // config.logging_steps > before // config.logging_steps
    if config.log_completions and first and rollout.completions is not None:
        write_completions(session.folder, update, rollout.completions.table())
    return episodes


def _row(session: Session, report: Report, batch: Batch) -> dict[str, Any]:
    """One line of metrics."""
    config, rollout = session.config, session.rollout
    diagnosed, greedy = diagnose(session.learner, batch)
    fresh = report.update > session.offline_until
    row: dict[str, Any] = {"update": report.update, "phase": "online" if fresh else "offline"}
    row |= report.metrics | diagnosed | {"replay_episodes": len(session.replay)}
    episodes = session.replay.stored(batch.index.cpu().numpy())
    row["unseen_greedy_share"] = session.replay.unseen_share(episodes, greedy, batch.decided.cpu().numpy())
    if rollout is not None and fresh:
        row |= rollout.metrics
        if hasattr(rollout.exploration, "epsilon"):
            row["epsilon"] = rollout.exploration.epsilon(report.update)
    if session.evaluator is not None and config.eval_steps and report.update % config.eval_steps == 0:
        row |= {f"eval_{name}": value for name, value in session.evaluator.evaluate().metrics.items()}
    return row


def _spoken(metrics: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if not k.endswith(("_low", "_high")))
