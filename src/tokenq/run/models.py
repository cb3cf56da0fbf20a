"""The language model of a run: loaded, made and pretrained, or handed over."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenq.config.train import PretrainConfig, TrainConfig
from tokenq.errors import ConfigError, DataError
from tokenq.learning.values import Head
from tokenq.nets import loading
from tokenq.nets.language import LanguageQ
from tokenq.nets.reference import Reference
from tokenq.pretraining import pretrain
from tokenq.run.data import Data, texts
from tokenq.run.folder import whole_folder
from tokenq.run.given import Given
from tokenq.tracking import Progress

START = "start"
"""Folder of a run for the model that was made in it; a resumed run reads it instead of making it again."""


def load_tokenizer(config: TrainConfig, given: Given) -> Any:
    """The run's tokenizer."""
    if given.tokenizer is not None:
        tokenizer = loading.with_chat_template(given.tokenizer, config.chat_template)
        return loading.checked_tokenizer(tokenizer, "processing_class")
    if config.model is not None:
        return loading.load_tokenizer(config.model, config.chat_template, config.trust_remote_code)
    if given.model is not None:
        return loading.load_tokenizer(given.model.config._name_or_path, config.chat_template)
    if config.task is None:
        raise ConfigError("model: got none, expected a folder or hub id of a causal language model (or a task)")
    return loading.with_chat_template(loading.character_tokenizer(config.task.symbols), config.chat_template)


def load_start(config: TrainConfig, given: Given, tokenizer: Any, folder: Path) -> Any:
    """The model to start from: handed over, made by this run before, loaded, or fresh with random weights."""
    if given.model is not None:
        return given.model
    start = folder / START
    if start.is_dir():
        return loading.load_model(str(start), config.dtype)
    if config.model is not None:
        return loading.load_model(config.model, config.dtype, config.trust_remote_code)
    shape = config.pretrain
    return loading.fresh_model(
        tokenizer, loading.Shape(shape.layers, shape.width, shape.heads, shape.context, shape.vocabulary)
    )


def make_start(config: TrainConfig, given: Given, data: Data, tokenizer: Any, model: Any, folder: Path) -> Any:
    """The model that `load_start` found, pretrained if the configuration asks for it, and kept if made here."""
    start = folder / START
    is_loaded = config.model is not None and config.pretrain.max_steps == 0
    if given.model is not None or start.is_dir() or is_loaded:
        return model
    if config.pretrain.max_steps > 0:
        run_pretraining(model, tokenizer, texts(config, data), config.pretrain, config.seed)
    with whole_folder(start) as place:
        loading.save_model(LanguageQ(model), tokenizer, place)
    # Read back, so that number type and bytes are those that a resumed run starts from.
    return loading.load_model(str(start), config.dtype)


def run_pretraining(model: Any, tokenizer: Any, texts: Sequence[str], config: PretrainConfig, seed: int) -> None:
    """Pretrain a model in place, with a progress bar."""
    context = loading.context_length(model)
    tokens = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:context] for text in texts]
    if not any(len(text) > 1 for text in tokens):
        raise DataError(f"pretrain: got {len(tokens)} texts, all of them empty; expected at least one to read")
    updates = pretrain(
        LanguageQ(model),
        [text for text in tokens if len(text) > 1],
        updates=config.max_steps,
        batch_size=config.per_device_train_batch_size,
        learning_rate=config.learning_rate,
        seed=seed,
    )
    losses: list[float] = []
    with Progress(config.max_steps) as progress:
        progress.say(f"pretraining on {len(tokens):,} texts")
        for loss in updates:
            losses.append(loss)
            progress.advance(len(losses))
        progress.say(f"pretrained: {np.mean(losses[-10:]):.3f} nats per token")


def build_network(config: TrainConfig, given: Given, model: Any) -> tuple[LanguageQ, Reference]:
    """The online network with whatever the objective needs, and the frozen reference."""
    if config.use_peft:
        lora = loading.Lora(config.lora_r, config.lora_alpha, config.lora_target_modules)
        model = loading.with_adapter(model, lora)
    elif given.peft_config is not None:
        model = loading.with_peft_config(model, given.peft_config)
    head = loading.value_head(model, None) if isinstance(config.objective.values, Head) else None
    network = LanguageQ(model, head)
    frozen = network if hasattr(model, "disable_adapter") else copy.deepcopy(network).requires_grad_(False)
    return network, Reference(frozen, config.objective.plausible)
