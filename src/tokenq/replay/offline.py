"""Rows of scored text as episodes, and rows of prompts checked before anything is generated.

A row has one of these shapes (`terminated` is optional and true by default; further columns travel along):

    messages, reward               a conversation rated as a whole
    messages, rewards              a conversation rated per assistant turn; null = unrated
    prompt, completion, reward     strings, or lists of messages
    prompt, completion, label      the same with true = 1, false = 0
    prompt, chosen, rejected       two episodes, rated 1 and 0
    prompt_ids, completion_ids     exact tokens beside reward or label; nothing is tokenised or added
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tokenq.errors import DataError
from tokenq.replay.codecs import Codec, Joint, Prompt
from tokenq.replay.columns import (
    Message,
    Row,
    check_order,
    present,
    score,
    terminated,
    text_or_messages,
    turn_scores,
    wrong,
)
from tokenq.replay.tokenise import Tokenised
from tokenq.types import Episode

# What has become tokens, rewards or the way an episode ended; everything else is the user's and travels along.
_CONSUMED = frozenset(
    "messages prompt completion reward rewards label chosen rejected terminated prompt_ids completion_ids".split()
)


def episodes_from_rows(
    rows: Sequence[Row], codec: Codec, source: str, context: int | None, numbers: Sequence[int] | None = None
) -> list[Episode]:
    """Episodes of all rows, in order; `context` is the model's largest number of tokens, None for no limit.

    The reward of an episode sits on its last decision, the reward of a turn on the turn's last decision; all others
    are 0, and the last decision of an unrated turn is NaN. Raises DataError with `source`, row (its entry of `numbers`;
    None counts from 1) and column.
    """
    episodes: list[Episode] = []
    for number, row in zip(range(1, len(rows) + 1) if numbers is None else numbers, rows, strict=True):
        with _located(source, number):
            episodes += _episodes(row, codec, context)
    return episodes


def prompts_from_rows(
    rows: Sequence[Row],
    codec: Codec,
    source: str,
    context: int | None,
    room: int = 1,
    numbers: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """The rows themselves, once every `prompt` is a string or messages and leaves room for `room` more tokens.

    Raises DataError with `source`, row (its entry of `numbers`; None counts from 1) and column.
    """
    for number, row in zip(range(1, len(rows) + 1) if numbers is None else numbers, rows, strict=True):
        with _located(source, number):
            codec.prompt(row).fits(context, room)
    return [dict(row) for row in rows]


@contextmanager
def _located(source: str, number: int) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{source} row {number}: {error}") from error


def _episodes(row: Row, codec: Codec, context: int | None) -> list[Episode]:
    """One episode, or two for a preference."""
    if present(row, "messages"):
        return [_conversation(row, codec, context)]
    if present(row, "chosen") and present(row, "rejected"):
        return [_completed(row, name, rated, codec, context) for name, rated in (("chosen", 1.0), ("rejected", 0.0))]
    if present(row, "completion") or present(row, "completion_ids"):
        return [_completed(row, "completion", score(row), codec, context)]
    raise DataError(
        f"has the columns {', '.join(row) or 'none'}; expected messages + reward, messages + rewards, "
        "prompt + completion + reward, prompt + completion + label, or prompt + chosen + rejected"
    )


def _conversation(row: Row, codec: Codec, context: int | None) -> Episode:
    if not isinstance(codec, Joint):
        raise DataError("has messages; expected prompt and completion: this kind of model holds no conversations")
    messages = text_or_messages(row, "messages")
    if isinstance(messages, str):
        raise wrong("messages", messages, "a list of messages {role, content}")
    check_order(messages, "messages")
    spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not spoken:
        raise DataError("column 'messages' has no assistant message; expected at least one; fix or drop the row")
    if present(row, "rewards") and (present(row, "reward") or present(row, "label")):
        raise DataError("column 'rewards' is set beside 'reward' or 'label'; expected one of them; drop the other")
    rated = turn_scores(row, len(spoken)) if present(row, "rewards") else _at_end(score(row), len(spoken))
    tokenised = codec.conversation(row, messages)
    return _episode(row, tokenised, rated, messages[: spoken[0]], context)


def _completed(row: Row, column: str, rated: float, codec: Codec, context: int | None) -> Episode:
    prompt = text_or_messages(row, "prompt") if present(row, "prompt") else None
    tokenised = codec.completion(row, column)
    return _episode(row, tokenised, _at_end(rated, len(tokenised.turns)), prompt, context)


def _episode(
    row: Row, tokenised: Tokenised, rated: Sequence[float], prompt: str | list[Message] | None, context: int | None
) -> Episode:
    """The episode, if every text that it is read from fits into the model's context."""
    Prompt(row, tokenised.tokens[: tokenised.turns[0].start], "", list(tokenised.source)).fits(context, 1)
    episode = tokenised.episode(rated, terminated(row), _columns(row, prompt))
    longest = max(stretch.stop - stretch.start for stretch in episode.readings)
    if context is not None and longest > context:
        raise DataError(
            f"has {longest} tokens; expected at most {context}, the model's context; "
            "shorten or drop the row, or set `memory`"
        )
    return episode


def _at_end(rated: float, turns: int) -> list[float]:
    return [0.0] * (turns - 1) + [rated]


def _columns(row: Row, prompt: str | list[Message] | None) -> dict[str, Any]:
    """The prompt and whatever else the user gave; it must survive a checkpoint, which stores JSON."""
    columns = {} if prompt is None else {"prompt": prompt}
    columns |= {name: value for name, value in row.items() if name not in _CONSUMED}
    for name, value in columns.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise wrong(name, value, "a JSON value (text, number, true, false, null, list or object)") from error
    return columns
