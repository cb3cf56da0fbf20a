"""Where numbers go while a run trains: a file for later and a line for whoever watches."""

import json
import math
import time
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, SupportsFloat

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from tokenq.errors import CheckpointError

Row = Mapping[str, SupportsFloat | str | None]
"""The metrics of one report by name; None where a metric has no value, which is not 0."""

# What a person wants to see of a row, in this order, with the name on the screen.
_SHOWN = {
    "reward": "reward",
    "eval_reward": "eval reward",
    "return": "return",
    "eval_return": "eval return",
    "kl": "KL",
    "loss": "loss",
    "validation_loss": "validation loss",
}
_FIRST_KEYS = ("update", "phase")


class MetricsFile:
    """An append-only JSONL file with one row per report, the same bytes for the same numbers.

    `update` and `phase` come first, other keys in alphabetical order, floats in their shortest exact form, NaN and
    infinity as null. Wall-clock values have no place in it: a resumed run must write what an unbroken one writes.

    Args:
        path: The file; its folder must exist.
        offset: None starts an empty file. A number of bytes continues a run: what comes after it is cut off.

    Raises:
        CheckpointError: The file is missing or shorter than `offset`.
    """

    def __init__(self, path: Path, offset: int | None = None) -> None:
        start = 0 if offset is None else offset
        size = path.stat().st_size if path.exists() else 0
        if size < start:
            raise CheckpointError(
                f"{path}: got {size} bytes, expected at least the {start} that the checkpoint counted; "
                "put the file back or start a new run in another folder"
            )
        self._file: BinaryIO = path.open("r+b" if start else "wb")
        self._file.truncate(start)
        self._file.seek(start)

    @property
    def offset(self) -> int:
        """Bytes written so far: what a checkpoint stores in order to continue here."""
        return self._file.tell()

    def write(self, row: Row) -> None:
        """Append one row and hand it to the operating system at once."""
        keys = [key for key in _FIRST_KEYS if key in row] + sorted(row.keys() - set(_FIRST_KEYS))
        line = json.dumps({key: _plain(row[key]) for key in keys}, allow_nan=False, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        self._file.close()


class Progress:
    """Shows how a run is going: a bar on a terminal, plain lines otherwise.

    Args:
        total: The last update of the run.
        done: Updates done already, when a run is resumed.
        console: Where to write; None means standard error.
        clock: Seconds from any origin, for the rate.
    """

    def __init__(
        self, total: int, done: int = 0, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._start = self._update = done
        self._clock = clock
        self._began = clock()
        self._figures = ""
        self._console = Console(stderr=True) if console is None else console
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> "Progress":
        self._began = self._clock()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, update: int) -> None:
        """Note that this update is done; moves the bar and writes no line."""
        self._update = update
        self._bar.update(self._task, completed=update, description=f"{self._figures}{self._rate()}")

    def report(self, row: Row) -> None:
        """Show reward, KL and loss of one row of metrics, as far as it has them, and the rate since the start."""
        shown = [(label, row.get(key)) for key, label in _SHOWN.items()]
        self._figures = "".join(f"{label} {value:.4g}  " for label, value in shown if isinstance(value, Real))
        update = row.get("update")
        self.advance(int(update) if isinstance(update, Integral) else self._update)
        if not self._console.is_terminal:
            self.say(f"update {self._update}/{self._total}  {self._figures}{self._rate()}")

    def say(self, text: str) -> None:
        """Write a line that stays, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _rate(self) -> str:
        seconds = self._clock() - self._began
        return f"{(self._update - self._start) / seconds:.3g} updates/s" if seconds > 0 else ""


def _plain(value: SupportsFloat | str | None) -> float | int | str | None:
    """A JSON value equal to the number; NumPy's numbers become Python's."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
