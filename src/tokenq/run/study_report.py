"""What a study says at its end: the best configuration, a report, and its pictures."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tokenq.config.parse import dump
from tokenq.config.search import configured, text_of, value_at
from tokenq.config.train import TrainConfig
from tokenq.errors import TokenqError
from tokenq.run.report import write_text
from tokenq.run.study import DONE, Plan, best

_BLUE, _ORANGE, _DPI = "#0072B2", "#D55E00", 100
_ROUGH = 50
"""PED-ANOVA compares the best tenth of the trials with all; its authors want five trials in it."""


def write_report(study: Study, plan: Plan) -> TrainConfig:
    """Write best.yaml, report.md, history.png and importance.png; the best configuration.

    Raises:
        TokenqError: no trial has a score; the report says why.
    """
    trials = study.get_trials(deepcopy=False, states=DONE)
    winner = best(study)
    importances = _importances(study)
    if winner is not None:
        draw_history(_scores(trials), plan, plan.folder / "history.png")
    if importances:
        draw_importances(importances, plan.folder / "importance.png")
    write_text(plan.folder / "report.md", report(trials, winner, importances, plan))
    if winner is None:
        raise TokenqError(f"none of {len(trials)} trials has a score; {plan.folder / 'report.md'} says why")
    chosen = replace(trial_config(plan, winner), seed=plan.config.seeds[0])
    write_text(plan.folder / "best.yaml", dump(chosen))
    print(f"best: trial {winner.number}, {plan.config.metric} {winner.value:.4g}; see {plan.folder / 'report.md'}")
    return chosen


def trial_config(plan: Plan, trial: FrozenTrial) -> TrainConfig:
    """The configuration of a trial, but for seed and folder."""
    if trial.number == 0:
        return plan.default
    return configured(plan.default, {key: space.value(trial.params[key]) for key, space in plan.spaces.items()})


def report(
    trials: Sequence[FrozenTrial], winner: FrozenTrial | None, importances: Mapping[str, float], plan: Plan
) -> str:
    """The text of report.md."""
    config = plan.config
    words = {"maximize": "highest", "minimize": "lowest"}
    stopped = sum(trial.state is TrialState.PRUNED for trial in trials)
    seeds = ", ".join(map(str, config.seeds))
    lines = [
        f"# Search of {plan.folder.name}",
        "",
        f"{len(trials)} trials of `{config.config}`, {stopped} of them without a score (stopped early or refused). "
        f"The score is `{config.metric}` at the end, mean over seeds {seeds}; the {words[config.direction]} is best. "
        "Trial 0 is the default configuration.",
        "",
        *(["No trial has a score.", ""] if winner is None else _comparison(trials, winner, plan)),
        *_importance_section(importances, len(_scores(trials))),
        "## Trials",
        "",
        *_table(["trial", "score", *plan.spaces, "seconds", "note"], [_row(trial, plan) for trial in trials]),
    ]
    return "\n".join(lines)


def draw_history(scores: Mapping[int, float], plan: Plan, path: Path) -> None:
    """Draw the score of each trial, the best one so far, and that of the default configuration."""
    better = max if plan.config.direction == "maximize" else min
    numbers, values = list(scores), list(scores.values())
    bests = [better(values[: i + 1]) for i in range(len(values))]
    figure = Figure(figsize=(8, 4), dpi=_DPI)
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.77))
    axes.plot(numbers, values, "o", color=_BLUE, markersize=4, label="trial")
    axes.step(numbers, bests, where="post", color=_ORANGE, label="best so far")
    if 0 in scores:
        axes.axhline(scores[0], color="grey", linestyle="--", linewidth=1, label="default")
    axes.set(xlabel="trial", ylabel=plan.config.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderaxespad=0.2)
    figure.savefig(path)


def draw_importances(importances: Mapping[str, float], path: Path) -> None:
    """Draw the share of each setting, the largest on top."""
    height = 1 + 0.4 * len(importances)
    figure = Figure(figsize=(8, height), dpi=_DPI)
    axes = figure.add_axes((0.32, 0.6 / height, 0.64, 1 - 0.7 / height))
    axes.barh(list(importances)[::-1], list(importances.values())[::-1], color=_BLUE)
    axes.set_xlabel("importance (shares of 1)")
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path)


def _importances(study: Study) -> dict[str, float]:
    """The share of each setting in what makes a trial good; none without two trials of different scores."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = {key for trial in complete for key in trial.params}
    if len({trial.value for trial in complete}) < 2 or not varied:
        return {}
    with warnings.catch_warnings(action="ignore"):  # of few trials, which the report says in its own words
        return get_param_importances(study)


def _scores(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    return {t.number: t.value for t in trials if t.state is TrialState.COMPLETE and t.value is not None}


def _comparison(trials: Sequence[FrozenTrial], winner: FrozenTrial, plan: Plan) -> list[str]:
    chosen = trial_config(plan, winner)
    default = "".join(_score(trial) for trial in trials if trial.number == 0)
    rows = [[f"`{plan.config.metric}`", default, f"**{_score(winner)}**"]]
    rows += [[f"`{key}`", text_of(value_at(plan.default, key)), text_of(value_at(chosen, key))] for key in plan.spaces]
    return [
        "## Best and default",
        "",
        *_table(["", "default", f"best (trial {winner.number})"], rows),
        "`tokenq train best.yaml --output_dir …` trains the best configuration again. Its score was chosen as the best "
        "of several and so flatters it: measure it on prompts that took no part in the search.",
        "",
        "![History](history.png)",
        "",
    ]


def _importance_section(importances: Mapping[str, float], scored: int) -> list[str]:
    if not importances:
        return ["## Importance", "", "Not known: that needs two trials with different scores.", ""]
    rough = f" With {scored} scored trials this is rough; {_ROUGH} make it stable." if scored < _ROUGH else ""
    rows = [[f"`{key}`", f"{share:.2f}"] for key, share in importances.items()]
    told = "How much the settings of the best tenth of trials differ from those of all (PED-ANOVA), as shares of 1."
    return ["## Importance", "", told + rough, "", *_table(["setting", "share"], rows), "![](importance.png)", ""]


def _row(trial: FrozenTrial, plan: Plan) -> list[str]:
    own = {key: text_of(value_at(plan.default, key)) for key in plan.spaces} if trial.number == 0 else trial.params
    settings = [f"{own[key]:.4g}" if isinstance(own[key], float) else str(own[key]) for key in plan.spaces]
    seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
    return [str(trial.number), _score(trial), *settings, seconds, trial.user_attrs.get("note", "")]


def _score(trial: FrozenTrial) -> str:
    if trial.state is not TrialState.COMPLETE or trial.value is None or not math.isfinite(trial.value):
        return "–"
    single = trial.user_attrs.get("scores", [])
    return f"{trial.value:.4g}" + (f" ({', '.join(f'{s:.4g}' for s in single)})" if len(single) > 1 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]
