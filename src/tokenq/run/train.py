"""Train: build the parts of a run from its configuration and drive them to the end."""

from collections.abc import Sequence

from tokenq.config.train import ReplayConfig, TrainConfig
from tokenq.errors import ConfigError
from tokenq.learning.scaling import PerPrompt
from tokenq.nets.language import context_length
from tokenq.replay.codecs import Codec, Joint, Paired
from tokenq.replay.offline import episodes_from_rows, prompts_from_rows
from tokenq.run.data import Data, load_data, offline_updates
from tokenq.run.drive import ending, updates
from tokenq.run.finish import finish
from tokenq.run.folder import claim, run_folder
from tokenq.run.given import Given
from tokenq.run.learning import accelerator
from tokenq.run.models import build_network, codec_of, deciding, load_start, load_tokenizer, make_start
from tokenq.run.report import Summary
from tokenq.run.seeding import seed_everything
from tokenq.run.session import CHECKPOINTS, Session, build_session
from tokenq.types import Episode


def train(config: TrainConfig, given: Given | None = None) -> Summary:
    """Run a configuration from the start, or from its newest whole checkpoint, to the end; what summary.json holds."""
    return train_session(prepare(config, given or Given()))


def train_session(session: Session) -> Summary:
    """Drive a prepared session to its last update."""
    for _ in updates(session):
        pass
    return finished(session)


def finished(session: Session) -> Summary:
    """Write what a run leaves behind, once all its updates are made."""
    with ending(session):
        return finish(session)


def prepare(config: TrainConfig, given: Given) -> Session:
    """Every part of a run, with data and models loaded and checked."""
    data = load_data(config, given)
    offline_until = offline_updates(config, data)
    folder = run_folder(config, data.name)
    tokenizer = load_tokenizer(config, given, folder)
    seed_everything(config.seed)
    model = load_start(config, given, tokenizer, folder)
    context = context_length(model)
    codec = codec_of(deciding(model, config), tokenizer, config.turns_seen)
    _check_scale(config, offline_until)
    _check_context(config, codec, context)
    _check_prompts(config, data, codec, context, offline_until < config.max_steps)
    starts = offline_until > 0 and not any((folder / CHECKPOINTS).glob("*"))
    logged = episodes_from_rows(data.scored, codec, data.scored_source, context) if starts else []
    _check_room(config.replay, logged)
    claim(folder, config)
    device = accelerator(config, folder)
    model = make_start(config, given, tokenizer, model, folder)
    seed_everything(config.seed)
    network, reference = build_network(config, given, model)
    network.to(device.device)
    reference.network.to(device.device)
    session = build_session(config, folder, data, tokenizer, network, reference, offline_until, device)
    session.logged = logged
    return session


def _check_room(replay: ReplayConfig, logged: Sequence[Episode]) -> None:
    """Scored rows that the replay has no room for would be forgotten before the first update."""
    for name, capacity, needed, what in (
        ("capacity_episodes", replay.capacity_episodes, len(logged), "the scored episodes of the data"),
        ("capacity_tokens", replay.capacity_tokens, sum(map(len, logged)), "the tokens of the scored episodes"),
    ):
        if capacity is not None and capacity < needed:
            raise ConfigError(
                f"replay.{name}: got {capacity}, expected at least {needed}, {what}, the oldest of which would never "
                "be learned from; raise it, or set it to null for no limit"
            )


def _check_scale(config: TrainConfig, offline_until: int) -> None:
    if offline_until > 0 and isinstance(config.reward_scale, PerPrompt):
        raise ConfigError(
            f"reward_scale: got per_prompt with {offline_until} updates from scored data, "
            "which is not grouped by prompt; expected fresh text alone: set offline_steps to 0, or choose another scale"
        )


def _check_context(config: TrainConfig, codec: Codec, context: int | None) -> None:
    writes = isinstance(codec, Joint | Paired)  # others decide once or twice, whatever the setting says
    if context is not None and writes and config.max_completion_length >= context:
        raise ConfigError(
            f"max_completion_length: got {config.max_completion_length}, "
            f"expected less than {context}, the model's context"
        )


def _check_prompts(config: TrainConfig, data: Data, codec: Codec, context: int | None, online: bool) -> None:
    """Read every prompt that will be answered, so that none stops the run half-way."""
    length = config.max_completion_length
    if online and data.game is None:
        prompts_from_rows(data.prompts, codec, data.prompts_source, context, length, data.prompt_numbers)
    if data.rewards is not None and data.prompts:
        used = slice(config.eval_samples)
        prompts, numbers = data.eval_prompts[used], data.eval_numbers[used]
        prompts_from_rows(prompts, codec, data.eval_source, context, length, numbers)
