"""A Hugging Face language model, decoder-only or encoder–decoder, as a Q-function over its own tokens."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenq.nets.action_values import Dense, Factored
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.generation import Policy, complete
from tokenq.nets.prior_guided import PriorGuided
from tokenq.nets.q_heads import Guided, QHeads, Reading
from tokenq.nets.ragged import by_length
from tokenq.ops.readout import Readout
from tokenq.types import Batch, Texts

Answers = Dense | Factored | Guided
"""What a network answers about the actions of texts."""

Network = TypeVar("Network", bound=nn.Module)

LARGE = 100.0
"""The size of logits at which a cap on them shows."""


class ValueHead(nn.Module):
    """State values from detached hidden states: one hidden layer, and zero everywhere at the start.

    Its gradient never enters the language model, so it can have a learning rate and a clip of its own.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
        """The value of each state."""
        activated = nn.functional.gelu(self.inner(self.norm(hidden.detach().float())))
        value: Tensor = self.outer(activated).squeeze(-1)
        return value


class LanguageQ(nn.Module):
    """Action values of a language model, at the decision states of a batch.

    The model is used as it is (any `AutoModelForCausalLM` or `AutoModelForSeq2SeqLM`, with or without PEFT adapters)
    and always in evaluation mode: dropout would add noise to values that must start at exactly zero. With an encoder,
    the source is what the state begins with, and the decoder's tokens are read and decided as those of any text.
    With Q heads or afterstates the answers are those of the policy that they make together with the model, and text is
    written by it.
    """

    def __init__(
        self, model: nn.Module, value_head: ValueHead | None = None, q_heads: QHeads | Afterstates | None = None
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.value_head = value_head
        self.q_heads = q_heads
        self.factored = is_factored(model)

    @property
    def causal(self) -> PreTrainedModel:
        """The transformers model itself, without a PEFT wrapper around it."""
        return plain(self.model)

    @property
    def readout(self) -> Readout:
        """The output matrix, shared with the model."""
        layer: Any = self.causal.get_output_embeddings()
        return Readout(layer.weight, getattr(layer, "bias", None))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, batch: Batch) -> Answers:
        """Answers to every question about the batch's decision states, from one pass over the texts."""
        return self.at_states(batch.texts, batch.valid)

    def at_states(self, texts: Texts, valid: Bool[Tensor, "B S"]) -> Answers:
        """The same for the texts alone."""
        if not self.factored:
            return self._dense(texts, valid)
        reading = Reading(self._hidden_of(texts), texts, self.hidden, context_length(self.model))
        states = reading.states
        model = Factored(states, self.readout, valid, self._state_value(states))
        return model if self.q_heads is None else self.q_heads.answers(model, reading, valid)

    def hidden_states(self, texts: Texts) -> Float[Tensor, "B S D"]:
        """The last hidden state at every decision state, of a model that is factored."""
        return at_states(self._hidden_of(texts), texts)

    def _hidden_of(self, texts: Texts) -> Float[Tensor, "R L D"]:
        return self.hidden(texts.tokens, texts.attention, texts.source, texts.source_attention)

    def hidden(self, tokens: Tensor, attention: Tensor, source: Tensor, source_attention: Tensor) -> Tensor:
        """The last hidden state at every token, [B, L, D], of a model that is factored."""

        def read(*texts: Tensor) -> tuple[Tensor, ...]:
            return (trunk(self.causal, inputs(self.causal, *texts)),)

        return by_length(read, (tokens, attention), (source, source_attention))[0]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        policy: Policy,
        max_new_tokens: int,
        ends: Sequence[int],
    ) -> list[list[int]]:
        """One completion for each prompt (`generation.complete`)."""
        if self.q_heads is None:
            return complete(self.causal, prompts, sources, policy, max_new_tokens, ends)
        with PriorGuided(self.causal, self.q_heads) as guide:
            return complete(self.causal, prompts, sources, policy, max_new_tokens, ends, guide)

    def _dense(self, texts: Texts, valid: Tensor) -> Dense | Guided:
        asked = self.value_head is not None or self.q_heads is not None
        read = inputs(self.causal, texts.tokens, texts.attention, texts.source, texts.source_attention)
        answer = self.model(**read, use_cache=False, output_hidden_states=True if asked else None)
        layers = answer.decoder_hidden_states if self.causal.config.is_encoder_decoder else answer.get("hidden_states")
        logits = at_states(answer.logits.float(), texts)
        if not asked:
            return Dense(logits)
        reading = Reading(layers[-1], texts, self.hidden, context_length(self.model))
        model = Dense(logits, self._state_value(reading.states))
        return model if self.q_heads is None else self.q_heads.answers(model, reading, valid)

    def _state_value(self, hidden: Tensor) -> Tensor | None:
        return None if self.value_head is None else self.value_head(hidden)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "LanguageQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares all others with this network.

        An output matrix that is tied to the input embedding is untied in the copy if only `readout` is lagged, so that
        a shared trunk keeps reading the shared embedding.
        """
        twin, shared = shared_copy(self, lagged)
        output: Any = twin.causal.get_output_embeddings()
        if lagged("readout") and id(output.weight) in shared:
            twin.causal.set_output_embeddings(copy.deepcopy(output).requires_grad_(False))
        return twin


def plain(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, without a PEFT wrapper around it."""
    wrapper: Any = model
    return cast(PreTrainedModel, wrapper.get_base_model() if hasattr(wrapper, "get_base_model") else model)


