"""The end of a run: the model, the last evaluation, the pictures, the summary and the model card."""

import sys

import numpy as np

from tokenq.evaluation.policy import Evaluation
from tokenq.learning.diagnostics import calibration
from tokenq.learning.offline import Guided
from tokenq.learning.scaling import PerPrompt
from tokenq.nets import loading
from tokenq.replay.collate import collate_all
from tokenq.run.figures import draw_calibration, draw_curves
from tokenq.run.folder import whole_folder
from tokenq.run.report import Origin, Summary, model_card, versions, write_completions, write_summary
from tokenq.run.session import Session
from tokenq.types import Episode

CALIBRATED = 256
"""Episodes that the calibration figure is drawn from, at most."""


def finish(session: Session) -> Summary:
    """Write everything that a run leaves behind, print before, after and best, and return the summary."""
    folder, learner = session.folder, session.learner
    with whole_folder(folder / "model") as place:
        loading.save_network(session.network, session.tokenizer, place)
    evaluation = session.evaluator.evaluate() if session.evaluator else None
    summary = Summary(
        task=session.data.name,
        seed=session.config.seed,
        before=session.before,
        after={} if evaluation is None else {**evaluation.metrics, **session.data.bounds},
        reward_calls=session.rollout.reward_calls if session.rollout else 0,
        updates=learner.update_count,
        wall_seconds=session.seconds,
        target_bytes=learner.target.bytes,
        versions=versions(),
    )
    if evaluation is not None and session.config.log_completions:
        write_completions(folder, learner.update_count, evaluation.completions.table())
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    whose, episodes = _judged(session, evaluation)
    if episodes:
        batch = collate_all(episodes).to(learner.accelerator.device)
        draw_calibration(*calibration(learner, batch), whose, folder / "calibration.png")
    write_summary(folder / "summary.json", summary)
    objective, command = session.config.objective, " ".join(["tokenq", *sys.argv[1:]])
    guidance = objective.guidance if isinstance(objective, Guided) else None
    auto_class, own_code = loading.loaded_by(session.network.causal)
    origin = Origin(command, type(objective).__name__, auto_class, own_code, session.config.model, guidance)
    (folder / "README.md").write_text(model_card(folder.name, summary, origin), encoding="utf-8")
    _print(session, evaluation)
    return summary


def _judged(session: Session, evaluation: Evaluation | None) -> tuple[str, list[Episode]]:
    """Rated episodes to calibrate on, and whose they are.

    Those of the last evaluation; without one, or if returns are relative, the newest ones that were learned from.
    """
    relative = isinstance(session.learner.scale, PerPrompt)
    evaluated = None if evaluation is None or relative else evaluation.episodes
    whose = "episodes that were learned from" if evaluated is None else "the last evaluation's episodes"
    episodes: list[Episode] = list(session.replay.episodes) if evaluated is None else evaluated
    return whose, [e for e in episodes if not np.isnan(e.rewards).all()][-CALIBRATED:]


def _print(session: Session, evaluation: Evaluation | None) -> None:
    if evaluation is not None:
        for name in ("reward", "greedy_reward"):
            after = evaluation.metrics
            print(
                f"{name:>14}: before {session.before[name]:.3f}  after {after[name]:.3f} "
                f"[{after[f'{name}_low']:.3f}, {after[f'{name}_high']:.3f}]"
            )
        for name, value in session.data.bounds.items():
            print(f"{name:>14}: {value:.3f}")
    print(f"model, curves.png, calibration.png and summary.json are in {session.folder}")
