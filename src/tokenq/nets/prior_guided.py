"""Prior-guided text from transformers' own `generate`: the model proposes, its Q heads decide."""

from types import TracebackType
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LogitsProcessor, PreTrainedModel

from tokenq.errors import ConfigError
from tokenq.nets.q_heads import QHeads


class PriorGuided(LogitsProcessor):
    """Lets `generate` draw from π ∝ π_β·exp(β·min Q), with β and the cut to the `top_k` as `heads` have them.

    The heads read the last hidden state that `generate` computes anyway, by a hook on the model that is there inside
    the `with` block alone:

        with PriorGuided(model, heads) as guide:
            model.generate(**prompts, logits_processor=[guide], do_sample=True)

    It works with the key–value cache, with prompts padded on the left, and with an encoder. Raises `ConfigError` if it
    is called outside the block, or for another model's logits.
    """

    def __init__(self, model: PreTrainedModel, heads: QHeads) -> None:
        self.model = model
        self.heads = heads.to(model.device)
        self._last: Tensor | None = None
        self._hook: Any = None

    def __enter__(self) -> "PriorGuided":
        self._hook = self.model.get_decoder().register_forward_hook(self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self._last = None

    def _remember(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._last = output[0][:, -1]

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Log-probabilities of the next token, from the model's logits."""
        if self._last is None or len(self._last) != len(scores):
            raise ConfigError(
                "logits_processor: got PriorGuided where its model did not run; use it inside its `with` block, in "
                "`generate` of the model that it was made with"
            )
        return self.heads.guided(scores, self._last)
