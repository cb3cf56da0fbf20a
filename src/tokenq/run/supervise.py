"""The supervised stages of a run: pretraining on texts, and fine-tuning on right answers."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from tokenq.config.fields import tag
from tokenq.config.supervised import FinetuneConfig, PretrainConfig
from tokenq.errors import ConfigError, DataError
from tokenq.nets import loading
from tokenq.nets.language import context_length
from tokenq.nets.likelihood import decision_loss
from tokenq.nets.loading import Lora
from tokenq.nets.pretext import Causal, Masked, SpanCorruption, suited
from tokenq.replay.codecs import Codec
from tokenq.replay.collate import collate_all
from tokenq.replay.offline import episodes_from_rows
from tokenq.run.corpus import Lessons
from tokenq.run.stage import Examples, Stage, drive_stage
from tokenq.types import Episode, ReferenceRecord


def pretext(config: PretrainConfig, model: Any) -> Causal | Masked | SpanCorruption:
    """What is predicted: what suits the model, with the configured numbers; raises `ConfigError` if they do not fit."""
    fitting = suited(model)
    if config.objective is None:
        return fitting
    if type(config.objective) is not type(fitting):
        got, expected = tag(type(config.objective)), tag(type(fitting))
        raise ConfigError(
            f"pretrain.objective: got {got} for {type(model).__name__}, expected {expected}; set that or leave it out"
        )
    return config.objective


def pretrain_model(
    model: Any,
    tokenizer: Any,
    texts: Sequence[list[int]],
    held_out: Sequence[list[int]],
    config: PretrainConfig,
    seed: int,
    stage: Stage,
) -> None:
    """Pretrain a model in place on the tokens of texts, and validate on those of others, if there are any."""
    context = context_length(model)
    objective = pretext(config, model)

    def examples(texts: Sequence[list[int]]) -> Examples:
        found = _pieces(texts, tokenizer.eos_token_id, config.block_size, context)
        return Examples(objective.loss(model, found, tokenizer), len(found))

    valid = examples(held_out) if held_out else None
    drive_stage(stage, model, examples(texts), valid, config, seed)


def _pieces(texts: Sequence[list[int]], end: int, block: int | None, context: int | None) -> list[list[int]]:
    """Each text with its end; joined and cut into blocks, or cut where the context ends."""
    tokens = [[*text, end] for text in texts]
    if block is not None:
        if context is not None and block > context:
            raise ConfigError(f"pretrain.block_size: got {block}, expected at most {context}, the model's context")
        joined = list(chain.from_iterable(tokens))
        pieces = [joined[start : start + block] for start in range(0, len(joined), block)]
    else:
        pieces = [text[:context] for text in tokens]
    found = [piece for piece in pieces if len(piece) > 1]
    if not found:
        raise DataError(f"pretrain: got {len(tokens)} texts, all of them empty; expected at least one to read")
    return found


def finetune_model(
    model: Any,
    codec: Codec,
    taught: Lessons,
    held_out: Lessons | None,
    config: FinetuneConfig,
    seed: int,
    stage: Stage,
) -> Any:
    """Fine-tune a model on the right completions of prompts, or on the assistant's turns of conversations.

    The model, adapters merged. How a row was scored changes nothing.
    """
    adapted = model
    if isinstance(config.scope, Lora):
        adapted = loading.with_adapter(model, config.scope, "finetune.scope.target_modules")
    network = loading.q_network(adapted)
    if not isinstance(config.scope, Lora):
        chosen = config.scope.lagged([name for name, _ in network.named_parameters()])
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(chosen(name) or (chosen("readout") and _is_readout(network, parameter)))
    context = context_length(model)

    def examples(given: Lessons) -> Examples:
        scored = [{"terminated": True, **row, "reward": 0.0, "rewards": None, "label": None} for _, row in given.rows]
        numbers = [number for number, _ in given.rows]
        read = episodes_from_rows(scored, codec, given.source, context, numbers)
        episodes = [_without_record(episode) for episode in read]

        def loss(chosen: Sequence[int], generator: Any) -> Any:
            batch = collate_all([episodes[i] for i in chosen]).to(network.device)
            return decision_loss(network, batch, config.noise)

        return Examples(loss, len(episodes))

    valid = None if held_out is None else examples(held_out)
    drive_stage(stage, adapted, examples(taught), valid, config, seed)
    network.requires_grad_(True)
    merged: Any = adapted
    return merged.merge_and_unload() if isinstance(config.scope, Lora) else model


def _is_readout(network: Any, parameter: Any) -> bool:
    return parameter is getattr(getattr(network, "readout", None), "weight", None)


def _without_record(episode: Episode) -> Episode:
    """The episode with an empty record, which supervised learning never asks."""
    n = len(episode.decisions)
    nothing = np.empty((n + 1, 0))
    return episode.with_record(ReferenceRecord(np.zeros(n), np.zeros(n + 1), nothing.astype(np.int64), nothing))
