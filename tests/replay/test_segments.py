"""An agent's steps on disk: what is written, what is linked, what comes back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tokenq.errors import CheckpointError
from tokenq.replay.segments import load_steps, save_steps
from tokenq.replay.transitions import Transitions
from tokenq.types import Steps


def add(replay: Transitions, times: range) -> None:
    """Two environments; every seventh step ends the episode of the second one."""
    for t in times:
        ended = np.array([False, t % 7 == 6])
        before, after = (np.full((2, 3, 1), x, np.float32) + np.arange(-2, 1)[:, None] for x in (t, t + 1))
        replay.add(
            Steps(before, np.array([t, t]) % 5, np.array([t, -t], np.float32), after, ended, np.array([False] * 2))
        )


def names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".zst") for path in folder.iterdir())


def test_full_segments_are_linked_and_the_rest_is_written(tmp_path: Path) -> None:
    replay = Transitions(2 * 20, frames=3)
    add(replay, range(13))
    save_steps(replay, tmp_path / "a", None, length=5)
    assert names(tmp_path / "a") == [f"steps-{a:012d}-{b:012d}" for a, b in ((0, 5), (5, 10), (10, 13))]
    add(replay, range(13, 30))
    save_steps(replay, tmp_path / "b", tmp_path / "a", length=5)
    # Twenty times and two for stacks are kept: 8 to 29. A segment stays whole until all of it has left.
    ends = ((5, 10), (10, 15), (15, 20), (20, 25), (25, 30))
    assert names(tmp_path / "b") == [f"steps-{a:012d}-{b:012d}" for a, b in ends]
    shared = {path.name for path in (tmp_path / "b").iterdir() if path.stat().st_nlink == 2}
    assert shared == {f"steps-{5:012d}-{10:012d}.zst"}
    other = Transitions(2 * 20, frames=3)
    other.restore(replay.head() | {"steps": load_steps(tmp_path / "b")})
    ours, theirs = replay.at(np.arange(20, 60)), other.at(np.arange(20, 60))
    assert torch.equal(ours.observations.before, theirs.observations.before)
    assert torch.equal(ours.observations.after, theirs.observations.after)
    assert torch.equal(ours.rewards, theirs.rewards) and torch.equal(ours.continues, theirs.continues)
    # What goes on from there is the same, too.
    for one in (replay, other):
        add(one, range(30, 41))
    assert torch.equal(replay.at(np.arange(62, 82)).observations.after, other.at(np.arange(62, 82)).observations.after)


def test_an_empty_replay_leaves_no_file(tmp_path: Path) -> None:
    save_steps(Transitions(9), tmp_path / "a", None)
    assert names(tmp_path / "a") == []
    other = Transitions(9)
    other.restore(Transitions(9).head() | {"steps": load_steps(tmp_path / "a")})
    assert len(other) == 0


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    replay = Transitions(20, frames=3)
    add(replay, range(3))
    save_steps(replay, tmp_path / "a", None)
    (tmp_path / "a" / f"steps-{0:012d}-{3:012d}.zst").write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match=r"steps-0+-0+3\.zst: the steps cannot be read"):
        list(load_steps(tmp_path / "a"))
