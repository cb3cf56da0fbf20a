"""Which class of model a checkpoint holds, and what each class can do."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from tokenq.errors import ConfigError
from tokenq.nets.language import plain


def family(config: Any) -> type:
    """The Auto class that loads the checkpoint of a configuration.

    Raises `ConfigError` if it holds none of: language model, encoder–decoder, classifier, reader of spans.
    """
    names = " ".join(config.architectures or [])
    if "ForSequenceClassification" in names:
        return AutoModelForSequenceClassification
    if "ForQuestionAnswering" in names:
        return AutoModelForQuestionAnswering
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    fills = MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None)
    # Encoder types have a causal class as well, in which a token sees its future unless the encoder is a decoder.
    encodes = "ForMaskedLM" in getattr(fills, "__name__", "") and not getattr(config, "is_decoder", False)
    if encodes or "ForMaskedLM" in names:
        return AutoModelForMaskedLM
    writes = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    own = getattr(config, "auto_map", None) or {}
    # XLM is one class for both and does not say which it is.
    if (writes is not None and writes is not fills) or "AutoModelForCausalLM" in own:
        return AutoModelForCausalLM
    raise ConfigError(
        f"model: got {config._name_or_path}, a {config.model_type} with the architectures {names or 'null'}; expected "
        "a causal or masked language model, an encoder–decoder, a classifier or a reader of spans; choose another model"
    )


def is_masked_model(model: PreTrainedModel) -> bool:
    """Whether the model fills masks and decides nothing yet."""
    return "ForMaskedLM" in type(model).__name__


def with_decisions(model: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """A masked language model's encoder with a fresh head: over labels, or, without any, over the spans of a text."""
    config: Any = copy.deepcopy(model.config)
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}
    auto: Any = AutoModelForSequenceClassification if labels else AutoModelForQuestionAnswering
    decider: PreTrainedModel = auto.from_config(config).to(model.device)
    # A classifier's body may have a pooler more, which stays fresh.
    decider.base_model.load_state_dict(model.base_model.state_dict(), strict=False)
    return decider


def check_decides(model: nn.Module) -> None:
    """Raise `ConfigError` for a model that only fills masks."""
    causal = plain(model)
    if is_masked_model(causal):
        raise ConfigError(
            f"model: got {type(causal).__name__}, which fills masks and decides nothing; expected a task that gives it "
            "decisions; train it with task classification or question_answering"
        )


def adaptable(model: PreTrainedModel) -> list[str]:
    """Names of the layers that can get a LoRA adapter, each once."""
    kinds, tied = (nn.Linear, nn.Embedding, Conv1D), tied_layers(model)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)}
    return sorted(name for name in names - tied if not name.isdigit())


def tied_layers(model: PreTrainedModel) -> set[str]:
    """Names of the token embeddings and the output layer if they are one matrix: an adapter on one changes both."""
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if written is None or written.weight is not read.weight:
        return set()
    return {name.rpartition(".")[2] for name, module in model.named_modules() if module is read or module is written}
