"""Several runs of one configuration together: means over seeds, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenq.cli import main
from tokenq.run.over_seeds import over_seeds

Start = Callable[..., Path]


def test_means_are_of_runs_and_their_intervals_lie_between_the_runs() -> None:
    ends = {"reward_low": 0.0, "reward_high": 9.0}
    each: list[dict[str, Any]] = [
        {"before": {"kl": 0.0}, "after": {"reward": reward, "kl": kl} | ends, "bounds": {"best": best}}
        for reward, kl, best in ((1.0, 0.5, 2.0), (3.0, None, 4.0))
    ]
    found = over_seeds(["a", "b"], [0, 1], each)
    assert found["before"] == {"kl": 0.0, "kl_low": 0.0, "kl_high": 0.0}
    after = found["after"]
    assert (after["reward"], after["reward_low"], after["reward_high"]) == (2.0, 1.0, 3.0)
    assert math.isnan(after["kl"]), "a run that has no value is not left out"
    assert found["bounds"]["best"] == 3.0
    assert (found["runs"], found["seeds"], found["each"]) == (["a", "b"], [0, 1], each)


def test_a_start_that_one_run_lacks_is_null() -> None:
    each = [{"before": {"kl": 0.0}, "after": {"kl": 1.0}}, {"before": None, "after": {"kl": 1.0}}]
    found = over_seeds(["a", "b"], [0, 1], each)
    assert found["before"] is None and "bounds" not in found


@pytest.fixture(scope="module")
def runs(start: Start, online: dict[str, Any]) -> list[str]:
    return [str(start(online | {"seed": seed})) for seed in (3, 4)]


def test_evaluate_takes_runs_that_differ_by_their_seeds(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def figures(*folders: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["evaluate", *folders, "--eval_samples", "4"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    together = figures(*runs)
    alone = [figures(run) for run in runs]
    assert together["seeds"] == [3, 4] and together["each"] == alone
    for when in ("before", "after"):
        values = [found[when]["reward"] for found in alone]
        assert together[when]["reward"] == pytest.approx(sum(values) / 2)
        assert together[when]["reward_low"] == min(values) and together[when]["reward_high"] == max(values)


def test_runs_that_differ_in_more_than_seeds_are_refused(
    runs: list[str], start: Start, online: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(start(online | {"seed": 5, "learning_rate": 0.001, "max_steps": 4}))
    refusals = {
        (runs[0], other): f"{other} differs from {runs[0]} in max_steps, learning_rate, expected in seed alone",
        (runs[0], runs[0]): f"{runs[0]} has the seed of one before it",
        (runs[0], str(tmp_path)): f"got {tmp_path}, expected the folder of a finished run",
        (*runs, "--gif", "a.gif"): "got 2 with gold, self_play or gif, which look at one",
    }
    for words, message in refusals.items():
        capsys.readouterr()
        assert main(["evaluate", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_figure_that_one_run_does_not_define_is_null(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter([1.0, math.nan])
    monkeypatch.setattr("tokenq.run.evaluate._figures", lambda config, given: {"after": {"reward": next(values)}})
    capsys.readouterr()
    assert main(["evaluate", *runs]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["after"]["reward"] is None and found["each"][1]["after"]["reward"] is None
