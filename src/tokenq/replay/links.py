"""Files that a checkpoint shares with the one before it."""

import os
import shutil
from pathlib import Path


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        # Not every file system can; a copy costs space and nothing else.
        shutil.copyfile(source, target)
