"""Fluency as a reward: how probable an n-gram model finds a completion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tokenq.acting.rewards import Prompt
from tokenq.errors import ConfigError, RewardError
from tokenq.nets.ngram import HEADER, TENSORS, NGram

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Fluency:
    """The mean log-probability per token of each completion given its prompt, in nats, below 0.

    A text prompt and its completion are tokenised as one text by the n-gram model's own tokenizer; the completion's
    tokens are those from the first on that differs from the prompt's own, so a word that straddles the two counts. In a
    conversation every message of the completion is a text of its own, read from its beginning: what another speaker
    said is not the first half of the sentence. That a text ends is not scored. A completion without tokens gets None.

    Args:
        path: A folder with `ngram.safetensors` and `ngram.json` as `NGram.save` writes them, and the `tokenizer.json`
            whose ids the model was estimated on. Its files are read when the first completion is scored.

    Raises:
        ConfigError: A file is missing or damaged, or the tokenizer has more tokens than the model.
    """

    path: str
    """Folder of a saved n-gram model with its tokenizer.json."""

    def __post_init__(self) -> None:
        if missing := [name for name in (HEADER, TENSORS, TOKENIZER) if not (Path(self.path) / name).is_file()]:
            raise ConfigError(f"path: got {self.path}, expected a folder with an n-gram model; it has no {missing[0]}")

    @cached_property
    def _model(self) -> NGram:
        return NGram.load(Path(self.path))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        file = Path(self.path) / TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise ConfigError(f"{file}: expected a tokenizer of the tokenizers library; {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.get_vocab_size() > self._model.vocabulary:
            size = tokenizer.get_vocab_size()
            raise ConfigError(f"{file}: got {size} tokens, expected at most the model's {self._model.vocabulary}")
        return tokenizer

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Prompt], **_: Any) -> list[float | None]:
        """One number for each completion, None where it has no tokens.

        Raises:
            ConfigError: The files of the model cannot be read.
            RewardError: A message of a completion has no text.
        """
        return [self._mean(*pair) for pair in zip(prompts, completions, strict=True)]

    def _mean(self, prompt: Prompt, completion: Prompt) -> float | None:
        if isinstance(completion, str):
            scores = self._scores(prompt if isinstance(prompt, str) else "", completion)
        else:
            scores = [score for message in completion for score in self._scores("", _content(message))]
        return sum(scores) / len(scores) if scores else None

    def _scores(self, before: str, text: str) -> list[float]:
        """The log-probabilities of the tokens of `text` that follows `before`."""
        ids, alone = self._ids(before + text), self._ids(before)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, alone, strict=False)))
        return [float(score) for score in self._model.log_probabilities(ids)[shared:]]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise RewardError(f"got a message with content {content!r}, expected a text")
    return content
