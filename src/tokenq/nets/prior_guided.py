"""Prior-guided text from transformers' own `generate`: the model proposes, heads decide."""

import copy
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, LogitsProcessor, PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.nets.afterstates import Afterstates
from tokenq.nets.q_heads import QHeads


class PriorGuided(LogitsProcessor):
    """Lets `generate` draw from π ∝ π_β·exp(β·min Q), with β and the cut to the `top_k` as `heads` have them.

    Q heads read the last hidden state that `generate` computes anyway, by a hook on the model that is there inside the
    `with` block alone. With `Afterstates` each of the `top_k` tokens is tried: one token more on a copy of the
    cache, or, where `generate` carries none of transformers' own, the whole text once more.

        with PriorGuided(model, heads) as guide:
            model.generate(**prompts, logits_processor=[guide], do_sample=True)

    It works with the key–value cache, with prompts padded on the left, and with an encoder. Raises `ConfigError` if it
    is called outside the block, or for another model's logits.
    """

    def __init__(self, model: PreTrainedModel, heads: QHeads | Afterstates) -> None:
        self.model = model
        self.heads = heads.to(model.device)
        self._last: Tensor | None = None
        self._asked: dict[str, Any] = {}
        self._hook: Any = None

    def __enter__(self) -> "PriorGuided":
        self._hook = self.model.get_decoder().register_forward_hook(self._remember, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self._last, self._asked = None, {}

    def _remember(self, module: nn.Module, inputs: Any, asked: dict[str, Any], output: Any) -> None:
        self._last, self._asked = output[0][:, -1], asked

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Log-probabilities of the next token, from the model's logits."""
        if self._last is None or len(self._last) != len(scores):
            raise ConfigError(
                "logits_processor: got PriorGuided where its model did not run; use it inside its `with` block, in "
                "`generate` of the model that it was made with"
            )
        return self.heads.guided(scores, self._last, lambda tokens: self._peek(input_ids, tokens))

    def _peek(self, written: Int[Tensor, "B L"], tokens: Int[Tensor, "B k"]) -> Float[Tensor, "B k D"]:
        """The hidden state at each of these tokens, read as the model was asked to read the text before."""
        last, asked = self._last, self._asked
        k = tokens.shape[1]

        def tried(whole: Tensor) -> Tensor:
            return whole.repeat_interleave(k, dim=0)

        heard = asked.get("attention_mask")
        heard = torch.ones_like(written) if heard is None else heard
        if heard.ndim != 2:
            raise ConfigError("cache_implementation: got a static cache, expected one that grows; leave it out")
        heard = tried(torch.cat([heard, torch.ones_like(heard[:, :1])], dim=1))
        text = torch.cat([tried(written), tokens.reshape(-1, 1)], dim=1)
        read: dict[str, Any] = {"attention_mask": heard, "use_cache": False}
        kept = next((name for name in ("past_key_values", "cache_params") if isinstance(asked.get(name), Cache)), None)
        if kept is not None:
            text, cache = text[:, -1:], copy.deepcopy(asked[kept])  # `generate` goes on with its own
            cache.reorder_cache(tried(torch.arange(len(written), device=written.device)))
            read |= {kept: cache, "use_cache": True}
        read["input_ids"] = text
        if asked.get("position_ids") is not None:  # padded on the left, a text does not begin at place 0
            read["position_ids"] = (heard.cumsum(1) - 1).clamp(min=0)[:, -text.shape[1] :]
        for name in ("encoder_hidden_states", "encoder_attention_mask"):
            if asked.get(name) is not None:
                read[name] = tried(asked[name])
        hidden: Tensor = self.model.get_decoder()(**read)[0]
        # The hook took what was tried for the text itself.
        self._last, self._asked = last, asked
        return hidden[:, -1].view(-1, k, hidden.shape[-1])
