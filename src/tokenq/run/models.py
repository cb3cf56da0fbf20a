"""The language model of a run: loaded, made and pretrained, or handed over."""

import copy
import shutil
from pathlib import Path
from typing import Any

from tokenq.config.train import TrainConfig
from tokenq.envs.walks import Walks
from tokenq.errors import ConfigError
from tokenq.learning.offline import Guided
from tokenq.learning.values import Afterstates, Head
from tokenq.nets import heads, loading
from tokenq.nets.architectures import EncoderDecoder
from tokenq.nets.encoder import QNetwork, decision_count, is_encoder
from tokenq.nets.families import check_decides, is_masked_model, with_decisions
from tokenq.nets.language import plain
from tokenq.nets.reference import Reference
from tokenq.replay.codecs import Codec, Joint, Labelled, Paired, Spanned
from tokenq.run.corpus import held_out_lessons, held_out_tokens, lessons, pretraining_tokens, tokenizer_texts
from tokenq.run.figures import draw_losses
from tokenq.run.folder import alone, whole_folder
from tokenq.run.given import Given
from tokenq.run.stage import Stage
from tokenq.run.supervise import finetune_model, pretrain_model

START = "start"
"""Folder of a run for the model that was made in it; a resumed run reads it instead of making it again."""
TOKENIZER = "tokenizer"
"""Folder for a tokenizer that was trained in the run, until the one in `START` takes its place: not every kind of
tokenizer comes out the same when it is trained again."""


def load_tokenizer(config: TrainConfig, given: Given, folder: Path) -> Any:
    """The run's tokenizer: handed over, made by this run before, loaded, or trained on the texts of pretraining."""
    start = folder / START
    if given.tokenizer is not None:
        tokenizer = loading.with_chat_template(given.tokenizer, config.chat_template)
        return loading.checked_tokenizer(tokenizer, "processing_class")
    for made in (start, folder / TOKENIZER):
        if made.is_dir():
            return loading.load_tokenizer(str(made), config.chat_template)
    if config.model is not None:
        return loading.load_tokenizer(config.model, config.chat_template, config.trust_remote_code)
    if given.model is not None:
        return loading.load_tokenizer(given.model.config._name_or_path, config.chat_template)
    if config.pretrain.tokenizer is not None:
        architecture = config.pretrain.architecture
        sentinels = isinstance(architecture, EncoderDecoder)  # which is pretrained on spans
        tokenizer = config.pretrain.tokenizer.train(tokenizer_texts(config, given), architecture.frame, sentinels)
        plays = config.game or config.environment_factory or given.environment_factory
        plain_talk = None if plays is None else loading.PLAIN
        return loading.with_chat_template(tokenizer, config.chat_template or plain_talk)
    if not isinstance(config.task, Walks):
        raise ConfigError("model: got none, expected a folder or hub id of a model, or pretrain.tokenizer to make one")
    return loading.with_chat_template(loading.character_tokenizer(config.task.symbols), config.chat_template)


def load_start(config: TrainConfig, given: Given, tokenizer: Any, folder: Path) -> Any:
    """The model to start from: handed over, made by this run before, loaded, or fresh with random weights."""
    if given.model is not None:
        return given.model.to(loading.device())
    start = folder / START
    if start.is_dir():
        return loading.load_model(str(start), config.dtype)
    if config.model is not None:
        return loading.load_model(config.model, config.dtype, config.trust_remote_code)
    fresh: Any = config.pretrain.architecture.build(tokenizer)
    return fresh.to(loading.device())


def make_start(config: TrainConfig, given: Given, tokenizer: Any, model: Any, folder: Path) -> Any:
    """The model that `load_start` found, with what its decisions need, after the supervised stages that are asked for.

    It is kept in the run's folder if it is no longer the one that `model` names. Until then each stage keeps its state,
    from which it goes on when it was interrupted.

    Raises:
        CheckpointError: another process makes this run, or the disk refused.
        Diverged: the loss of a stage is not finite.
    """
    if (folder / START).is_dir():
        _forget(config, folder)
        return model
    with alone(folder, wait=False):
        return _made_start(config, given, tokenizer, model, folder)


def _forget(config: TrainConfig, folder: Path) -> None:
    """Drop what was kept for stages to go on from, now that there is the model which they leave."""
    for stage in stages_of(config, folder):
        stage.forget()
    if (folder / TOKENIZER).is_dir():
        shutil.rmtree(folder / TOKENIZER)


def _made_start(config: TrainConfig, given: Given, tokenizer: Any, model: Any, folder: Path) -> Any:
    start = folder / START
    _check_stages(config, model)
    pretraining, finetuning = stages_of(config, folder)
    supervised = config.pretrain.max_steps > 0 or config.finetune.max_steps > 0
    if supervised and config.model is None and given.model is None and not (folder / TOKENIZER).is_dir():
        with whole_folder(folder / TOKENIZER) as place:
            tokenizer.save_pretrained(place)
    found = model
    # Read before anything is trained: a bad row should not cost the pretraining.
    taught = lessons(config, given) if config.finetune.max_steps > 0 else None
    valid = None if taught is None else held_out_lessons(config, taught)
    if config.pretrain.max_steps > 0:
        texts, held_out = pretraining_tokens(config, given, tokenizer), held_out_tokens(config, tokenizer)
        pretrain_model(model, tokenizer, texts, held_out, config.pretrain, config.seed, pretraining)
    model = deciding(model, config)
    if taught is not None:
        codec = codec_of(model, tokenizer, config.turns_seen)
        model = finetune_model(model, codec, taught, valid, config.finetune, config.seed, finetuning)
    if supervised:
        made = {stage.name: stage.metrics for stage in (pretraining, finetuning) if stage.metrics.is_file()}
        draw_losses(made, folder / "losses.png")
    as_named = config.model is not None and model is found and not supervised
    if given.model is not None or as_named:
        return model
    with whole_folder(start) as place:
        loading.save_model(model, tokenizer, place)
    _forget(config, folder)
    # Read back, so that number type and bytes are those that a resumed run starts from.
    return loading.load_model(str(start), config.dtype)


