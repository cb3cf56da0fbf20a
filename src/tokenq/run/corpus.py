"""What the supervised stages of a run read: texts to pretrain on, and right answers to fine-tune on."""

from collections.abc import Sequence
from typing import Any

from tokenq.config.fields import tag
from tokenq.config.train import MadeTask, TrainConfig
from tokenq.envs.text import Game
from tokenq.errors import ConfigError, DataError
from tokenq.replay.rows import read_rows
from tokenq.run.data import check_against, made_rows, numbered_examples, read_examples
from tokenq.run.given import Given, Rows


def pretraining_texts(config: TrainConfig, given: Given, tokenizer: Any) -> Sequence[str]:
    """Whole texts: of `pretrain.dataset`, or what stands in the rows that the run learns from."""
    return _texts(*_read(config, given), tokenizer)


def tokenizer_texts(config: TrainConfig, given: Given) -> Sequence[str]:
    """The same with prompts and completions apart: an encoder and a decoder read them apart as well."""
    return [part for parts in _parts(*_read(config, given)) for part in parts]


def held_out_texts(config: TrainConfig, tokenizer: Any) -> Sequence[str]:
    """Texts to validate pretraining on; none if none are named."""
    source = config.pretrain.eval_dataset
    return _texts(read_rows(source), source, tokenizer) if source is not None else []


def teaching_rows(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    """Rows with a prompt and the right completion, or with a conversation to imitate, and where they come from.

    Raises:
        DataError: A row has neither.
    """
    source = config.finetune.dataset or config.prompt_dataset
    rows, source = (read_examples(config, source), source) if source is not None else _rows(config, given)
    return _taught(rows, source), source


def held_out_rows(config: TrainConfig) -> Rows:
    """Rows with right completions to validate fine-tuning on; none if none are named.

    Raises:
        DataError: A row has no completion, or one that the task finds nowhere in the rows that teach.
    """
    source = config.finetune.eval_dataset or config.eval_dataset
    if source is None:
        return []
    held_out = numbered_examples(config, source)
    teaching = config.finetune.dataset or config.prompt_dataset
    if config.row_task is not None and teaching is not None:
        check_against(config, read_examples(config, teaching), held_out, source)
    return _taught([row for _, row in held_out], source)


def _read(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    source = config.pretrain.dataset
    return (read_rows(source), source) if source is not None else _rows(config, given)


def _rows(config: TrainConfig, given: Given) -> tuple[Rows, str]:
    if given.rows is not None:
        return [dict(row) for row in given.rows], "train_dataset"
    source = config.dataset or config.prompt_dataset
    if source is not None:
        return read_examples(config, source), source
    if isinstance(config.task, MadeTask):
        return config.task.answers(), tag(type(config.task))
    if isinstance(config.task, Game):
        return made_rows(config.task), tag(type(config.task))
    raise ConfigError("pretrain.dataset: got none, expected a file of texts to learn from")


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


def _taught(rows: Rows, source: str) -> Rows:
    for number, row in enumerate(rows, 1):
        answered = isinstance(row.get("completion"), str) and isinstance(row.get("prompt"), str)
        if not answered and not isinstance(row.get("messages"), list):
            raise DataError(
                f"{source} row {number}: no right answer to learn; expected prompt and completion, messages, or a task"
            )
    return rows
