"""Models and tokenizers: from a hub id or a folder, or small and fresh; and back to a plain checkpoint."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

import tokenq.nets.kv_shifting
import tokenq.nets.recurrent  # noqa: F401  registers our own models with the Auto classes
from tokenq.errors import ConfigError
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.encoder import EncoderQ, QNetwork, is_encoder
from tokenq.nets.families import adaptable, check_decides, family, tied_layers
from tokenq.nets.heads import Q_HEADS, VALUE_HEAD, check_afterstates
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.nets.q_heads import QHeads

PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else bos_token }}{% endfor %}"
)
"""A chat template for fresh models: what is heard ends with the begin token, what is said with the end token."""


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter on a frozen base (Hu et al. 2022, arXiv 2106.09685)."""

    r: int = 16
    """Rank of the adapter, >= 1."""
    alpha: int = 32
    """The scale of the adapter is this over the rank, >= 1."""
    target_modules: list[str] | None = None
    """Names of the modules that get an adapter; null: what peft knows for the model."""

    def __post_init__(self) -> None:
        for name, value in (("r", self.r), ("alpha", self.alpha)):
            if value < 1:
                raise ConfigError(f"{name}: got {value}, expected an integer >= 1")


def quiet() -> None:
    """Switch off the progress bars and advice of transformers: a command shows its own."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_tokenizer(
    path: str, chat_template: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or folder; `chat_template` is a Jinja text or a file that holds one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(_cannot_load("tokenizer", path, error)) from error
    return checked_tokenizer(with_chat_template(tokenizer, chat_template), path)


def with_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer with this template, a Jinja text or a file that holds one; None leaves it its own."""
    if template is not None:
        file = Path(template)
        tokenizer.chat_template = file.read_text("utf-8") if file.suffix == ".jinja" else template
    return tokenizer


def checked_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer itself, with an end and a padding token; where none is named, as in BERT, the separator ends.

    Raises `ConfigError` if it has no separator either.
    """
    if tokenizer.eos_token_id is None:
        if tokenizer.sep_token_id is None:
            raise ConfigError(
                f"model: the tokenizer of {name} has no end token; set eos_token in its tokenizer_config.json, "
                "without one no text ever ends by itself"
            )
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def device() -> torch.device:
    """Where models are: on the accelerator, if there is one."""
    found: torch.device = PartialState().device
    return found


def load_model(path: str, dtype: str = "float32", trust_remote_code: bool = False) -> PreTrainedModel:
    """A language model, classifier or reader of spans from a hub id or a folder, whichever its configuration names.

    It is put on `device()`.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        auto: Any = family(config)
        model = auto.from_pretrained(path, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(_cannot_load("language model", path, error)) from error
    moved: PreTrainedModel = model.to(device())
    return moved


def loaded_by(model: PreTrainedModel) -> tuple[str, bool]:
    """The class that loads a saved model, an Auto class if there is one; whether the model brings code of its own."""
    config: Any = copy.copy(model.config)
    config.architectures = [type(model).__name__]
    own = type(model)._auto_class is not None or bool(getattr(config, "auto_map", None))
    try:
        return family(config).__name__, own
    except ConfigError:
        return type(model).__name__, own


def q_network(
    model: nn.Module, value_head: ValueHead | None = None, q_heads: QHeads | Afterstates | None = None
) -> QNetwork:
    """The Q-function that a model is: over its tokens, its labels, or the positions of its source.

    Raises `ConfigError` if it only fills masks, or cannot do what its heads need.
    """
    check_decides(model)
    if isinstance(q_heads, Afterstates):
        check_afterstates(model)
        return LanguageQ(model, value_head, q_heads)
    return EncoderQ(model, value_head, q_heads) if is_encoder(model) else LanguageQ(model, value_head, q_heads)


def _cannot_load(what: str, path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return f"model: got {path}, expected a folder or hub id with a {what}; {reason}"


def character_tokenizer(symbols: str) -> PreTrainedTokenizerBase:
    """One token for each character of `symbols`, then an end and a padding token."""
    special = ["<end>", "<pad>"]
    vocabulary = {symbol: i for i, symbol in enumerate([*symbols, *special])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def with_adapter(model: PreTrainedModel, lora: Lora, key: str = "lora_target_modules") -> nn.Module:
    """The model frozen, with a fresh LoRA adapter on top: the only part that is trained.

    Raises `ConfigError`, which names the setting `key`, if the model has no such layers or they take no adapter.
    """
    from peft import LoraConfig, get_peft_model  # a second of import that most runs do not need

    if tied_layers(model) & set(lora.target_modules or ()):
        raise _no_adapter(model, lora, key)
    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                target_modules=list(lora.target_modules) if lora.target_modules else None,
                task_type=_peft_task(model),
                fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            ),
        )
    except ValueError as error:
        raise _no_adapter(model, lora, key) from error


def _no_adapter(model: PreTrainedModel, lora: Lora, key: str) -> ConfigError:
    got, name = ", ".join(lora.target_modules or ["null"]), type(model).__name__
    known = ", ".join(adaptable(model))
    if not known:
        return ConfigError(f"{key}: got {got} for {name}, no layer of which takes an adapter; train it without LoRA")
    return ConfigError(f"{key}: got {got}, expected layers of {name} that take an adapter; name some of {known}")


def _peft_task(model: PreTrainedModel) -> str:
    """What peft calls this kind of model; of a classifier or reader it trains the fresh head as well."""
    name = type(model).__name__
    if is_encoder(model):
        return "SEQ_CLS" if "ForSequenceClassification" in name else "QUESTION_ANS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def with_peft_config(model: PreTrainedModel, peft_config: Any) -> nn.Module:
    """The model with the adapter that a PEFT configuration object describes."""
    from peft import get_peft_model  # as above

    wrapped: nn.Module = get_peft_model(model, peft_config)
    return wrapped


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a text: the tokenizer's first, then those of the generation config."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return list(dict.fromkeys([tokenizer.eos_token_id, *more]))


def decoder_start(model: PreTrainedModel) -> int:
    """The token that a decoder begins with."""
    declared: Any = model.config.decoder_start_token_id
    start = model.generation_config.decoder_start_token_id if declared is None else declared
    if start is None:
        raise ConfigError("model: this encoder–decoder names no decoder_start_token_id; set it in its config.json")
    return int(start)


def save_network(network: QNetwork, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A plain Hugging Face checkpoint (adapters merged), and heads beside the model in files of their own."""
    save_model(network.model, tokenizer, folder)
    for name, head in ((VALUE_HEAD, network.value_head), (Q_HEADS, network.q_heads)):
        if head is not None:
            save_file(head.state_dict(), folder / name)


def save_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A plain Hugging Face checkpoint (adapters merged)."""
    merged: Any = model
    if hasattr(model, "merge_and_unload"):
        merged = copy.deepcopy(merged).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
