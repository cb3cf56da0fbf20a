"""A Hugging Face causal language model as a Q-function over its own tokens."""

import copy
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenq.nets.action_values import Dense, Factored
from tokenq.ops.readout import Readout
from tokenq.types import Batch


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
        return self.outer(activated).squeeze(-1)


class LanguageQ(nn.Module):
    """Action values of a causal language model, at the decision states of a batch.

    The model is used as it is (any `AutoModelForCausalLM`, with or without PEFT adapters) and always in evaluation
    mode: dropout would add noise to values that must start at exactly zero.
    """

    def __init__(self, model: PreTrainedModel, value_head: ValueHead | None = None) -> None:
        super().__init__()
        self.model = model.eval()
        self.value_head = value_head
        self.factored = is_factored(model)

    @property
    def causal(self) -> PreTrainedModel:
        """The transformers model itself, without a PEFT wrapper around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def readout(self) -> Readout:
        """The output matrix, shared with the model."""
        layer = self.causal.get_output_embeddings()
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
            logits = self.model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
            return Dense(_gather(logits.float(), states), None)
        trunk = self.causal.base_model
        hidden = trunk(input_ids=tokens, attention_mask=attention, use_cache=False).last_hidden_state
        hidden = _gather(hidden, states)
        value = None if self.value_head is None else self.value_head(hidden)
        return Factored(hidden, self.readout, valid, value)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "LanguageQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares all others with this network.

        An output matrix that is tied to the input embedding is untied in the copy if only `readout` is lagged, so that
        a shared trunk keeps reading the shared embedding.
        """
        shared = {id(p): p for name, p in self.named_parameters() if not lagged(name)}
        twin = copy.deepcopy(self, shared)
        output = twin.causal.get_output_embeddings()
        if lagged("readout") and id(output.weight) in shared:
            own = copy.deepcopy(output)
            twin.causal.lm_head = own
            if twin.causal.get_output_embeddings() is not own:
                twin.causal.set_output_embeddings(own)
        return twin.requires_grad_(False) if not shared else _freeze(twin, shared)


def _freeze(twin: LanguageQ, shared: dict[int, nn.Parameter]) -> LanguageQ:
    for parameter in twin.parameters():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
    return twin


def _gather(sequence: Float[Tensor, "B L D"], positions: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    return sequence.gather(1, positions.unsqueeze(-1).expand(-1, -1, sequence.shape[-1]))


@torch.no_grad()
def is_factored(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its last hidden state times its output matrix, tried out on two tokens.

    Models that cap or scale their logits are not; they are answered from full logit tensors instead.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = causal.get_output_embeddings()
    if layer is None or not isinstance(getattr(layer, "weight", None), Tensor):
        return False
    device = next(causal.parameters()).device
    tokens = torch.tensor([[0, min(1, layer.weight.shape[0] - 1)]], device=device)
    hidden = causal.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    if hidden.shape[-1] != layer.weight.shape[-1]:
        return False
    expected = causal(input_ids=tokens, use_cache=False).logits.float()
    product = Readout(layer.weight, getattr(layer, "bias", None)).logits(hidden[0])
    return torch.allclose(product, expected[0], atol=1e-4, rtol=1e-4)


def trainable(network: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The named parameters that an optimiser may change."""
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)
