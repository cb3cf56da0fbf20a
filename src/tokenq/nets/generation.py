"""Text from a language model under a behaviour policy, tokens in and tokens out."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tokenq.nets.language import plain

Policy = Callable[[Float[Tensor, "B V"]], Float[Tensor, "B V"]]
"""From raw logits to the log-probabilities that tokens are drawn from."""


class _Behaviour(LogitsProcessor):
    """Lets `generate` draw from a policy of ours."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        return self.policy(scores)


@torch.no_grad()
def complete(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:
    """One completion for each prompt, drawn from `policy` with torch's global generator.

    A completion stops after the first token in `ends`, which it includes, or after `max_new_tokens`. Prompts of unequal
    length are padded on the left. The model's own generation config (penalties, cuts, suppressed tokens) has no say.
    """
    longest = max(len(p) for p in prompts)
    padding = ends[0]
    tokens = torch.tensor([[padding] * (longest - len(p)) + list(p) for p in prompts])
    attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=padding,
    )
    causal: Any = plain(model)
    # What is passed to `generate` is filled up from here, so passing neutral settings alone would not be enough.
    own, causal.generation_config = causal.generation_config, settings
    try:
        drawn = causal.generate(
            input_ids=tokens.to(causal.device),
            attention_mask=attention.to(causal.device),
            logits_processor=LogitsProcessorList([_Behaviour(policy)]),
        )
    finally:
        causal.generation_config = own
    return [_until_end(row[longest:].tolist(), ends) for row in drawn]


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    stop = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
