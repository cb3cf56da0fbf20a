"""Train: build the parts of a run from its configuration and drive them to the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from tokenq import checkpoint
from tokenq.config.train import TrainConfig
from tokenq.errors import CheckpointError, ConfigError, Diverged, TokenqError
from tokenq.learning.diagnostics import diagnose, is_calibrated, signs_of_divergence
from tokenq.learning.learner import Report
from tokenq.learning.scaling import PerPrompt
from tokenq.nets import loading
from tokenq.replay.codecs import Codec
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows
from tokenq.run.data import Data, load_data, offline_updates
from tokenq.run.finish import finish
from tokenq.run.folder import claim, run_folder
from tokenq.run.given import Given
from tokenq.run.models import build_network, codec_of, deciding, load_start, load_tokenizer, make_start
from tokenq.run.report import Summary, write_completions
from tokenq.run.seeding import seed_everything
from tokenq.run.session import CHECKPOINTS, Session, build_session
from tokenq.tracking import MetricsFile, Progress
from tokenq.training import offline, online
from tokenq.types import Batch, Episode


def train(config: TrainConfig, given: Given | None = None) -> Summary:
    """Run a configuration from the start, or from its newest whole checkpoint, to the end; what summary.json holds."""
    return train_session(prepare(config, given or Given()))


def train_session(session: Session) -> Summary:
    """Drive a prepared session to its last update."""
    for _ in updates(session):
        pass
    return finished(session)


def updates(session: Session, console: Console | None = None) -> Iterator[dict[str, Any]]:
    """Make the updates that a session lacks; yields each row of metrics once it is written to the file.

    Whoever has seen enough stops: what was saved until then is whole, and the run can be resumed from it. Progress goes
    to `console`, standard error by default.
    """
    try:
        with _refusals_named(session), Progress(session.config.max_steps, session.learner.update_count, console) as bar:
            _announce(session, bar)
            with _resume_or_start(session, bar) as metrics:
                yield from _drive(session, metrics, bar)
    except GeneratorExit:
        session.learner.accelerator.end_training()
        raise


def finished(session: Session) -> Summary:
    """Write what a run leaves behind, once all its updates are made."""
    with _refusals_named(session):
        try:
            summary = finish(session)
        except TokenqError as error:
            ended = "all updates are done and saved; --resume true repeats only the end"
            raise type(error)(f"{error} ({ended})") from error
    session.learner.accelerator.end_training()
    return summary


@contextmanager
def _refusals_named(session: Session) -> Iterator[None]:
    """An error of the disk says which folder it hit and what to do."""
    try:
        yield
    except OSError as error:
        advice = "what was saved before is whole; free or repair the disk, then set resume to true"
        raise CheckpointError(f"{session.folder}: cannot be written ({error}); {advice}") from error


def prepare(config: TrainConfig, given: Given) -> Session:
    """Every part of a run, with data and models loaded and checked."""
    data = load_data(config, given)
    offline_until = offline_updates(config, data)
    folder = run_folder(config, data.name)
    tokenizer = load_tokenizer(config, given, folder)
    seed_everything(config.seed)
    model = load_start(config, given, tokenizer, folder)
    context = loading.context_length(model)
    codec = codec_of(deciding(model, config), tokenizer)
    _check_scale(config, offline_until)
    _check_context(config, context)
    _check_prompts(config, data, codec, context, offline_until < config.max_steps)
    starts = offline_until > 0 and not any((folder / CHECKPOINTS).glob("*"))
    logged = episodes_from_rows(data.scored, codec, data.scored_source, context) if starts else []
    claim(folder, config)
    accelerator = _accelerator(config, folder)
    model = make_start(config, given, tokenizer, model, folder)
    seed_everything(config.seed)
    network, reference = build_network(config, given, model)
    network.to(accelerator.device)
    reference.network.to(accelerator.device)
    session = build_session(config, folder, data, tokenizer, network, reference, offline_until, accelerator)
    session.logged = logged
    return session


def _accelerator(config: TrainConfig, folder: Path) -> Accelerator:
    try:
        accelerator = Accelerator(log_with=config.report_to or None, project_dir=str(folder))
        accelerator.init_trackers("tokenq")
    except (ValueError, ImportError) as error:
        raise ConfigError(f"report_to: got {config.report_to}; {error}") from error
    if accelerator.num_processes > 1:
        raise ConfigError(f"got {accelerator.num_processes} processes, expected one: start tokenq without a launcher")
    return accelerator


def _check_scale(config: TrainConfig, offline_until: int) -> None:
    if offline_until > 0 and isinstance(config.reward_scale, PerPrompt):
        raise ConfigError(
            f"reward_scale: got per_prompt with {offline_until} updates from scored data, "
            "which is not grouped by prompt; expected fresh text alone: set offline_steps to 0, or choose another scale"
        )


def _check_context(config: TrainConfig, context: int | None) -> None:
    if context is not None and config.max_completion_length >= context:
        raise ConfigError(
            f"max_completion_length: got {config.max_completion_length}, "
            f"expected less than {context}, the model's context"
        )


def _check_prompts(config: TrainConfig, data: Data, codec: Codec, context: int | None, online: bool) -> None:
    """Read every prompt that will be answered, so that none stops the run half-way."""
    length = config.max_completion_length
    if online:
        prompts_from_rows(data.prompts, codec, data.prompts_source, context, length, data.prompt_numbers)
    if data.rewards is not None and data.prompts:
        used = slice(config.eval_samples)
        prompts, numbers = data.eval_prompts[used], data.eval_numbers[used]
        prompts_from_rows(prompts, codec, data.eval_source, context, length, numbers)


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
    try:
        _start(session, progress)
    except TokenqError as error:
        raise type(error)(f"{error} (before the first update; --resume true tries again)") from error
    return MetricsFile(path)


def _start(session: Session, progress: Progress) -> None:
    if session.logged:
        episodes = session.reference.record(session.logged)
        session.replay.add(episodes)
        session.learner.observe(episodes)
    if session.evaluator is not None:
        session.before = session.evaluator.evaluate().metrics
        progress.say(f"before: {_spoken(session.before)}")


def _drive(session: Session, metrics: MetricsFile, progress: Progress) -> Iterator[dict[str, Any]]:
    """Make updates until the last one; log, evaluate and save on their periods, and save before any error leaves.

    Yields the rows that it writes, each before the state is saved: a row that was not seen is written again.
    """
    config, began = session.config, time.monotonic() - session.seconds
    warned: set[str] = set()
    try:
        if (row := _log(session, metrics, progress, warned)) is not None:
            yield row
        for report, batch in _learn(session):
            update = report.update
            session.seconds = time.monotonic() - began
            evaluated = config.eval_steps is not None and update % config.eval_steps == 0
            if update in (1, config.max_steps) or update % config.logging_steps == 0 or evaluated:
                session.pending = _row(session, report, batch)
                if (row := _log(session, metrics, progress, warned)) is not None:
                    yield row
            progress.advance(update)
            if update % config.save_steps == 0 or update == config.max_steps:
                session.save(metrics.offset)
    except CheckpointError:
        raise
    except TokenqError as error:
        raise type(error)(f"{error} ({_saved(session, metrics.offset, error)})") from error


def _saved(session: Session, metrics_offset: int, error: TokenqError) -> str:
    """Save the state before this error leaves; what became of it."""
    try:
        folder = session.save(metrics_offset)
    except CheckpointError as failed:
        return f"the state could not be saved: {failed}"
    # The same settings would diverge again.
    way_on = "start again in another folder" if isinstance(error, Diverged) else "--resume true goes on from there"
    return f"state saved in {folder}; {way_on}"


def _log(session: Session, metrics: MetricsFile, progress: Progress, warned: set[str]) -> dict[str, Any] | None:
    """Evaluate, if it is time, and write the pending row of metrics; there is none but for a new update."""
    config, row = session.config, session.pending
    if row is None:
        return None
    if session.evaluator is not None and config.eval_steps and row["update"] % config.eval_steps == 0:
        row = row | {f"eval_{name}": value for name, value in session.evaluator.evaluate().metrics.items()}
    metrics.write(row)
    session.pending = None
    session.learner.accelerator.log(row, step=row["update"])
    progress.report(row)
    for sign in signs_of_divergence(row, is_calibrated(session.learner)):
        if sign.split()[0] not in warned:
            warned.add(sign.split()[0])
            progress.say(f"warning, update {row['update']}: {sign}")
    return row


def _learn(session: Session) -> Iterator[tuple[Report, Batch]]:
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
    before = update - config.steps_per_generation
    first = update == session.offline_until or update // config.logging_steps > before // config.logging_steps
    with rollout.repeatable():
        episodes = rollout(update)
        if config.log_completions and first and rollout.completions is not None:
            write_completions(session.folder, update, rollout.completions.table())
    return episodes


def _row(session: Session, report: Report, batch: Batch) -> dict[str, Any]:
    """One line of metrics."""
    rollout = session.rollout
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
    return row


def _spoken(metrics: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if not k.endswith(("_low", "_high")))
