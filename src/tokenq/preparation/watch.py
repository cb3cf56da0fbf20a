"""A progress bar for the steps that take long, on a terminal only."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def watched(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a bar on standard error that leaves when they are through; nothing where that is a file."""
    console = Console(stderr=True)
    yield from track(items, what, console=console, transient=True, disable=not console.is_terminal)
