"""A Hugging Face encoder as a Q-function: one decision over labels, or two over the positions of a text.

The source is the state; what is decided are numbers. A classifier decides once, over its labels. A reader of spans, as
in extractive question answering, decides twice over the positions of its source: first where the answer starts, then,
not before that, where it ends. Both are episodes like any other, so that every objective serves them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, PreTrainedModel

from tokenq.nets.action_values import Dense
from tokenq.nets.generation import Policy, right_padded
from tokenq.nets.language import LanguageQ, ValueHead, at_states, plain, shared_copy
from tokenq.nets.q_heads import Guided, QHeads
from tokenq.nets.ragged import by_length
from tokenq.types import Batch, Texts


def is_encoder(model: nn.Module) -> bool:
    """Whether the model decides over labels or positions and writes nothing."""
    name = type(plain(model)).__name__
    return "ForSequenceClassification" in name or "ForQuestionAnswering" in name


def decision_count(model: nn.Module) -> int:
    """How often an encoder decides: once over labels, or twice over positions."""
    return 1 if "ForSequenceClassification" in type(plain(model)).__name__ else 2


def is_causal(model: PreTrainedModel) -> bool:
    """Whether positions see only what stands before them, as in a language model that was given a classifier's head."""
    config = type(model.config)
    return config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_MASKED_LM_MAPPING


