"""A Hugging Face causal language model as a Q-function over its own tokens."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenq.nets.action_values import Dense, Factored
from tokenq.ops.readout import Readout
from tokenq.types import Batch

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
    """Action values of a causal language model, at the decision states of a batch.

    The model is used as it is (any `AutoModelForCausalLM`, with or without PEFT adapters) and always in evaluation
    mode: dropout would add noise to values that must start at exactly zero.
    """

    def __init__(self, model: nn.Module, value_head: ValueHead | None = None) -> None:
        super().__init__()
        self.model = model.eval()
        self.value_head = value_head
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

    def forward(self, batch: Batch) -> Dense | Factored:
        """Answers to every question about the batch's decision states, from one pass over the texts."""
        valid = torch.cat([batch.decided.new_ones(len(batch.decided), 1), batch.decided], dim=1)
        return self.at_states(batch.tokens, batch.attention, batch.states, valid)

    def at_states(
        self,
        tokens: Int[Tensor, "B L"],
        attention: Int[Tensor, "B L"],
        states: Int[Tensor, "B S"],
        valid: Bool[Tensor, "B S"],
    ) -> Dense | Factored:
        """The same for bare tensors; `states` are positions in `tokens`."""
        if not self.factored:
            return self._dense(tokens, attention, states)
        trunk = self.causal.base_model
        hidden = trunk(input_ids=tokens, attention_mask=attention, use_cache=False).last_hidden_state
        hidden = _gather(hidden, states)
        return Factored(hidden, self.readout, valid, self._state_value(hidden))

    def _dense(self, tokens: Tensor, attention: Tensor, states: Tensor) -> Dense:
        asked = self.value_head is not None
        answer = self.model(
            input_ids=tokens, attention_mask=attention, use_cache=False, output_hidden_states=True if asked else None
        )
        value = self._state_value(_gather(answer.hidden_states[-1], states)) if asked else None
        return Dense(_gather(answer.logits.float(), states), value)

    def _state_value(self, hidden: Tensor) -> Tensor | None:
        return None if self.value_head is None else self.value_head(hidden)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "LanguageQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares all others with this network.

        An output matrix that is tied to the input embedding is untied in the copy if only `readout` is lagged, so that
        a shared trunk keeps reading the shared embedding.
        """
        shared = {id(p): p for name, p in self.named_parameters() if not lagged(name)}
        twin = copy.deepcopy(self, shared)
        output: Any = twin.causal.get_output_embeddings()
        if lagged("readout") and id(output.weight) in shared:
            twin.causal.set_output_embeddings(copy.deepcopy(output))
        for parameter in twin.parameters():
            if id(parameter) not in shared:
                parameter.requires_grad_(False)
        return twin


def plain(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, without a PEFT wrapper around it."""
    wrapper: Any = model
    return cast(PreTrainedModel, wrapper.get_base_model() if hasattr(wrapper, "get_base_model") else model)


def _gather(sequence: Float[Tensor, "B L D"], positions: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    return sequence.gather(1, positions.unsqueeze(-1).expand(-1, -1, sequence.shape[-1]))


@torch.no_grad()
def is_factored(model: nn.Module) -> bool:
    """Whether the model's logits are its last hidden state times its output matrix, tried out on two tokens.

    Models that cap or scale their logits are not, nor are those with an adapter on the output layer; they are answered
    from full logit tensors instead.
    """
    causal = plain(model)
    layer, trunk = causal.get_output_embeddings(), causal.base_model
    if not isinstance(layer, nn.Linear) or trunk is causal:
        return False
    tokens = torch.tensor([[0, min(1, layer.weight.shape[0] - 1)]], device=layer.weight.device)
    read = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}
    hidden = trunk(**read).last_hidden_state
    if hidden.shape[-1] != layer.weight.shape[-1]:
        return False
    readout = Readout(layer.weight, layer.bias)
    # A cap shows only in large logits, and those of a fresh model are small.
    factor = LARGE / max(float(readout.logits(hidden[0]).abs().max()), 1e-6)
    enlarge = layer.register_forward_pre_hook(lambda _, inputs: (inputs[0] * factor,))
    try:
        expected = causal(**read).logits.float()
    finally:
        enlarge.remove()
    tolerance = max(1e-4, torch.finfo(hidden.dtype).eps) * LARGE
    return torch.allclose(readout.logits(hidden[0] * factor), expected[0], atol=tolerance, rtol=0)


def trainable(network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that an optimiser may change."""
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)
