"""RNN, LSTM and GRU language models as Hugging Face models.

`save_pretrained` copies this file into the checkpoint, so that it also loads where tokenq is not installed
(`trust_remote_code=True`). It therefore imports nothing but torch and transformers, and shapes stand in docstrings:
B texts, L tokens, V vocabulary, E embedding size, H hidden size, D the width that the output matrix reads, N layers,
P tensors in a layer's state (2 for an LSTM, hidden and cell state in this order; 1 otherwise).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack, no_type_check

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

CELLS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
"""Elman 1990 (with tanh); Hochreiter & Schmidhuber 1997 with forget gates; Cho et al. 2014, as torch has them."""


@no_type_check  # at run time: transformers makes it a dataclass whose `__init__` takes more than its fields
class RecurrentConfig(PreTrainedConfig):
    """The size of a recurrent language model; settings out of range are a `ValueError`."""

    model_type = "tokenq_recurrent"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["state"]

    vocab_size: int = 256
    """Number of tokens, >= 1."""
    cell: str = "lstm"
    """Kind of layer: rnn (with tanh), lstm or gru."""
    num_hidden_layers: int = 2
    """Number of layers, >= 1."""
    hidden_size: int = 256
    """Width of a layer, >= 1."""
    embedding_size: int | None = None
    """Width of the token embeddings, >= 1; None: the hidden size."""
    dropout: float = 0.0
    """Probability with which an entry of the embeddings and of each layer's output is dropped, in [0, 1)."""
    tie_word_embeddings: bool = True
    """Whether the embeddings are also the output matrix; hidden states of another width are projected to theirs."""
    initializer_range: float = 0.1
    """Standard deviation of fresh embeddings, output matrices and projections, > 0."""
    use_cache: bool = True
    """Whether a pass in evaluation mode returns the state."""
    bos_token_id: int | None = None
    """Token that begins a text."""
    eos_token_id: int | list[int] | None = None
    """Token, or tokens, that end a text."""
    pad_token_id: int | None = None
    """Token that fills up a batch; only the attention mask decides what is padding."""

    def __post_init__(self, **kwargs: Any) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"cell: got {self.cell!r}, expected one of {', '.join(CELLS)}")
        for name in ("vocab_size", "num_hidden_layers", "hidden_size", "embedding_size"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name}: got {size}, expected an integer >= 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected a probability in [0, 1)")
        if not 0 < self.initializer_range < float("inf"):
            raise ValueError(f"initializer_range: got {self.initializer_range}, expected a finite number > 0")
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]


@dataclass
class RecurrentOutput(ModelOutput):
    """What the models return: `RecurrentModel` no loss and logits, `RecurrentForCausalLM` no `last_hidden_state`.

    The loss is a scalar in nats, the logits are [B, L, V], the last hidden state is [B, L, D]. If they are asked for:
    the state [B, N, P, H] after the last real token of each text, and as hidden states the embeddings and the outputs
    of the layers, after dropout; the last of them is what the output matrix reads. They are zero at padding.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class Options(TypedDict, total=False):
    """What transformers and PEFT pass to every model; None leaves it to the configuration."""

    output_hidden_states: bool | None
    output_attentions: bool | None
    return_dict: bool | None
    num_items_in_batch: Tensor | int | None


class RecurrentPreTrainedModel(PreTrainedModel):
    """What both models below share; transformers asks for it as a class."""

    config_class = RecurrentConfig
    config: RecurrentConfig
    base_model_prefix = "recurrent"
    _input_embed_layer = "embeddings"
    supports_gradient_checkpointing = False
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Gate by gate: Glorot & Bengio 2010 for inputs, Saxe et al. 2014 for states; biases are zero.

        A plain RNN's state matrix is the identity (Le et al. 2015, section 2): an orthogonal one turns a word into
        something else at every step. An LSTM's forget gates have a bias of 1 (Jozefowicz et al. 2015, section 2.3).
        """
        if not isinstance(module, nn.RNNBase):
            super()._init_weights(module)  # type: ignore[no-untyped-call]
            return
        for name, parameter in module.named_parameters():
            if getattr(parameter, "_is_hf_initialized", False):
                continue  # it was loaded, which its slices would not show
            for i, gate in enumerate(parameter.split(module.hidden_size)):
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(gate)
                elif name.startswith("weight_hh"):
                    (init.eye_ if isinstance(module, nn.RNN) else init.orthogonal_)(gate)
                else:
                    forget = isinstance(module, nn.LSTM) and name.startswith("bias_ih") and i == 1
                    init.constant_(gate, 1.0 if forget else 0.0)