class EncoderQ(nn.Module):
    """Action values of an `AutoModelForSequenceClassification` or an `AutoModelForQuestionAnswering`.

    `decisions` is 1 or 2. Always in evaluation mode: values must start at exactly zero. Q heads of a classifier have
    its labels, those of a reader a start and an end for every position; then the answers are those of the policy that
    they make together with the model.
    """

    factored = True
    """Nothing here is larger than the answers themselves."""

    def __init__(self, model: nn.Module, value_head: ValueHead | None = None, q_heads: QHeads | None = None) -> None:
        super().__init__()
        self.model = model.eval()
        self.value_head = value_head
        self.q_heads = q_heads
        self.decisions = decision_count(model)
        self.causal_body = is_causal(self.causal)

    @property
    def causal(self) -> PreTrainedModel:
        """The transformers model itself, without a PEFT wrapper around it."""
        return plain(self.model)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, batch: Batch) -> Dense | Guided:
        """Answers to every question about the batch's decision states, from one pass over the sources."""
        return self.at_states(batch.texts, batch.valid)

    def at_states(self, texts: Texts, valid: Bool[Tensor, "B S"]) -> Dense | Guided:
        """The same for the texts alone: positions count the decisions made; the state after the last one is worth 0."""
        read = self._read(texts.source, texts.source_attention)
        undecided = texts.states < self.decisions
        value = None
        if self.value_head is not None:
            value = torch.where(undecided, self.value_head(read.summary)[texts.rows], 0.0)
        model = Dense(self._values(read.logits, texts), value)
        if self.q_heads is None:
            return model
        heads = tuple(Dense(self._values(answers, texts)) for answers in read.heads)
        state = None
        if read.worth is not None:
            # A reader that has chosen where to start stands at that position.
            begin = torch.zeros_like(texts.tokens[:, :1]) if self.decisions == 1 else self._at(texts.source_attention)
            place = torch.cat([begin, texts.tokens[:, 1:]], dim=1).clamp(0, read.worth.shape[1] - 1)
            state = torch.where(undecided, read.worth.gather(1, place)[texts.rows, texts.states], 0.0)
        return Guided(model, heads, valid, self.q_heads.beta, self.q_heads.top_k, state, min_p=self.q_heads.min_p)

    def _values(self, answers: Tensor, texts: Texts) -> Float[Tensor, "B S A"]:
        return at_states(self._decisions(answers, texts.tokens, texts.source_attention), texts)

    @torch.no_grad()
    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]],
        policy: Policy,
        max_new_tokens: int,
        ends: Sequence[int],
    ) -> list[list[int]]:
        """The decisions on each source, drawn from `policy` with torch's global generator; always 1 or 2 of them."""
        source, heard = (part.to(self.device) for part in right_padded(sources))
        read = self._read(source, heard)
        tokens = torch.tensor([list(row) for row in prompts], device=self.device)
        for n in range(self.decisions):
            logits = self._decisions(read.logits, tokens, heard)[:, n]
            if self.q_heads is not None:
                heads = [self._decisions(answers, tokens, heard)[:, n] for answers in read.heads]
                logits = self.q_heads.guide(logits, heads)
            drawn = torch.multinomial(policy(logits).exp(), 1)
            tokens = torch.cat([tokens, drawn], dim=1)
        decided: list[list[int]] = tokens[:, -self.decisions :].tolist()
        return decided

    def _read(self, source: Int[Tensor, "B E"], heard: Int[Tensor, "B E"]) -> "_Reading":
        def read(source: Tensor, heard: Tensor) -> tuple[Tensor, ...]:
            answer: Any = self.model(input_ids=source, attention_mask=heard, output_hidden_states=True)
            asked = [answer.logits] if self.decisions == 1 else [answer.start_logits, answer.end_logits]
            hidden = answer.hidden_states[-1]
            summary = hidden.take_along_dim(self._at(heard).unsqueeze(-1), dim=1)
            return torch.stack(asked, dim=1).float(), summary[:, 0], *self._judged(hidden, summary)

        logits, summary, *judged = by_length(read, (source, heard))
        count = 0 if self.q_heads is None else len(self.q_heads.q)
        return _Reading(logits, summary, tuple(judged[:count]), judged[count] if len(judged) > count else None)

    def _at(self, heard: Int[Tensor, "B E"]) -> Int[Tensor, "B 1"]:
        """The position that has read all of the source: the first one, or the last where none sees what follows."""
        return heard.sum(1, keepdim=True) - 1 if self.causal_body else torch.zeros_like(heard[:, :1])

    def _judged(self, hidden: Float[Tensor, "B E D"], summary: Float[Tensor, "B 1 D"]) -> list[Tensor]:
        """What the Q heads say, in the shape of logits, and what their head for V says of the positions."""
        if self.q_heads is None:
            return []
        seen = summary if self.decisions == 1 else hidden
        answers = self.q_heads.values(seen)
        judged = answers if self.decisions == 1 else [answer.transpose(1, 2) for answer in answers]
        worth = self.q_heads.state_value(seen)
        return judged if worth is None else [*judged, worth]

    def _decisions(self, logits: Tensor, tokens: Tensor, source_attention: Tensor) -> Float[Tensor, "B L A"]:
        over = torch.zeros_like(logits[:, :1])
        if self.decisions == 1:
            return torch.cat([logits, over], dim=1)
        outside = source_attention == 0
        position = torch.arange(outside.shape[1], device=outside.device)
        before = position < tokens[:, 1:2] if tokens.shape[1] > 1 else outside
        start = logits[:, 0].masked_fill(outside, -torch.inf)
        end = logits[:, 1].masked_fill(outside | before, -torch.inf)
        return torch.stack([start, end, over[:, 0]], dim=1)

    def lagging_copy(self, lagged: Callable[[str], bool]) -> "EncoderQ":
        """A copy that owns the parameters whose names `lagged` accepts and shares all others with this network."""
        return shared_copy(self, lagged)[0]


@dataclass(frozen=True)
class _Reading:
    """What an encoder says of its sources, over labels [B, 1, A] or over starts and ends [B, 2, E].

    `logits` are the model's, `heads` its Q heads'; `summary` is the hidden state that has read everything, `worth` is V
    of the positions.
    """

    logits: Float[Tensor, "B C A"]
    summary: Float[Tensor, "B D"]
    heads: tuple[Float[Tensor, "B C A"], ...]
    worth: Float[Tensor, "B P"] | None


QNetwork = LanguageQ | EncoderQ
"""What answers questions about the actions of a Hugging Face model."""
