"""Between rows of data and token ids: what a model reads of a row, what it decides, and what a decision says.

One codec for each kind of model. Everything else in the house handles token ids and need not know which kind it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from tokenq.errors import DataError
from tokenq.replay.columns import (
    Message,
    Row,
    check_open,
    check_order,
    present,
    terminated,
    text_or_messages,
    token_ids,
    wrong,
)
from tokenq.replay.tokenise import Tokenised, tokenise_completion, tokenise_messages, tokenise_prompt


@dataclass(frozen=True)
class Prompt:
    """A row ready for the model: the text it stands for, its tokens, and what an encoder reads (or nothing).

    `spans` says for each token of the source which characters of the row's `context` it covers, where that is asked.
    `decisions` is how many follow, of a model that makes a fixed number of them and reads none; None: what fits.
    """

    row: Row
    tokens: list[int]
    text: str
    source: list[int]
    spans: Sequence[tuple[int, int]] = ()
    decisions: int | None = None

    def fits(self, context: int | None, room: int) -> None:
        """Raise `DataError` unless the prompt leaves room for so many more tokens in the model's context."""
        written = len(self.tokens) + room if self.decisions is None else 0
        read = max(written, len(self.source))
        if context is not None and read > context:
            limit = f"fewer than {context}"
            if room > 1 and not self.source:
                limit = f"at most {context - room}, to leave room for {room} of {context}"
            elif self.source:
                limit = f"at most {context}"
            got = len(self.source or self.tokens)
            raise DataError(
                f"column 'prompt' has {got} tokens; expected {limit}, the model's context; shorten or drop the row"
            )


@runtime_checkable
class Codec(Protocol):
    """Rows to token ids and back, for one kind of model."""

    def prompt(self, row: Row) -> Prompt:
        """What the model reads of a row before its first decision."""

    def completion(self, row: Row, column: str) -> Tokenised:
        """What the model reads and decides if it says what stands in a column of the row."""

    def text(self, prompt: Prompt, decided: Sequence[int]) -> str:
        """What decisions say."""

    def ended(self, decided: Sequence[int]) -> bool:
        """Whether decisions ended by themselves."""

    @property
    def ends(self) -> Sequence[int]:
        """The actions that end a text, the first of which also pads; nothing else pads where it is empty."""


@dataclass(frozen=True)
class Joint:
    """A decoder-only language model: prompt and completion are one text.

    `memory` is how many of the newest observations it sees of a conversation, its own words between them; None: all.
    """

    tokenizer: Any
    ends: Sequence[int]
    memory: int | None = None

    def prompt(self, row: Row) -> Prompt:
        """The prompt, or the conversation with the opening of the assistant's turn."""
        given = text_or_messages(row, "prompt")
        if not isinstance(given, str):
            check_order(given, "prompt")
            check_open(given)
        tokens = tokenise_prompt(given, self.tokenizer)
        if not tokens:
            raise DataError("column 'prompt' has no tokens; expected at least one; give a prompt")
        return Prompt(row, tokens, given if isinstance(given, str) else self.tokenizer.decode(tokens), [])

    def completion(self, row: Row, column: str) -> Tokenised:
        """Prompt and completion, as exact tokens, strings or messages."""
        if column == "completion" and (present(row, "prompt_ids") or present(row, "completion_ids")):
            prompt_ids = token_ids(row, "prompt_ids", len(self.tokenizer))
            tokens = prompt_ids + token_ids(row, "completion_ids", len(self.tokenizer))
            return Tokenised(tokens, [range(len(prompt_ids), len(tokens))])
        prompt, completion = text_or_messages(row, "prompt"), text_or_messages(row, column)
        if isinstance(prompt, str) and isinstance(completion, str):
            return tokenise_completion(prompt, completion, terminated(row), self.tokenizer)
        if isinstance(prompt, str) or isinstance(completion, str):
            raise DataError(f"columns 'prompt' and '{column}' are of two kinds; expected both strings or both messages")
        check_order(prompt + completion, f"prompt + {column}")
        check_open(prompt)
        if not any(message["role"] == "assistant" for message in completion):
            raise DataError(f"column '{column}' has no assistant message; expected at least one; fix or drop the row")
        return tokenise_messages(prompt + completion, len(prompt), terminated(row), self.tokenizer)

    def conversation(self, row: Row, messages: Sequence[Message]) -> Tokenised:
        """A conversation whose assistant's turns are decided."""
        return replace(tokenise_messages(messages, 0, terminated(row), self.tokenizer), memory=self.memory)

    def text(self, prompt: Prompt, decided: Sequence[int]) -> str:
        """A completion as text, with the space that may lead it, which decoding it alone would lose."""
        decode: Callable[..., str] = self.tokenizer.decode
        before = decode(prompt.tokens, skip_special_tokens=True)
        whole = decode([*prompt.tokens, *decided], skip_special_tokens=True)
        return whole[len(before) :] if whole.startswith(before) else decode(decided, skip_special_tokens=True)

    def ended(self, decided: Sequence[int]) -> bool:
        """Whether the last token is one of the ends."""
        return decided[-1] in self.ends


