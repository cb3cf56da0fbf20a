"""Pictures of a run: drawn from whatever numbers there are, and refused where there are none."""

import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from tokenq.errors import DataError
from tokenq.run.figures import draw_calibration, draw_curves


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def full_rows(n: int):
    for i in range(1, n + 1):
        row = {"update": 10 * i, "phase": "offline" if i <= n // 3 else "online"}
        row |= {"loss": 1 / i, "td_abs": 1 / i + 0.1, "kl": math.log(i), "entropy": 3 - math.log(i) / 4}
        row |= {"q_max": 1 - 1 / i, "q_mean": 0.5 - 1 / i, "value_mean": 0.4, "return_max": 1.0}
        row |= {"grad_norm/trunk": 1 / i, "grad_norm/readout": 0.1 / i, "grad_norm/value_head": 0.01}
        row |= {"target_lag": 10 + i % 5, "target_gap": 0.1 / i, "reward": math.tanh(i / n) if i % 7 else None}
        yield row | ({"eval_reward": math.tanh(1.1 * i / n), "eval_greedy_reward": 0.9} if i % 10 == 0 else {})


def shape(path) -> tuple[int, int]:
    height, width, _ = imread(path).shape
    return width, height


def test_all_panels(tmp_path) -> None:
    draw_curves(write_rows(tmp_path / "metrics.jsonl", full_rows(60)), tmp_path / "curves.png")
    assert shape(tmp_path / "curves.png") == (1200, 1080)
    assert imread(tmp_path / "curves.png")[..., :3].std() > 0.05


def test_only_panels_with_data(tmp_path) -> None:
    rows = [{"update": 1, "loss": 1.0, "kl": None}, {"update": 2, "loss": 0.5, "learning_rate": 0.1}]
    draw_curves(write_rows(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert shape(tmp_path / "curves.png") == (1200, 360)


def test_a_gradient_norm_of_zero_does_not_break_the_scale(tmp_path) -> None:
    rows = [{"update": i, "grad_norm/trunk": float(i)} for i in range(3)]
    draw_curves(write_rows(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert shape(tmp_path / "curves.png") == (1200, 360)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "got 0 rows without a metric"),
        ('{"update": 1, "loss": null}\n', "got 1 rows without a metric"),
        ('{"update": 1}\n{"upda', "row 2: .*expected one JSON object"),
        ('{"loss": 1.0}\n', "row 1: .*whole number 'update'"),
        ("[1]\n", "row 1: .*whole number 'update'"),
    ],
)
def test_bad_metrics_name_file_and_row(tmp_path, text, complaint) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=f"metrics.jsonl.*{complaint}"):
        draw_curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_missing_file_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


@pytest.mark.parametrize("n", [1, 7, 200])
def test_calibration_of_any_number_of_episodes(tmp_path, n) -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=n)
    draw_calibration(predicted, predicted + rng.normal(size=n), "some episodes", tmp_path / "calibration.png")
    assert shape(tmp_path / "calibration.png") == (600, 600)


@pytest.mark.parametrize(
    ("predicted", "realised", "complaint"),
    [
        ([], [], "got no episode"),
        ([1.0, math.nan], [1.0, 2.0], "NaN or infinite"),
    ],
)
def test_calibration_refuses_what_it_cannot_draw(tmp_path, predicted, realised, complaint) -> None:
    with pytest.raises(DataError, match=complaint):
        draw_calibration(np.array(predicted), np.array(realised), "some episodes", tmp_path / "calibration.png")