def context_length(model: nn.Module) -> int | None:
    """The longest text the model can read, in tokens; None if its configuration does not say."""
    causal: Any = plain(model)
    longest: int | None = getattr(causal.config, "max_position_embeddings", None)
    if longest is None:
        return None
    # RoBERTa and its kin count positions from the one after that of padding.
    usable = [
        table.num_embeddings - table.padding_idx - 1
        for name, table in causal.named_modules()
        if "position" in name and isinstance(table, nn.Embedding) and table.padding_idx is not None
    ]
    return min(longest, *usable) if usable else longest


def shared_copy(network: Network, lagged: Callable[[str], bool]) -> tuple[Network, set[int]]:
    """A copy that owns the parameters whose names `lagged` accepts, and the identities of those that it shares."""
    shared = {id(p): p for name, p in network.named_parameters() if not lagged(name)}
    identities = set(shared)
    twin = copy.deepcopy(network, shared)  # which takes `shared` for what it has copied already
    for parameter in twin.parameters():
        if id(parameter) not in identities:
            parameter.requires_grad_(False)
    return twin, identities


def inputs(
    causal: PreTrainedModel, tokens: Tensor, attention: Tensor, source: Tensor, source_attention: Tensor
) -> dict[str, Tensor]:
    """What a transformers model is called with: with an encoder, it reads the source and its decoder the tokens."""
    if not causal.config.is_encoder_decoder:
        return {"input_ids": tokens, "attention_mask": attention}
    decoder = {"decoder_input_ids": tokens, "decoder_attention_mask": attention}
    return {"input_ids": source, "attention_mask": source_attention} | decoder


def trunk(causal: PreTrainedModel, read: dict[str, Tensor]) -> Float[Tensor, "B L D"]:
    """The last hidden state at every token of a text, before the output matrix."""
    if not causal.config.is_encoder_decoder:
        body: Any = causal.base_model
        hidden: Tensor = body(**read, use_cache=False).last_hidden_state
        return hidden
    encoder, decoder = causal.get_encoder(), causal.get_decoder()
    encoded = encoder(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state
    decoded: Tensor = decoder(
        input_ids=read["decoder_input_ids"],
        attention_mask=read["decoder_attention_mask"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=read["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    return decoded


def at_states(sequence: Float[Tensor, "R L D"], texts: Texts) -> Float[Tensor, "B S D"]:
    """What stands in a sequence of each text at the decision states."""
    return sequence[texts.rows, texts.states]


@torch.no_grad()
def is_factored(model: nn.Module) -> bool:
    """Whether the model's logits are its last hidden state times its output matrix, tried out on two tokens.

    Models that cap or scale their logits are not, nor are those with an adapter on the output layer; they are answered
    from full logit tensors instead.
    """
    causal = plain(model)
    layer = causal.get_output_embeddings()
    if not isinstance(layer, nn.Linear) or (causal.base_model is causal and not causal.config.is_encoder_decoder):
        return False
    tokens = torch.tensor([[0, min(1, layer.weight.shape[0] - 1)]], device=layer.weight.device)
    read = inputs(causal, tokens, torch.ones_like(tokens), tokens, torch.ones_like(tokens))
    hidden = trunk(causal, read)
    if hidden.shape[-1] != layer.weight.shape[-1]:
        return False
    readout = Readout(layer.weight, layer.bias)
    # A cap shows only in large logits, and those of a fresh model are small.
    factor = LARGE / max(float(readout.logits(hidden[0]).abs().max()), 1e-6)
    enlarge = layer.register_forward_pre_hook(lambda _, inputs: (inputs[0] * factor,))
    try:
        expected = causal(**read, use_cache=False).logits.float()
    finally:
        enlarge.remove()
    tolerance = max(1e-4, torch.finfo(hidden.dtype).eps) * LARGE
    return torch.allclose(readout.logits(hidden[0] * factor), expected[0], atol=tolerance, rtol=0)


def trainable(network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that an optimiser may change."""
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)
