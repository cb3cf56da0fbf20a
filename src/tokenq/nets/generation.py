"""Text from a language model under a behaviour policy, tokens in and tokens out."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

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
    causal: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]],
    policy: Policy,
    max_new_tokens: int,
    ends: Sequence[int],
    *before: LogitsProcessor,
) -> list[list[int]]:
    """One completion for each prompt, drawn from `policy` with torch's global generator.

    A completion stops after the first token in `ends`, which it includes, or after `max_new_tokens`. Prompts of unequal
    length are padded on the left. A model with an encoder reads `sources`, padded on the right as encoders expect it,
    and its decoder the prompts, all of one length. `before` changes logits before the policy sees them. The model's own
    generation config (penalties, cuts, suppressed tokens) has no say.
    """
    longest, padding = max(len(p) for p in prompts), ends[0]
    tokens = torch.tensor([[padding] * (longest - len(p)) + list(p) for p in prompts])
    attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    read = {"input_ids": tokens, "attention_mask": attention}
    if causal.config.is_encoder_decoder:
        source, heard = right_padded(sources)
        read = {"input_ids": source, "attention_mask": heard, "decoder_input_ids": tokens}
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=padding,
        decoder_start_token_id=int(tokens[0, 0]),
    )
    writer: Any = causal
    # What is passed to `generate` is filled up from here, so passing neutral settings alone would not be enough.
    own, writer.generation_config = writer.generation_config, settings
    try:
        drawn = writer.generate(
            **{name: part.to(causal.device) for name, part in read.items()},
            logits_processor=LogitsProcessorList([*before, _Behaviour(policy)]),
        )
    finally:
        writer.generation_config = own
    return [_until_end(row[longest:].tolist(), ends) for row in drawn]


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B E"], Int[Tensor, "B E"]]:
    """The rows as one tensor, and which of its entries are real."""
    tensors = [torch.tensor(list(row), dtype=torch.int64) for row in rows]
    ones = [torch.ones_like(row) for row in tensors]
    return pad_sequence(tensors, batch_first=True), pad_sequence(ones, batch_first=True)


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    stop = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