def stages_of(config: TrainConfig, folder: Path) -> tuple[Stage, Stage]:
    """Pretraining and fine-tuning, as a configuration sets them."""
    periods = config.logging_steps, config.save_steps
    pretraining = Stage("pretraining", "pretrain", folder / "pretrain", *periods)
    return pretraining, Stage("fine-tuning", "finetune", folder / "finetune", *periods)


def _check_stages(config: TrainConfig, model: Any) -> None:
    """Raise `ConfigError` for what a stage would find out too late, or never."""
    if isinstance(config.objective.values, Afterstates):
        heads.check_afterstates(model)
    noises = {"finetune.noise": config.finetune.noise}
    if isinstance(config.objective, Guided):
        noises["objective.noise"] = config.objective.noise
    for name, noise in noises.items():
        if noise > 0 and _reads_spans(model, config):
            raise ConfigError(f"{name}: got {noise} for a reader of spans, expected 0")
    if config.finetune.max_steps > 0 and config.row_task is None:
        check_decides(model)
    held_out = config.finetune.eval_dataset or config.eval_dataset
    stages = (("pretrain", config.pretrain, config.pretrain.eval_dataset), ("finetune", config.finetune, held_out))
    for name, stage, source in stages:
        if stage.max_steps > 0 and stage.patience is not None and source is None:
            raise ConfigError(
                f"{name}.patience: got {stage.patience} without rows to validate on; set {name}.eval_dataset, "
                "or leave patience out"
            )


def _reads_spans(model: Any, config: TrainConfig) -> bool:
    if is_masked_model(model):
        return config.row_task is not None and not config.row_task.labels
    return is_encoder(model) and decision_count(model) > 1


def deciding(model: Any, config: TrainConfig) -> Any:
    """The model itself, or, if it only fills masks, its encoder with a head for the decisions of the task.

    A classifier whose labels have no names yet takes those of the task; raises `ConfigError` if it has others.
    """
    if config.row_task is None:
        return model
    labels = list(config.row_task.labels)
    if is_masked_model(model):
        return with_decisions(model, labels)
    if labels and is_encoder(model) and decision_count(model) == 1:
        _name_labels(plain(model).config, labels)
    return model


def _name_labels(config: Any, names: list[str]) -> None:
    own = [config.id2label[i] for i in range(len(config.id2label))]
    if own == [f"LABEL_{i}" for i in range(len(names))]:  # as transformers calls what nobody named
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    elif set(own) != set(names):
        raise ConfigError(
            f"task.names: got {', '.join(names)}, expected the labels of the model, {', '.join(own)}; set task.names "
            "to those, in the order of the numbers in the data, or choose a model with as many unnamed labels"
        )


def codec_of(model: Any, tokenizer: Any, memory: int | None = None) -> Codec:
    """How rows become token ids for this kind of model, which sees `memory` observations of a conversation."""
    check_decides(model)
    causal = plain(model)
    if is_encoder(model):
        labels: Any = causal.config.id2label
        once = decision_count(model) == 1
        return Labelled(tokenizer, [labels[i] for i in range(len(labels))]) if once else Spanned(tokenizer)
    ends = loading.end_tokens(causal, tokenizer)
    if causal.config.is_encoder_decoder:
        return Paired(tokenizer, ends, loading.decoder_start(causal))
    return Joint(tokenizer, ends, memory)


def build_network(config: TrainConfig, given: Given, model: Any) -> tuple[QNetwork, Reference]:
    """The online network with whatever the objective needs, and the frozen reference."""
    if config.use_peft:
        lora = loading.Lora(config.lora_r, config.lora_alpha, config.lora_target_modules)
        model = loading.with_adapter(model, lora)
    elif given.peft_config is not None:
        model = loading.with_peft_config(model, given.peft_config)
    objective = config.objective
    value_head = heads.value_head(model, None) if isinstance(objective.values, Head) else None
    q_heads: Any = None
    if isinstance(objective, Guided):
        guidance = objective.guidance
        if isinstance(objective.values, Afterstates):
            q_heads = heads.afterstates(model, objective.values.ahead, guidance.beta, guidance.top_k, guidance.min_p)
        else:
            count, value = objective.values.count, objective.has_value
            q_heads = heads.q_heads(model, count, value, guidance.beta, guidance.top_k, guidance.min_p)
    network = loading.q_network(model, value_head, q_heads)
    alone = network if q_heads is None else loading.q_network(model)
    frozen = alone if hasattr(model, "disable_adapter") else copy.deepcopy(alone).requires_grad_(False)
    return network, Reference(frozen, objective.plausible)