@dataclass(frozen=True)
class Paired:
    """An encoder–decoder: the prompt is what the encoder reads, the completion what the decoder writes.

    `start` is the token that the decoder begins with.
    """

    tokenizer: Any
    ends: Sequence[int]
    start: int

    def prompt(self, row: Row) -> Prompt:
        """The prompt as the encoder's source."""
        text = _string(row, "prompt")
        return Prompt(row, [self.start], text, list(self.tokenizer(text)["input_ids"]))

    def completion(self, row: Row, column: str) -> Tokenised:
        """The completion as the tokenizer writes a target, with one end if it is terminated."""
        target = list(self.tokenizer(text_target=_string(row, column), add_special_tokens=False)["input_ids"])
        if terminated(row) and (not target or target[-1] not in self.ends):
            target.append(self.ends[0])
        if not target:
            raise DataError(f"column '{column}' has no tokens; expected at least one if it was cut off; drop the row")
        return Tokenised([self.start, *target], [range(1, 1 + len(target))], self.prompt(row).source)

    def text(self, prompt: Prompt, decided: Sequence[int]) -> str:
        """The completion alone."""
        text: str = self.tokenizer.decode(decided, skip_special_tokens=True)
        return text

    def ended(self, decided: Sequence[int]) -> bool:
        """Whether the last token is one of the ends."""
        return decided[-1] in self.ends


@dataclass(frozen=True)
class Labelled:
    """A classifier: the prompt is its source, and the one decision is the number of a label."""

    tokenizer: Any
    labels: Sequence[str]

    ends: Sequence[int] = ()

    def prompt(self, row: Row) -> Prompt:
        """The prompt as the classifier's text."""
        text = _string(row, "prompt")
        return Prompt(row, [0], text, list(self.tokenizer(text)["input_ids"]), decisions=1)

    def completion(self, row: Row, column: str) -> Tokenised:
        """The number of the label that the column names."""
        name = _string(row, column).strip()
        if name not in self.labels:
            raise wrong(column, name, f"one of the model's labels, {', '.join(self.labels)}")
        return Tokenised([0, list(self.labels).index(name)], [range(1, 2)], self.prompt(row).source)

    def text(self, prompt: Prompt, decided: Sequence[int]) -> str:
        """The label's name."""
        return self.labels[decided[0]]

    def ended(self, decided: Sequence[int]) -> bool:
        """Always: there is no second decision."""
        return True


@dataclass(frozen=True)
class Spanned:
    """A reader of spans: question and paragraph are its source, and it decides where the answer starts and ends."""

    tokenizer: Any

    ends: Sequence[int] = ()

    def prompt(self, row: Row) -> Prompt:
        """The question in `prompt` and the paragraph in `context`, as one source."""
        question, paragraph = _string(row, "prompt"), _string(row, "context")
        encoded = self.tokenizer(question, paragraph, return_offsets_mapping=True)
        spans = [
            (start, end) if part == 1 else (0, 0)
            for (start, end), part in zip(encoded["offset_mapping"], encoded.sequence_ids(), strict=True)
        ]
        return Prompt(row, [0], question, list(encoded["input_ids"]), spans, decisions=2)

    def completion(self, row: Row, column: str) -> Tokenised:
        """The first and the last token of an answer, which must stand in the paragraph."""
        answer, prompt = _string(row, column), self.prompt(row)
        start = _start(row, answer, column)
        inside = [i for i, (a, b) in enumerate(prompt.spans) if a < start + len(answer) and b > start]
        if not inside:
            raise DataError(f"column '{column}': no token of the paragraph covers {answer!r}; fix or drop the row")
        return Tokenised([0, inside[0], inside[-1]], [range(1, 3)], prompt.source)

    def text(self, prompt: Prompt, decided: Sequence[int]) -> str:
        """The characters of the paragraph from the first to the last token; nothing if they lie outside of it."""
        start, end = prompt.spans[decided[0]][0], prompt.spans[decided[1]][1]
        return str(prompt.row["context"])[start:end]

    def ended(self, decided: Sequence[int]) -> bool:
        """Always: the second decision is the last."""
        return True


def _start(row: Row, answer: str, column: str) -> int:
    """The character of the row's `context` that an answer starts at: where `answer_start` says, or its first place."""
    paragraph, told = str(row["context"]), row.get("answer_start")
    if not answer or answer not in paragraph:
        raise DataError(f"column '{column}': the answer {answer!r} is not in the paragraph; fix or drop the row")
    if told is None:
        return paragraph.index(answer)
    # Files without types hold numbers as digits.
    if not str(told).isdecimal():
        raise wrong("answer_start", told, "a whole number of characters before the answer, or none")
    start = int(told)
    if not paragraph.startswith(answer, start):
        there = paragraph[start : start + len(answer)]
        raise DataError(f"answer_start points at {there!r}, expected {answer!r}; fix it, or leave answer_start out")
    return start


def _string(row: Row, column: str) -> str:
    value = text_or_messages(row, column)
    if not isinstance(value, str):
        raise DataError(f"column '{column}' has messages; expected a text: this kind of model holds no conversations")
    return value