class RecurrentModel(RecurrentPreTrainedModel):
    """Token embeddings and recurrent layers, each a module of its own: it has a number and its output can be shown."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        width, layer = config.hidden_size, CELLS[config.cell]
        embedding = width if config.embedding_size is None else config.embedding_size
        sizes = [embedding] + [width] * (config.num_hidden_layers - 1)
        self.embeddings = nn.Embedding(config.vocab_size, embedding)
        self.layers = nn.ModuleList(layer(size, width, batch_first=True) for size in sizes)
        self.width = embedding if config.tie_word_embeddings else width
        self.projection = None if self.width == width else nn.Linear(width, self.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> Any:
        """Switches dropout; the layers stay in training mode, for cuDNN has no gradients in the other."""
        super().train(mode)
        self.layers.train()  # which changes no value: dropout is a module of its own
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        state: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Unpack[Options],
    ) -> RecurrentOutput | tuple[Any, ...]:
        """Reads tokens [B, L], or embeddings [B, L, E], from `state` [B, N, P, H] on (zero if None).

        `attention_mask` [B, L] is 0 at padding, wherever it stands: padding is skipped, it changes no state. Beside a
        `state` the mask may be longer; its last L columns are those of these tokens. `use_cache` asks for the state.

        Raises:
            ValueError: no token, a text of nothing but padding, shapes that do not fit, or a request for attentions.
        """
        _check(options)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids, inputs_embeds: got both or neither, expected one of them")
        x = self.dropout(self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds)
        if x.ndim != 3 or 0 in x.shape:
            raise ValueError(f"input_ids: got the shape {tuple(x.shape[:-1])}, expected at least one text and token")
        self._check_state(state, len(x))
        real = None if attention_mask is None else _real(attention_mask, x, state)
        use_cache = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        # Without packing, an LSTM's cell is known after the last column only. Packing doubles or triples the time.
        lengths = real.sum(1).cpu() if real is not None and use_cache else None
        # The real tokens of each text move to its front, where no padding comes before them.
        order = None if real is None else (~real).to(torch.uint8).argsort(dim=1, stable=True)
        x = x if order is None else _rows(x, order)
        hidden, states = [x], []
        for i, layer in enumerate(self.layers):
            x, after = _read(layer, x, None if state is None else state[:, i], lengths)
            x = self.dropout(x)
            hidden.append(x)
            states.append(after)
        hidden[-1] = x if self.projection is None else self.projection(x)
        shown = hidden if _wanted("output_hidden_states", options, self.config) else hidden[-1:]
        if real is not None and order is not None:
            shown = [_rows(h, order.argsort(1)).masked_fill(~real.unsqueeze(-1), 0) for h in shown]
        final = torch.stack(states, 1) if use_cache else None
        output = RecurrentOutput(None, None, shown[-1], final, tuple(shown) if len(shown) > 1 else None)
        return output if _wanted("return_dict", options, self.config) else output.to_tuple()

    def _check_state(self, state: Tensor | None, texts: int) -> None:
        expected = (texts, len(self.layers), 2 if self.config.cell == "lstm" else 1, self.config.hidden_size)
        if state is not None and state.shape != expected:
            raise ValueError(f"state: got the shape {tuple(state.shape)}, expected {expected}")


class RecurrentForCausalLM(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent model with an output matrix, tied to the embeddings or its own."""

    _tied_weights_keys = {"lm_head.weight": "recurrent.embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.lm_head = nn.Linear(self.recurrent.width, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        state: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Unpack[Options],
    ) -> RecurrentOutput | tuple[Any, ...]:
        """Logits of the next token at every position, from arguments as `RecurrentModel` takes them.

        `labels` [B, L] are the tokens themselves, shifted by the loss; -100 is left out. `logits_to_keep` is a number
        of last positions (0: all) or the positions [K]. `num_items_in_batch` divides the summed loss, in nats, instead
        of the number of labels.
        """
        inner: Any = options | {"return_dict": True, "attention_mask": attention_mask}  # where hooks look for it
        read = self.recurrent(input_ids, state=state, inputs_embeds=inputs_embeds, use_cache=use_cache, **inner)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(read.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, options.get("num_items_in_batch"))
        output = RecurrentOutput(loss, logits, None, read.state, read.hidden_states)
        return output if _wanted("return_dict", options, self.config) else output.to_tuple()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # `generate` carries what an output calls `state` from step to step; a cache of keys and values has no use.
        return False

    def _reorder_cache(self, state: Tensor, beam_idx: Tensor) -> Tensor:
        return state.index_select(0, beam_idx)


def _real(mask: Tensor, x: Tensor, state: Tensor | None) -> Tensor | None:
    """Which tokens of x [B, L, E] are real, [B, L]; None if all are."""
    texts, length = x.shape[:2]
    fits = mask.ndim == 2 and len(mask) == texts and mask.shape[1] >= length
    if not fits or (state is None and mask.shape[1] != length):
        raise ValueError(f"attention_mask: got the shape {tuple(mask.shape)}, expected {(texts, length)}")
    real = mask[:, -length:].bool()
    if bool(real.all()):
        return None
    empty = (~real.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"attention_mask: got nothing but padding in row(s) {empty}, expected a token in every row")
    return real


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _read(layer: nn.Module, x: Tensor, state: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """A layer's outputs [B, L, H] and its state [B, P, H] after `lengths` [B] tokens (None: all L) of x [B, L, ·]."""
    start: Any = None
    if state is not None:
        parts = tuple(state.transpose(0, 1).contiguous().split(1))
        start = parts if isinstance(layer, nn.LSTM) else parts[0]
    if lengths is None:
        y, after = layer(x, start)
    else:
        packed, after = layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), start)
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return y, torch.cat(after if isinstance(layer, nn.LSTM) else (after,)).transpose(0, 1)


def _wanted(name: str, options: Options, config: RecurrentConfig) -> bool:
    given = options.get(name)
    return bool(getattr(config, name) if given is None else given)


def _check(options: Options) -> None:
    unknown = set(options) - Options.__optional_keys__
    if unknown:
        raise TypeError(f"forward() got {', '.join(sorted(unknown))}, which a recurrent model does not know")
    if options.get("output_attentions"):
        raise ValueError("output_attentions: got True, but a recurrent model has no attention weights; leave it out")


RecurrentConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
RecurrentModel.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
RecurrentForCausalLM.register_for_auto_class("AutoModelForCausalLM")  # type: ignore[no-untyped-call]

# The copy inside a checkpoint answers for this checkpoint alone: registered, it would be used for all others as well.
if not __name__.startswith("transformers_modules."):
    AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
    AutoModel.register(RecurrentConfig, RecurrentModel, exist_ok=True)
    AutoModelForCausalLM.register(RecurrentConfig, RecurrentForCausalLM, exist_ok=True)
