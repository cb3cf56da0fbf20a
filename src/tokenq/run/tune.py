"""Tune: search over the settings of a training run, and say which were best."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tokenq.config.parse import dump, from_file, to_mapping
from tokenq.config.search import read_search
from tokenq.config.train import TrainConfig
from tokenq.config.tune import TuneConfig
from tokenq.errors import CheckpointError, ConfigError
from tokenq.run.folder import alone
from tokenq.run.report import write_text
from tokenq.run.trial import KEPT

if TYPE_CHECKING:
    from tokenq.run.study import Plan

STUDY = "study.yaml"
DEFAULT = "default.yaml"
STARTS = "starts"

# What may change when a study goes on; its trials stay comparable.
_FREE = frozenset("config output_dir resume trials timeout workers sampler pruner seed".split())

# Settings of `tokenq train` that the model to start from depends on.
_START = frozenset(
    "model task dataset prompt_dataset prompt_words pretrain finetune chat_template dtype trust_remote_code".split()
)


def tune(config: TuneConfig) -> TrainConfig:
    """Run a study to its end, from the start or from where it was left; the best configuration, as in best.yaml.

    Raises:
        ConfigError: the search space or the configuration is wrong, or Optuna is not installed; found before any
            trial, but for a metric that no evaluation has.
        CheckpointError: the folder is in use, or holds something else.
        TokenqError: a trial failed for a reason that has nothing to do with its settings, or none has a score.
    """
    try:
        import optuna  # noqa: F401  an extra, which only this command needs
    except ImportError as error:
        raise ConfigError('tokenq tune needs Optuna, which is not installed: pip install "tokenq[tune]"') from error
    from tokenq.run.study import Plan, opened
    from tokenq.run.study_report import write_report

    source = Path(config.config or "")
    default = replace(from_file(TrainConfig, source), output_dir=None, resume=False)
    spaces = read_search(default, config.search)
    if config.pruner is not None and default.eval_steps is None:
        raise ConfigError(f"pruner: needs evaluations on the way; set eval_steps in {source.name}")
    folder = Path(config.output_dir or f"runs/tune-{source.stem}")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"output_dir: {folder} is a file; choose a folder")
    with alone(folder, wait=False):
        _claim(folder, config, default)
        shared = not any(key.split(".")[0] in _START for key in spaces)
        plan = Plan(config, default, spaces, folder, folder / STARTS if shared else None)
        with opened(plan) as study:
            _search(study, plan)
            return write_report(study, plan)


def _claim(folder: Path, config: TuneConfig, default: TrainConfig) -> None:
    """Write down what is studied, or check that it is what this folder is about."""
    inside = {path.name for path in folder.iterdir()}
    if STUDY in inside:
        if not config.resume:
            raise CheckpointError(
                f"output_dir: {folder} already holds a study; set resume to true to go on with it, or choose another"
            )
        old, new = to_mapping(from_file(TuneConfig, folder / STUDY)), to_mapping(config)
        changed = [key for key in new if key not in _FREE and old[key] != new[key]]
        before, after = to_mapping(from_file(TrainConfig, folder / DEFAULT)), to_mapping(default)
        changed += [f"{key} of {config.config}" for key in after if before.get(key) != after[key]]
        if changed:
            raise CheckpointError(
                f"output_dir: {folder} holds a study of other settings ({', '.join(changed[:3])} differ); "
                "use those of its study.yaml and default.yaml, or another folder"
            )
    elif inside - {DEFAULT}:  # which is written first, and alone there if nothing else was
        raise CheckpointError(f"output_dir: {folder} is not empty and holds no study; choose another folder")
    write_text(folder / DEFAULT, dump(default))
    write_text(folder / STUDY, dump(replace(config, resume=False)))


def _search(study: Any, plan: "Plan") -> None:
    from tokenq.run.study import DONE, search

    # Its own console: what trials print goes to their logs.
    console = Console(file=sys.stderr)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        trials = study.get_trials(deepcopy=False, states=DONE)
        task = bar.add_task("trials", total=plan.config.trials, completed=len(trials))
        for trial in search(study, plan):
            score = trial.user_attrs.get("note") or f"{plan.config.metric} {trial.value:.4g}"
            console.print(f"trial {trial.number}: {score}", markup=False, highlight=False, soft_wrap=True)
            bar.update(task, advance=1)
            _sweep(study, plan)


def _sweep(study: Any, plan: "Plan") -> None:
    """Drop what only the best trial needs."""
    from tokenq.run.study import DONE, best

    kept = best(study)
    for trial in study.get_trials(deepcopy=False, states=DONE):
        if kept is None or trial.number != kept.number:
            for path in plan.place(trial.number).glob("seed-*/*"):
                if path.name not in KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
