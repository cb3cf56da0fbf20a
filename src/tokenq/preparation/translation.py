"""Translation by a model: greedy, and only what it said to the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokenq.errors import ConfigError, DataError
from tokenq.nets.generation import right_padded
from tokenq.replay.codecs import Codec, Prompt

LONGEST = 256
"""Tokens of a translation, at most, where nothing else is asked for."""


@dataclass(frozen=True)
class Request:
    """How a model is asked to translate: `args` of a back-translation.

    `prefix` stands before every text, such as T5's "translate English to German: ". A translation has fewer than
    `max_new_tokens` tokens, >= 2; None: as few as the model was trained for, or 256.
    """

    prefix: str = ""
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> "Request":
        """The request that a configuration writes; raises `ConfigError` for anything else."""
        prefix, longest = args.get("prefix", ""), args.get("max_new_tokens")
        fits = isinstance(prefix, str) and (longest is None or (type(longest) is int and longest >= 2))
        if not fits or args.keys() - {"prefix", "max_new_tokens"}:
            raise ConfigError(f"got args {dict(args)}, expected prefix (a text) and max_new_tokens (an integer >= 2)")
        return cls(prefix, longest)


@dataclass(frozen=True, eq=False)
class ModelTranslator:
    """Greedy translation by an encoder–decoder, which keeps its own settings for forced and forbidden tokens.

    `context` is the longest text that it reads and writes, in tokens (None: unlimited), `ends` are the tokens that end
    a translation. A text beyond the context comes back empty, and so does one whose translation did not end in time:
    half a text is no copy.
    """

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    context: int | None
    request: Request

    def __call__(self, texts: list[str]) -> list[str]:
        """One translation for each text."""
        sources = [list(self.tokenizer(self.request.prefix + text, verbose=False)["input_ids"]) for text in texts]
        longest = max(map(len, sources)) if self.context is None else self.context
        read = [i for i, text in enumerate(texts) if text.strip() and len(sources[i]) <= longest]
        found = [""] * len(texts)
        if read:
            for i, translation in zip(read, self._translations([sources[i] for i in read]), strict=True):
                found[i] = translation
        return found

    @torch.inference_mode()
    def _translations(self, sources: list[list[int]]) -> list[str]:
        tokens, attention = (part.to(self.model.device) for part in right_padded(sources))
        asked = self.request.max_new_tokens or LONGEST
        limit = asked if self.context is None else min(asked, self.context)
        written = self.model.generate(
            input_ids=tokens, attention_mask=attention, do_sample=False, num_beams=1, max_new_tokens=limit
        )
        # Some models are forced to end at the limit, so an end there says nothing; the first token is the decoder's.
        return [
            self.tokenizer.decode(row[1:], skip_special_tokens=True).strip() if self.ends & set(row[1:limit]) else ""
            for row in written.tolist()
        ]


@dataclass(frozen=True, eq=False)
class RunTranslator:
    """Translation by the model of a finished run, as it was trained to write.

    `prompt` raises `DataError` for a text that is too long for the model; that text comes back empty, and so does one
    whose translation did not end in time.
    """

    prompt: Callable[[str], Prompt]
    complete: Callable[[Sequence[Prompt]], list[list[int]]]
    codec: Codec

    def __call__(self, texts: list[str]) -> list[str]:
        """One translation for each text."""
        prompts = {i: prompt for i, text in enumerate(texts) if (prompt := self._prompt(text)) is not None}
        found = [""] * len(texts)
        decided = self.complete(list(prompts.values())) if prompts else []
        for (i, prompt), tokens in zip(prompts.items(), decided, strict=True):
            found[i] = self.codec.text(prompt, tokens).strip() if self.codec.ended(tokens) else ""
        return found

    def _prompt(self, text: str) -> Prompt | None:
        try:
            return self.prompt(text) if text.strip() else None
        except DataError:
            return None
