"""Prepare: clean text data step by step, and leave a report of what was removed and why."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenq.acting.explore import Greedy
from tokenq.acting.loading_by_name import load_reward
from tokenq.config.parse import dump, from_file
from tokenq.config.prepare import PrepareConfig
from tokenq.envs.translation import Translation
from tokenq.errors import CheckpointError, ConfigError, DataError
from tokenq.nets.encoder import is_encoder
from tokenq.nets.language import context_length
from tokenq.nets.loading import end_tokens, load_model, load_tokenizer
from tokenq.preparation.against import overlaps
from tokenq.preparation.augment import Aids, Translate, marked
from tokenq.preparation.picture import draw_report
from tokenq.preparation.records import Outcome, Record
from tokenq.preparation.report import Report, Step, figures_of, versions
from tokenq.preparation.sources import Source
from tokenq.preparation.tokenised import Encode, Table, save_tables
from tokenq.preparation.translation import ModelTranslator, Request, RunTranslator
from tokenq.replay.codecs import Prompt
from tokenq.run.folder import CONFIG, whole_folder
from tokenq.run.loaded import Loaded, load_run

REPORT = "report.json"

Rows = list[Record]
Clean = Callable[[Rows], Outcome]


@dataclass(eq=False)
class _Steps:
    """The steps done so far; each is told to whoever watches."""

    done: list[Step] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def add(self, step: Step) -> None:
        self.done.append(step)
        said = f"{step.name}: {step.before:,} → {step.after:,} rows"
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)


def prepare(config: PrepareConfig) -> Path:
    """Carry out every step that is switched on; the folder with the parts, the tokens and the report.

    The folder appears whole or not at all, and the same input and settings give the same bytes.

    Raises:
        ConfigError: a setting that cannot be followed, a package that is not installed, or a folder that is taken.
        DataError: a file that cannot be read as it should; no row that is left; a part that cannot be filled.
    """
    folder = _free_folder(config)
    source = _source(config, config.files)
    # Everything that the user may have misspelt comes before the steps that take long.
    encode = None if config.tokenise is None else _encoder(config.tokenise.tokenizer)
    aids = _aids(config)
    others = _others(config)
    steps = _Steps()
    files, records = _read(source, steps)
    if config.split is not None:
        config.split.check(records)
    for name, clean in _cleaning(config, source.columns, others):
        outcome = clean(records)
        steps.add(Step(name, len(records), len(outcome.kept), outcome.removed, outcome.changed))
        records = outcome.kept
        if not records:
            reasons = Counter(note.reason for step in steps.done for note in step.removed)
            why = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise DataError(f"{name}: no row is left of {sum(files.values())} ({why}); expected some; loosen the steps")
    parts = _split(config, source.columns, records, steps)
    if config.augment.active:
        parts = _augmented(config, parts, [row for rows in others.values() for row in rows], aids, steps)
    tables = {} if encode is None else _tokenised(config, source.columns, parts, encode, steps)
    report = _report(config, source.columns, files, steps.done, parts, tables)
    with whole_folder(folder) as place:
        _write(place, config, parts, tables, report)
    print(f"{report.table()}\nreport is in {folder / 'report.md'}")
    return folder


def _free_folder(config: PrepareConfig) -> Path:
    assert config.output_dir is not None
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir: {folder} is a file; choose a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    if not _is_ours(folder):
        raise ConfigError(f"output_dir: {folder} is not empty and not from tokenq prepare; choose another folder")
    if not config.overwrite:
        raise ConfigError(f"output_dir: {folder} already holds prepared data; set overwrite to true, or choose another")
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        from_file(PrepareConfig, folder / CONFIG)
    except ConfigError:
        return False
    return (folder / REPORT).is_file()


def _source(config: PrepareConfig, files: Sequence[str]) -> Source:
    columns = [column for column in (config.text_column, config.target_column) if column is not None]
    return Source(files, columns, config.encoding, config.on_bad_text)


def _others(config: PrepareConfig) -> dict[str, Rows]:
    """The rows of each file to compare with, written in the same way as ours."""
    found = {}
    for file in () if config.against is None else config.against.files:
        source = _source(config, [file])
        rows = source.read().kept
        found[file] = rows if config.normalise is None else config.normalise.apply(rows, source.columns).kept
    return found


def _read(source: Source, steps: _Steps) -> tuple[dict[str, int], Rows]:
    outcome = source.read()
    every = [*outcome.kept, *(note.record for note in outcome.removed)]
    counts = Counter(record.file for record in every)
    steps.add(Step("read", len(every), len(outcome.kept), outcome.removed))
    if not outcome.kept:
        raise DataError(f"{source.files[0]}: no row of {len(every)} is whole text; expected some; set encoding")
    return {file: counts[file] for file in source.files}, outcome.kept


def _cleaning(
    config: PrepareConfig, columns: Sequence[str], others: Mapping[str, Sequence[Record]]
) -> Iterator[tuple[str, Clean]]:
    """The steps that change or remove rows, in their fixed order."""
    steps = (
        ("normalise", config.normalise),
        ("empty", config.empty),
        ("length", config.length),
        ("language", config.language),
        ("ratio", config.ratio),
        ("exact", config.exact),
    )
    for name, step in steps:
        if step is not None:
            yield name, partial(step.apply, columns=columns)
    if config.near is not None:
        yield "near", partial(config.near.apply, columns=columns, seed=config.seed)
    if config.against is not None:
        yield "against", partial(config.against.apply, others=others, columns=columns, seed=config.seed)


def _split(config: PrepareConfig, columns: Sequence[str], records: Rows, steps: _Steps) -> dict[str, Rows]:
    if config.split is None:
        return {"train": records}
    parts = config.split.apply(records, columns, config.seed)
    facts = {"groups": parts.groups, "largest_group": parts.largest}
    sizes = {part: len(rows) for part, rows in parts.records.items()}
    steps.add(Step("split", len(records), len(records), facts=sizes | facts))
    return parts.records


def _augmented(
    config: PrepareConfig, parts: Mapping[str, Rows], others: Rows, aids: Aids, steps: _Steps
) -> dict[str, Rows]:
    """The parts with copies in train, but for copies that come too near to what train must not hold."""
    train = parts["train"]
    copies = config.augment.apply(train, config.text_column, config.seed, aids)
    held_out = [record for part, rows in parts.items() if part != "train" for record in rows] + others
    near = config.near if config.split is None else config.split.near
    leaking = overlaps(copies.records, held_out, [config.text_column], near, config.seed)
    added = [copy for i, copy in enumerate(copies.records) if i not in leaking]
    kinds = Counter(copy.values["augmented"] for copy in added)
    facts = {"nothing_new": dict(copies.nothing_new), "too_near_to_held_out_rows": len(leaking)}
    total = sum(map(len, parts.values()))
    steps.add(Step("augment", total, total + len(added), added=kinds, facts=facts))
    return {part: marked(rows) + (added if part == "train" else []) for part, rows in parts.items()}


def _tokenised(
    config: PrepareConfig, columns: Sequence[str], parts: Mapping[str, Rows], encode: Encode, steps: _Steps
) -> dict[str, Table]:
    assert config.tokenise is not None
    tables = {part: config.tokenise.apply(rows, columns, encode) for part, rows in parts.items()}
    total = sum(map(len, parts.values()))
    facts = {f"texts_cut_in_{part}": table.truncated for part, table in tables.items()}
    steps.add(Step("tokenise", total, total, facts=facts))
    return tables


def _report(
    config: PrepareConfig,
    columns: Sequence[str],
    files: Mapping[str, int],
    steps: Sequence[Step],
    parts: Mapping[str, Rows],
    tables: Mapping[str, Table],
) -> Report:
    label = None if config.split is None else config.split.stratify
    figures = {part: figures_of(rows, columns, label) for part, rows in parts.items()}
    for part, table in tables.items():
        figures[part] |= {"tokens": table.tokens, "longest_tokens": table.longest, "truncated": table.truncated}
    return Report(files, steps, figures, config.seed, columns, versions())


def _write(
    place: Path, config: PrepareConfig, parts: Mapping[str, Rows], tables: Mapping[str, Table], report: Report
) -> None:
    for part, rows in parts.items():
        with (place / f"{part}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(dict(row.values), ensure_ascii=False) + "\n" for row in rows)
    if tables:
        save_tables(tables, place / "tokenised")
    (place / REPORT).write_text(json.dumps(report.content(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (place / "report.md").write_text(report.page(), encoding="utf-8")
    draw_report(report.steps, place / "report.png")
    (place / CONFIG).write_text(dump(replace(config, overwrite=False)), encoding="utf-8")


def _encoder(path: str) -> Encode:
    try:
        tokenizer: Any = load_tokenizer(path)
    except ConfigError as error:
        raise ConfigError(f"tokenise.tokenizer: {str(error).removeprefix('model: ')}") from error

    def encode(texts: list[str], longest: int | None) -> list[list[int]]:
        tokens: list[list[int]] = tokenizer(texts, truncation=longest is not None, max_length=longest, verbose=False)[
            "input_ids"
        ]
        return tokens

    return encode


def _aids(config: PrepareConfig) -> Aids:
    synonyms, way = config.augment.synonyms, config.augment.back_translation
    neighbours = None if synonyms is None else synonyms.neighbours()
    if way is None:
        return Aids(neighbours)
    return Aids(neighbours, (_translator(way.forward, "forward"), _translator(way.backward, "backward")))


def _translator(spec: str | Mapping[str, Any], way: str) -> Translate:
    path = spec if isinstance(spec, str) else spec.get("path")
    try:
        if isinstance(path, str) and ":" not in path:
            return _model_translator(path, Request.of({} if isinstance(spec, str) else spec.get("args") or {}))
        # The finder of reward functions finds any callable; only its messages speak of rewards.
        found: Any = load_reward(spec)
    except (ConfigError, CheckpointError) as error:
        said = str(error).removeprefix("reward_funcs: ").removeprefix("model: ")
        raise ConfigError(f"augment.back_translation.{way}: {said}") from error
    translate: Translate = found
    return translate


def _model_translator(path: str, request: Request) -> Translate:
    """What translates by the encoder–decoder of a folder or hub id, or by the model of a finished run."""
    if (Path(path) / CONFIG).is_file() and (Path(path) / "model").is_dir():
        return _run_translator(load_run(path), path, request)
    tokenizer: Any = load_tokenizer(path)
    model: Any = load_model(path)
    if is_encoder(model) or not model.config.is_encoder_decoder:
        raise ConfigError(
            f"got {path}, a {type(model).__name__}, expected an encoder–decoder, a finished run, or a function as "
            "module:name or file.py:name"
        )
    return ModelTranslator(model, tokenizer, frozenset(end_tokens(model, tokenizer)), context_length(model), request)


def _run_translator(run: Loaded, path: str, request: Request) -> Translate:
    """What translates as `tokenq generate --greedy` writes, after the prompt of the run's task if it has one."""
    task = run.config.row_task
    if is_encoder(run.network.model) or (task is not None and not isinstance(task, Translation)):
        raise ConfigError(f"got {path}, a run that was not trained to translate; expected one with task translation")
    length = request.max_new_tokens or run.config.max_completion_length
    chat = run.tokenizer.chat_template is not None

    def prompt(text: str) -> Prompt:
        said = request.prefix + text
        alone = {"prompt": [{"role": "user", "content": said}] if chat else said}
        row = alone if task is None else task.examples([{task.source: said, task.target: said}])[0]
        return run.writer.prompt(row, length)

    return RunTranslator(prompt, lambda prompts: run.writer.complete(prompts, Greedy(), length, 0), run.writer.codec)
