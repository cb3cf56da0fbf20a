"""Pretrain: a language model from texts, and nothing else."""

from dataclasses import replace
from pathlib import Path

from tokenq.config.supervised import FinetuneConfig
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.nets.architectures import NGramModel
from tokenq.run.count import count
from tokenq.run.finetune import supervise


def pretrain(config: TrainConfig) -> Path:
    """Pretrain as the configuration's `pretrain` part says; the folder of the model, which `model` may then name."""
    if isinstance(config.pretrain.architecture, NGramModel):
        return count(config, config.pretrain.architecture)
    if config.pretrain.max_steps == 0:
        raise ConfigError("pretrain.max_steps: got 0, expected the number of updates to make")
    return supervise(replace(config, finetune=FinetuneConfig()))
