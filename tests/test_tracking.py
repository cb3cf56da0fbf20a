"""Rows in the metrics file and lines on the screen."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from tokenq.errors import CheckpointError
from tokenq.tracking import MetricsFile, Progress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rows_have_a_fixed_order_and_exact_floats(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as file:
        file.write({"td_abs": 0.1 + 0.2, "loss": 1e-7, "phase": "online", "update": 3})
    assert path.read_text() == '{"update": 3, "phase": "online", "loss": 1e-07, "td_abs": 0.30000000000000004}\n'


def test_nan_infinity_and_none_become_null_and_keep_their_key(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as file:
        file.write({"a": math.nan, "b": math.inf, "c": None, "d": np.float32("nan")})
    assert path.read_text() == '{"a": null, "b": null, "c": null, "d": null}\n'


def test_numpy_numbers_are_written_as_numbers(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as file:
        file.write({"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.25)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": 3, "c": 0.25}


def test_a_resumed_file_equals_an_unbroken_one(tmp_path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    rows = [{"update": i, "loss": 1 / (i + 3)} for i in range(5)]
    with MetricsFile(whole) as file:
        for row in rows:
            file.write(row)
    with MetricsFile(broken) as file:
        file.write(rows[0])
        file.write(rows[1])
        offset = file.offset
        file.write({"update": 2, "loss": math.inf, "note": "lost in the crash"})
    with MetricsFile(broken, offset) as file:
        assert file.offset == offset
        for row in rows[2:]:
            file.write(row)
    assert broken.read_bytes() == whole.read_bytes()


def test_a_fresh_file_forgets_what_was_there(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    with MetricsFile(path) as file:
        assert file.offset == 0
    assert path.read_text() == ""


@pytest.mark.parametrize("content", [None, "short\n"])
def test_a_file_shorter_than_the_checkpoint_says_is_an_error(tmp_path, content) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match="expected at least the 10"):
        MetricsFile(path, 10)


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as file:
        file.write({"update": 1})
        assert path.read_text() == '{"update": 1}\n'


def test_plain_lines_when_nobody_watches() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(total=40, done=10, console=Console(file=stream), clock=clock) as progress:
        clock.now += 2.0
        progress.advance(19)
        progress.report({"update": 20, "reward": 0.51234567, "kl": 3, "loss": None, "phase": "online", "q_max": 9.0})
        progress.say("saved [step-20]")
    assert stream.getvalue() == "update 20/40  reward 0.5123  KL 3  5 updates/s\nsaved [step-20]\n"


def test_a_line_is_never_wrapped() -> None:
    stream = io.StringIO()
    with Progress(total=4, console=Console(file=stream), clock=Clock()) as progress:
        progress.say("word " * 100)
    assert stream.getvalue().count("\n") == 1


def test_a_bar_on_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(total=40, console=Console(file=stream, force_terminal=True, width=120), clock=clock) as progress:
        clock.now += 2.0
        progress.report({"update": 20, "reward": 0.75})
        progress.advance(40)
    shown = stream.getvalue()
    assert "40/40" in shown
    assert "reward 0.75" in shown
    assert "update 20/40" not in shown
