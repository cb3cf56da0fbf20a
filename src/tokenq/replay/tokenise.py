"""Text and conversations as token ids, with the positions that the policy decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jinja2 import TemplateError

from tokenq.errors import DataError
from tokenq.replay.columns import Message
from tokenq.types import Episode


@runtime_checkable
class Tokenizer(Protocol):
    """What is needed of a Hugging Face tokenizer; offsets need a fast one."""

    is_fast: bool
    eos_token_id: Any
    chat_template: Any

    def __call__(self, text: str, **options: Any) -> Any:
        """Token ids of the text, with offsets and the mask of added special tokens on request."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """The conversation as one text."""

    def __len__(self) -> int:
        """Number of tokens in the vocabulary."""


@dataclass(frozen=True)
class Tokenised:
    """Token ids, for each turn of the policy the range of positions that it decided, and what an encoder reads.

    `openings` says where what leads to each turn begins; one more than turns if the text goes on after the last one.
    `memory` is how many of the newest openings the policy sees, None for all.
    """

    tokens: list[int]
    turns: list[range]
    source: Sequence[int] = ()
    openings: Sequence[int] = (0,)
    memory: int | None = None

    def seen_since(self, opening: int) -> int:
        """From which token on the policy reads in the turn of an opening."""
        return 0 if self.memory is None else self.openings[max(opening + 1 - self.memory, 0)]

    def episode(self, rated: Sequence[float], terminated: bool, columns: Mapping[str, Any]) -> Episode:
        """What is learned from it: the reward of each turn, NaN where nobody rated it, on the turn's last decision."""
        turn = [i for i, decided in enumerate(self.turns) for _ in decided] + [len(self.openings) - 1]
        rewards = [[0.0] * (len(decided) - 1) + [reward] for decided, reward in zip(self.turns, rated, strict=True)]
        return Episode(
            tokens=np.array(self.tokens, dtype=np.int64),
            decisions=np.concatenate([np.array(decided, dtype=np.int64) for decided in self.turns]),
            rewards=np.concatenate([np.array(part, dtype=np.float64) for part in rewards]),
            terminated=terminated,
            columns=columns,
            source=np.array(self.source, dtype=np.int64),
            since=None if self.memory is None else np.array([self.seen_since(i) for i in turn], dtype=np.int64),
        )


