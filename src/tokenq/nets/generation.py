"""Text from a language model under a behaviour policy, tokens in and tokens out."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import LogitsProcessor, LogitsProcessorList

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
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:
    """One completion for each prompt, drawn from `policy` with torch's global generator.

    A completion stops after the first token in `ends`, which it includes, or after `max_new_tokens`. Prompts of unequal
    length are padded on the left.
    """
    longest = max(len(p) for p in prompts)
    padding = ends[0]
    tokens = torch.tensor([[padding] * (longest - len(p)) + list(p) for p in prompts])
    attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    device = next(model.parameters()).device
    drawn = model.generate(
        input_ids=tokens.to(device),
        attention_mask=attention.to(device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=padding,
        logits_processor=LogitsProcessorList([_Behaviour(policy)]),
    )
    return [_until_end(row[longest:].tolist(), ends) for row in drawn]


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    stop = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
