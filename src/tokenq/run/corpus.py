"""What the supervised stages of a run read: texts to pretrain on, and right answers to fine-tune on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenq.config.fields import tag
from tokenq.config.train import MadeTask, TrainConfig
from tokenq.envs.examples import Numbered
from tokenq.envs.text import Game
from tokenq.errors import ConfigError, DataError
from tokenq.replay.rows import read_rows
from tokenq.run.data import check_against, is_scored, made_rows, numbered_examples
from tokenq.run.given import Given, Rows


def pretraining_tokens(config: TrainConfig, given: Given, tokenizer: Any) -> list[list[int]]:
    """The tokens of whole texts: of `pretrain.dataset`, or what stands in the rows that the run learns from."""
    return _tokens(*_read(config, given), tokenizer)


def tokenizer_texts(config: TrainConfig, given: Given) -> Sequence[str]:
    """The texts, with prompts and completions apart: an encoder and a decoder read them apart as well."""
    return [part for parts in _parts(*_read(config, given)) for part in parts]


def held_out_tokens(config: TrainConfig, tokenizer: Any) -> list[list[int]]:
    """Those of texts to validate pretraining on; none if none are named."""
    source = config.pretrain.eval_dataset
    return _tokens(read_rows(source), source, tokenizer) if source is not None else []


CHECKED = 20
"""Rows whose stored tokens are compared with their texts."""


@dataclass(frozen=True)
class Lessons:
    """Rows with a prompt and the right completion, or with a conversation to imitate, by their numbers in a source.

    Raises:
        DataError: A row has neither.
    """

    rows: Sequence[Numbered]
    source: str

    def __post_init__(self) -> None:
        for number, row in self.rows:
            answered = isinstance(row.get("completion"), str) and isinstance(row.get("prompt"), str)
            if not answered and not isinstance(row.get("messages"), list):
                missing = "no right answer to learn; expected prompt and completion, messages, or a task"
                raise DataError(f"{self.source} row {number}: {missing}")


def lessons(config: TrainConfig, given: Given) -> Lessons:
    """What fine-tuning learns from."""
    source = config.finetune.dataset or config.prompt_dataset or (config.dataset if given.rows is None else None)
    if source is not None:
        return Lessons(numbered_examples(config, source), source)
    rows, source = _rows(config, given)
    return Lessons(list(enumerate(rows, 1)), source)


def held_out_lessons(config: TrainConfig, taught: Lessons) -> Lessons | None:
    """What fine-tuning is validated on; None if nothing is named.

    Raises:
        DataError: A row has an answer that the task finds nowhere in what is taught.
    """
    source = config.finetune.eval_dataset or config.eval_dataset
    if source is None:
        return None
    held_out = Lessons(numbered_examples(config, source), source)
    check_against(config, [row for _, row in taught.rows], held_out.rows, source)
    return held_out


def _read(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    source = config.pretrain.dataset
    return (read_rows(source), source) if source is not None else _rows(config, given)


def _rows(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    if given.rows is not None:
        return [dict(row) for row in given.rows], "train_dataset"
    source = config.dataset or config.prompt_dataset or config.finetune.dataset
    if source is not None:
        if source == config.dataset and all(map(is_scored, rows := read_rows(source))):
            return rows, source
        return [row for _, row in numbered_examples(config, source)], source
    if isinstance(config.task, MadeTask):
        return config.task.answers(), tag(type(config.task))
    if isinstance(config.task, Game):
        return made_rows(config.task), tag(type(config.task))
    raise ConfigError("pretrain.dataset: got none, expected a file of texts to learn from")


def tokens_of(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of texts, without an end."""
    return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def _tokens(rows: Rows, source: str, tokenizer: Any) -> list[list[int]]:
    """Tokens of texts as `tokenq prepare` stored them, or else anew; without those that a tokenizer puts around a text.

    Raises:
        DataError: what is stored comes from another tokenizer.
    """
    if not all("input_ids" in row and "labels" not in row and isinstance(row.get("text"), str) for row in rows):
        return tokens_of(_texts(rows, source, tokenizer), tokenizer)
    before, after = _around(rows[0]["text"], tokenizer)
    stored = [list(row["input_ids"])[before:] for row in rows]
    stored = [own[: len(own) - after] for own in stored]
    anew = tokens_of([row["text"] for row in rows[:CHECKED]], tokenizer)
    for number, (own, expected) in enumerate(zip(stored, anew, strict=False), 1):
        if own != expected[: len(own)]:  # which may have been cut
            raise DataError(
                f"{source} row {number}: its input_ids are not those of the run's tokenizer; prepare the rows "
                "with that tokenizer, or name the texts"
            )
    for number, own in enumerate(stored, 1):
        if own and max(own) >= len(tokenizer):
            allowed = f"expected tokens below {len(tokenizer)}, the size of the run's tokenizer"
            raise DataError(f"{source} row {number}: got token {max(own)}, {allowed}; prepare the rows with that")
    return stored


def _around(text: str, tokenizer: Any) -> tuple[int, int]:
    """How many tokens the tokenizer puts before and after a text."""
    (inner,), whole = tokens_of([text], tokenizer), tokenizer(text)["input_ids"]
    added = len(whole) - len(inner)
    before = next((n for n in range(added + 1) if whole[n : n + len(inner)] == inner), 0)
    return before, added - before


def _texts(rows: Rows, source: str, tokenizer: Any) -> list[str]:
    """Whole texts; conversations as the chat template writes them, without the end that pretraining adds."""
    talks = [row["messages"] if isinstance(row.get("messages"), list) else None for row in rows]
    if not any(talks):
        return ["".join(parts) for parts in _parts(rows, source)]
    if tokenizer.chat_template is None:
        raise DataError(f"{source}: holds messages and the tokenizer has no chat template; set chat_template")
    texts = [
        "".join(_parts([row], source)[0]) if talk is None else tokenizer.apply_chat_template(talk, tokenize=False)
        for row, talk in zip(rows, talks, strict=True)
    ]
    return [text.removesuffix(tokenizer.eos_token) for text in texts]


def _parts(rows: Rows, source: str) -> list[list[str]]:
    """The text of each row, its prompt and its completion, or what its messages say."""
    found = []
    for number, row in enumerate(rows, 1):
        if isinstance(row.get("messages"), list):
            found.append([str(message.get("content")) for message in row["messages"]])
            continue
        whole = "text" in row and "completion" not in row
        parts = [row["text"]] if whole else [row.get("prompt"), row.get("completion") or ""]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise DataError(
                f"{source} row {number}: no text; expected a column text, or prompt and completion as strings"
            )
        found.append(texts)
    return found
