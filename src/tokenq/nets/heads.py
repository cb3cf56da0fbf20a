"""Heads that stand beside a language model: fresh ones, and those that were saved with it."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from tokenq.errors import CheckpointError, ConfigError
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.encoder import decision_count, is_encoder
from tokenq.nets.families import is_masked_model
from tokenq.nets.language import ValueHead, is_factored, plain
from tokenq.nets.q_heads import QHeads

VALUE_HEAD = "value_head.safetensors"
Q_HEADS = "q_heads.safetensors"


def value_head(model: nn.Module, path: str | None) -> ValueHead:
    """A value head for the model: the one saved beside it, or a fresh one that answers zero."""
    head = ValueHead(_width(model))
    saved = Path(path) / VALUE_HEAD if path else None
    if saved is not None and saved.is_file():
        head.load_state_dict(load_file(saved))
    return head


def _width(model: nn.Module) -> int:
    """The width of the last hidden states: what the output matrix reads, if there is one."""
    causal: Any = plain(model)
    output = causal.get_output_embeddings()
    return int(causal.config.hidden_size if output is None else output.weight.shape[1])


def q_heads(model: nn.Module, count: int, value: bool, beta: float, top_k: int = 0, min_p: float = 0.0) -> QHeads:
    """Fresh Q heads for the model, which answer zero; `QHeads` says what the numbers mean."""
    width = _width(model)
    if is_encoder(model):
        actions = int(plain(model).config.num_labels or 0) if decision_count(model) == 1 else 2
    else:
        output: Any = plain(model).get_output_embeddings()
        actions = output.weight.shape[0]
    return QHeads(width, actions, count, value, beta, top_k, min_p)


def check_afterstates(model: nn.Module) -> None:
    """Raise `ConfigError` for a model whose text cannot be judged token by token."""
    if is_encoder(model) or is_masked_model(plain(model)):
        raise ConfigError("values: got afterstates for a model that writes no text; use heads")
    if not is_factored(model):
        raise ConfigError(
            "values: got afterstates for a model whose logits are not its hidden states times its output matrix (they "
            "are capped, or the output layer has an adapter); use heads"
        )


def afterstates(model: nn.Module, ahead: int, beta: float, top_k: int, min_p: float = 0.0) -> Afterstates:
    """A fresh head for afterstates of the model, which answers zero; `Afterstates` says what the numbers mean."""
    return Afterstates(_width(model), ahead, beta, top_k, min_p)


def load_q_heads(folder: str | Path, beta: float, top_k: int = 0, min_p: float = 0.0) -> QHeads | Afterstates:
    """The Q heads, or the head for afterstates, that were saved beside a model, to write with as the numbers say.

    Raises `CheckpointError` if there are none.
    """
    path = Path(folder) / Q_HEADS
    if not path.is_file():
        raise CheckpointError(f"got {folder}, expected the model folder of a run with Q heads, with {Q_HEADS} in it")
    tensors = load_file(path)
    heads: QHeads | Afterstates
    if "worth.outer.weight" in tensors:
        (width,) = tensors["worth.norm.weight"].shape
        ahead = sum(name.startswith("ahead.") and name.endswith("bias") for name in tensors)
        heads = Afterstates(width, ahead, beta, top_k, min_p)
    else:
        vocabulary, _ = tensors["q.first.outer.weight"].shape
        (width,) = tensors["q.first.norm.weight"].shape
        count = sum(name.endswith("outer.weight") and name.startswith("q.") for name in tensors)
        heads = QHeads(width, vocabulary, count, "value.outer.weight" in tensors, beta, top_k, min_p)
    heads.load_state_dict(tensors)
    return heads
