"""A decoder-only Transformer whose heads may read the key, or the value, of the token before (KV shifting attention).

Xu et al. 2025 (ICML, arXiv 2411.19574): "what followed this word the last time?" takes a plain Transformer two layers
to ask, a head with a shifted key only one. All else is GPT-NeoX with rotary positions.

`save_pretrained` copies this file into the checkpoint, so that it also loads where tokenq is not installed
(`trust_remote_code=True`). It therefore imports nothing but torch and transformers, and shapes stand in docstrings:
B texts, H heads, Q tokens that are read, K tokens read so far, D width of a head.
"""

from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXModel
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import (
    GPTNeoXAttention,
    GPTNeoXPreTrainedModel,
    apply_rotary_pos_emb,
    eager_attention_forward,
)


@no_type_check  # at run time: transformers makes it a dataclass whose `__init__` takes more than its fields
class ShiftingConfig(GPTNeoXConfig):
    """That of GPT-NeoX."""

    model_type = "tokenq_kv_shifting"


class ShiftingAttention(GPTNeoXAttention):
    """k'_t = (1 − α)·k_t + α·k_{t−1} and v'_t = (1 − β)·v_t + β·v_{t−1}, with α and β learned for each head.

    What is shifted is the key as it was rotated at its own place, so a cache holds what that of GPT-NeoX does.
    """

    def __init__(self, config: ShiftingConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)  # type: ignore[no-untyped-call]
        self.key_shift = nn.Parameter(torch.empty(config.num_attention_heads))
        self.value_shift = nn.Parameter(torch.empty(config.num_attention_heads))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        layer_past: Any = None,
        position_embeddings: Any = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Reads [B, Q, H·D]; the mask is what transformers made of the padding for its way to attend."""
        size = hidden_states.shape[:-1]
        joint = self.query_key_value(hidden_states).view(*size, -1, 3 * self.head_size).transpose(1, 2)
        query, key, value = joint.chunk(3, dim=-1)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)
        goes_on = None if attention_mask is None else _goes_on(attention_mask, query.shape[2])
        key, value = shift(key, self.key_shift, goes_on), shift(value, self.value_shift, goes_on)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        read, weights = attend(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout, **options
        )
        return self.dense(read.reshape(*size, -1)), weights


def shift(x: Tensor, share: Tensor, goes_on: Tensor | None) -> Tensor:
    """(1 − share)·x_t + share·x_{t−1} for x [B, H, K, D] and share [H]; 0 stands before the first token of a text.

    `goes_on` [B, K − 1] says which tokens, from the second on, belong to the text of the one before; None: all.
    """
    before = x[:, :, :-1]
    if goes_on is not None:
        before = before * goes_on[:, None, :, None]
    return torch.lerp(x, nn.functional.pad(before, (0, 0, 1, 0)), share[:, None, None].to(x.dtype))


def _goes_on(mask: Tensor, queries: int) -> Tensor:
    """Which tokens, from the second on, see the one before: not behind padding, not at the start of a packed text."""
    # With a cache there are rows for the newest tokens alone, and these see all that is no padding.
    seen = mask[:, 0].diagonal(-1, 1, 2) if mask.shape[-1] == queries else mask[:, 0, -1, :-1]
    return seen == 0 if seen.is_floating_point() else seen.bool()


class ShiftingPreTrainedModel(GPTNeoXPreTrainedModel):
    """What both models below share: how a fresh one starts, and that it attends with a mask in sight."""

    config_class = ShiftingConfig
    _supports_flash_attn = False
    _supports_flex_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Every other head, from the second on, starts with the key of the token before, and each copies what it finds.

        Query and key start as one matrix, so that a token looks for itself; that trained ones resemble each other is
        an observation of Trockman & Kolter 2023 (arXiv 2305.09828). Unlike theirs, the output starts as the transpose
        of the value: what a head finds, it writes.
        """
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        width = self.config.hidden_size
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=width**-0.5)
        if isinstance(module, ShiftingAttention):
            heads = self.config.num_attention_heads
            init.copy_(module.key_shift, torch.arange(heads, device=module.key_shift.device) % 2)
            init.zeros_(module.value_shift)
            joint = module.query_key_value.weight
            drawn = torch.randn(heads, 2, width // heads, width, device=joint.device) * width**-0.5
            init.copy_(joint, torch.stack([drawn[:, 0], drawn[:, 0], drawn[:, 1]], 1).reshape(joint.shape))
            init.copy_(module.dense.weight, drawn[:, 1].reshape(width, width).T)


class ShiftingModel(ShiftingPreTrainedModel, GPTNeoXModel):
    """The Transformer without an output matrix."""

    def __init__(self, config: ShiftingConfig) -> None:
        super().__init__(config)
        for number, layer in enumerate(self.layers):
            layer.attention = ShiftingAttention(config, number)
        self.post_init()  # type: ignore[no-untyped-call]


class ShiftingForCausalLM(ShiftingPreTrainedModel, GPTNeoXForCausalLM):
    """The Transformer with an output matrix, tied to the embeddings or its own."""

    def __init__(self, config: ShiftingConfig) -> None:
        super().__init__(config)
        self.gpt_neox = ShiftingModel(config)
        self.post_init()  # type: ignore[no-untyped-call]


ShiftingConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
ShiftingModel.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
ShiftingForCausalLM.register_for_auto_class("AutoModelForCausalLM")  # type: ignore[no-untyped-call]

# The copy inside a checkpoint answers for this checkpoint alone: registered, it would be used for all others as well.
if not __name__.startswith("transformers_modules."):
    AutoConfig.register(ShiftingConfig.model_type, ShiftingConfig, exist_ok=True)
    AutoModel.register(ShiftingConfig, ShiftingModel, exist_ok=True)
    AutoModelForCausalLM.register(ShiftingConfig, ShiftingForCausalLM, exist_ok=True)
