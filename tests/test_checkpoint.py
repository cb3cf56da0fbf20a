import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenq.checkpoint import newest_whole, save
from tokenq.errors import CheckpointError

Writer = Callable[[Path, Path | None], None]


def writer(text: str) -> Writer:
    def write(folder: Path, previous: Path | None) -> None:
        (folder / "weights.txt").write_text(text)
        (folder / "replay").mkdir()
        (folder / "replay" / "episodes.txt").write_text(text * 2)

    return write


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_saved_checkpoint_is_found_whole(tmp_path: Path) -> None:
    folder = save(tmp_path, 100, writer("a"), keep=2)
    found, skipped = newest_whole(tmp_path)
    assert found is not None and (found.folder, found.update, skipped) == (folder, 100, [])
    assert names(tmp_path) == ["step-00000100"]
    assert (folder / "replay" / "episodes.txt").read_text() == "aa"


def test_nothing_to_find(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "absent") == (None, [])


def test_only_the_newest_are_kept_and_the_writer_sees_the_one_before(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def write(folder: Path, previous: Path | None) -> None:
        seen.append(previous.name if previous else None)
        (folder / "x").write_text("x")

    for update in (1, 2, 3, 100_000_000):
        save(tmp_path, update, write, keep=2)
    assert seen == [None, "step-00000001", "step-00000002", "step-00000003"]
    assert names(tmp_path) == ["step-00000003", "step-100000000"]


def test_the_same_update_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1, writer("old"), keep=2)
    save(tmp_path, 1, writer("new"), keep=2)
    found, _ = newest_whole(tmp_path)
    assert found is not None and (found.folder / "weights.txt").read_text() == "new"
    assert names(tmp_path) == ["step-00000001"]


def test_a_later_whole_checkpoint_is_never_overruled(tmp_path: Path) -> None:
    save(tmp_path, 9, writer("a"), keep=2)
    with pytest.raises(CheckpointError, match=r"already holds step-00000009, later than step-00000003"):
        save(tmp_path, 3, writer("b"), keep=2)
    assert names(tmp_path) == ["step-00000009"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, Path.unlink])
@pytest.mark.parametrize("name", ["weights.txt", "replay/episodes.txt", "manifest.json"])
def test_any_damaged_file_falls_back_to_the_checkpoint_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 1, writer("abc"), keep=2)
    damage(save(tmp_path, 2, writer("def"), keep=2) / name)
    found, skipped = newest_whole(tmp_path)
    assert found is not None and found.update == 1
    assert len(skipped) == 1 and skipped[0].startswith("step-00000002: ")
    if (name, damage) != ("manifest.json", flipped):  # which of its promises is altered is chance
        assert Path(name).name in skipped[0]


def test_a_damaged_checkpoint_does_not_count_among_the_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, writer("a"), keep=2)
    emptied(save(tmp_path, 9, writer("b"), keep=2) / "weights.txt")
    save(tmp_path, 5, writer("c"), keep=2)
    assert names(tmp_path) == ["step-00000001", "step-00000005"]


@pytest.mark.parametrize("manifest", ["[]", "null", '{"format": 1}', '{"format": 1, "update": 1, "files": [1]}'])
def test_a_manifest_of_another_shape_is_damage(tmp_path: Path, manifest: str) -> None:
    (save(tmp_path, 1, writer("a"), keep=2) / "manifest.json").write_text(manifest)
    assert newest_whole(tmp_path) == (None, ["step-00000001: manifest.json is damaged"])


def test_another_format_and_a_renamed_folder_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1, writer("a"), keep=2)
    folder = folder.rename(tmp_path / "step-00000007")
    assert newest_whole(tmp_path)[1] == ["step-00000007: was saved at update 1"]
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    assert newest_whole(tmp_path)[1] == ["step-00000007: has format 99, this version reads format 1"]


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path: Path) -> None:
    save(tmp_path, 1, writer("a"), keep=2)

    def write(folder: Path, previous: Path | None) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match=r"No space left on device.*step-00000001 is whole"):
        save(tmp_path, 2, write, keep=2)
    assert names(tmp_path) == ["step-00000001"]
    found, skipped = newest_whole(tmp_path)
    assert found is not None and found.update == 1 and skipped == []


def test_a_faulty_writer_is_not_disguised_as_a_disk_error(tmp_path: Path) -> None:
    def write(folder: Path, previous: Path | None) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        save(tmp_path, 1, write, keep=2)
    assert names(tmp_path) == []


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got 0"):
        save(tmp_path, 1, writer("a"), keep=0)


KILLED = """
import os, signal, sys
from pathlib import Path
from tokenq.checkpoint import save

def write(folder, previous):
    (folder / "weights.txt").write_text("half")
    if previous:
        os.kill(os.getpid(), signal.SIGKILL)

for update in (1, 2):
    save(Path(sys.argv[1]), update, write, keep=2)
"""


def test_a_kill_in_the_middle_of_a_save_costs_only_that_save(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".tmp-step-00000002", "step-00000001"]
    found, skipped = newest_whole(tmp_path)
    assert found is not None and found.update == 1 and skipped == []
    save(tmp_path, 2, writer("b"), keep=2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_hard_links_from_the_checkpoint_before_survive_its_removal(tmp_path: Path) -> None:
    def write(folder: Path, previous: Path | None) -> None:
        if previous:
            (folder / "shard").hardlink_to(previous / "shard")
        else:
            (folder / "shard").write_text("sealed")

    for update in (1, 2, 3):
        save(tmp_path, update, write, keep=1)
    found, _ = newest_whole(tmp_path)
    assert found is not None and found.update == 3 and (found.folder / "shard").read_text() == "sealed"