def tokenise_prompt(prompt: str | Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt as generation sees it, messages with the opening of the assistant's turn."""
    if isinstance(prompt, str):
        return _tokenise_joint(prompt, 0, tokenizer)[0]
    return _ids(_rendered(prompt, tokenizer, opened=True), tokenizer)


def tokenise_completion(prompt: str, completion: str, terminated: bool, tokenizer: Tokenizer) -> Tokenised:
    """Prompt and completion as one text, so that tokens at the seam are those the model would see.

    The first token that reaches beyond the prompt starts the completion. A terminated completion ends with the EOS
    token as its last decision; special tokens that the tokenizer adds at the end by itself are dropped.
    """
    tokens, start = _tokenise_joint(prompt + completion, len(prompt), tokenizer)
    if terminated:
        tokens = _ended(tokens, start, tokenizer)
    if start == 0:
        raise DataError("column 'prompt' has no tokens; expected at least one before the completion; give a prompt")
    if start == len(tokens):
        raise DataError("column 'completion' has no tokens; expected at least one if it was cut off; drop the row")
    return Tokenised(tokens, [range(start, len(tokens))])


def tokenise_messages(messages: Sequence[Message], first: int, terminated: bool, tokenizer: Tokenizer) -> Tokenised:
    """A conversation through the tokenizer's chat template; assistant messages from index `first` on are decided.

    The text is tokenised in pieces: what the template puts before a turn, the turn, what comes before the next. The
    decisions of a turn are its tokens up to and including the first EOS. A terminated conversation ends with the last
    turn's EOS (added if the template writes none); one that was cut off ends before it, or, if the assistant did not
    speak last, with the opening of its next turn.
    """
    tokens: list[int] = []
    turns: list[range] = []
    openings: list[int] = []
    seen = ""
    for i in (i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"):
        opened = _rendered(messages[:i], tokenizer, opened=True)
        closed = _rendered(messages[: i + 1], tokenizer, opened=False)
        before, turn = (_ids(_added(old, new), tokenizer) for old, new in pairwise([seen, opened, closed]))
        openings.append(len(tokens))
        start = len(tokens) + len(before)
        turns.append(range(start, start + _turn_length(turn, tokenizer)))
        tokens += before + turn
        seen = closed
    if terminated:
        tokens = _ended(tokens[: turns[-1].stop], turns[-1].start, tokenizer)
        turns[-1] = range(turns[-1].start, len(tokens))
    elif messages[-1]["role"] != "assistant":
        openings.append(len(tokens))
        tokens += _ids(_added(seen, _rendered(messages, tokenizer, opened=True)), tokenizer)
    else:
        turns[-1] = _unended(tokens, turns[-1], tokenizer)
        tokens = tokens[: turns[-1].stop]
    _check_turns(turns)
    return Tokenised(tokens, turns, openings=openings)


def tokenise_opening(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """What stands between the last turn's EOS, or the beginning, and the assistant's next turn.

    The same tokens as `tokenise_messages` puts there, so that a conversation that is held a turn at a time, with what
    the model wrote kept as it wrote it, is the one that is read from a file.
    """
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    opened = _rendered(messages, tokenizer, opened=True)
    if not spoken:
        return _ids(opened, tokenizer)
    before = _rendered(messages[: spoken[-1]], tokenizer, opened=True)
    closed = _rendered(messages[: spoken[-1] + 1], tokenizer, opened=False)
    turn = _ids(_added(before, closed), tokenizer)
    return turn[_turn_length(turn, tokenizer) :] + _ids(_added(closed, opened), tokenizer)


def _tokenise_joint(text: str, boundary: int, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """Token ids without special tokens added at the end, and the first position that reaches beyond `boundary`."""
    if not tokenizer.is_fast:
        raise DataError("the tokenizer gives no character offsets; expected a fast one; save it with a tokenizer.json")
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    tokens, added = list(encoded["input_ids"]), encoded["special_tokens_mask"]
    while len(tokens) > 1 and added[len(tokens) - 1]:
        tokens.pop()
    ends = [end for _, end in encoded["offset_mapping"]]
    beyond = (i for i in range(len(tokens)) if ends[i] > boundary and not added[i])
    return tokens, next(beyond, len(tokens))


def _ended(tokens: list[int], start: int, tokenizer: Tokenizer) -> list[int]:
    """The tokens with EOS at their end; a final EOS at or after `start` is not doubled."""
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no EOS token to end a terminated text; set its eos_token")
    ended = len(tokens) > start and tokens[-1] == tokenizer.eos_token_id
    return tokens if ended else [*tokens, tokenizer.eos_token_id]


def _unended(tokens: list[int], turn: range, tokenizer: Tokenizer) -> range:
    return turn[:-1] if turn and tokens[turn[-1]] == tokenizer.eos_token_id else turn


def _turn_length(turn: list[int], tokenizer: Tokenizer) -> int:
    return turn.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in turn else len(turn)


def _check_turns(turns: list[range]) -> None:
    for number, turn in enumerate(turns, start=1):
        if not turn:
            raise DataError(f"assistant turn {number} has no tokens; expected at least one; fix or drop the row")


def _rendered(messages: Sequence[Message], tokenizer: Tokenizer, opened: bool) -> str:
    """The conversation as text, if `opened` with what makes the assistant speak next."""
    if tokenizer.chat_template is None:
        raise DataError(
            "messages need a chat template and the tokenizer has none; set `chat_template`, or give prompt and "
            "completion as strings"
        )
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
    except TemplateError as error:
        raise DataError(f"the chat template refuses the messages: {error}; fix or drop the row") from error
    return str(text)


def _added(old: str, new: str) -> str:
    if not new.startswith(old):
        raise DataError(
            "the chat template changes earlier text when a message is added; expected one that only appends; "
            "set `chat_template` to such a template"
        )
    return new[len(old) :]


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
