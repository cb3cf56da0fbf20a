import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.errors import CheckpointError, DataError
from tokenq.replay.buffer import Replay
from tokenq.replay.samplers import Prioritised, Uniform
from tokenq.replay.shards import load_replay, save_replay
from tokenq.types import Episode


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _assert_same_episode(left: Episode, right: Episode) -> None:
    assert all(_same(getattr(left, name), getattr(right, name)) for name in ("tokens", "decisions", "rewards"))
    assert left.terminated == right.terminated
    assert left.columns == right.columns
    assert (left.record is None) == (right.record is None)
    if left.record is not None:
        assert all(_same(array, getattr(right.record, name)) for name, array in vars(left.record).items())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40)
@given(data=st.data(), capacity=st.integers(1, 5))
def test_round_trip_is_exact(any_episode, tmp_path_factory, data: st.DataObject, capacity: int) -> None:
    folder = tmp_path_factory.mktemp("replay")
    replay = Replay(capacity, None, Prioritised())
    replay.add(data.draw(st.lists(any_episode, max_size=7)))
    priorities = data.draw(st.lists(st.floats(0, 9), min_size=len(replay), max_size=len(replay)))
    replay.set_priorities(np.arange(replay.first, replay.added), np.array(priorities))
    save_replay(replay, folder / "a", None)
    save_replay(replay, folder / "b", None)
    assert _bytes(folder / "a") == _bytes(folder / "b")
    loaded = load_replay(folder / "a", Prioritised(), capacity, None)
    for name in ("added", "first", "tokens", "highest_priority"):
        assert getattr(loaded, name) == getattr(replay, name)
    assert _same(loaded.priorities, replay.priorities)
    for left, right in zip(replay.episodes, loaded.episodes, strict=True):
        _assert_same_episode(left, right)


def test_a_loaded_replay_goes_on_like_the_first(make_episode, tmp_path: Path) -> None:
    replay = Replay(4, None, Prioritised())
    replay.add([make_episode([i, i]) for i in range(6)])
    replay.set_priorities(np.array([4]), np.array([7.0]))
    save_replay(replay, tmp_path, None)
    loaded = load_replay(tmp_path, Prioritised(), 4, None)
    for each in (replay, loaded):
        assert each.add([make_episode([9, 9])]) == [6]
    first, second = (each.sample(3, np.random.default_rng(1), 5) for each in (replay, loaded))
    np.testing.assert_array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.weight, second.weight)
    asked = [make_episode([5, 5])], np.array([[5]]), np.array([[True]])
    assert loaded.unseen_share(*asked) == replay.unseen_share(*asked) == 0.0


def test_whole_shards_are_linked_and_others_written_anew(make_episode, tmp_path: Path) -> None:
    replay = Replay(1200, None, Uniform())
    episode = make_episode([1, 2])
    replay.add([episode] * 1100)
    save_replay(replay, tmp_path / "1", None)
    names = ["episodes-000000000000.arrow", "episodes-000000000512.arrow", "episodes-000000001024.arrow"]
    assert sorted(_bytes(tmp_path / "1")) == [*names, "index.json", "priorities.npy"]
    replay.add([episode] * 300)
    save_replay(replay, tmp_path / "2", tmp_path / "1")
    # The first 200 episodes have left: the oldest shard starts at 200 now, the second one is whole and the same file.
    assert sorted(_bytes(tmp_path / "2"))[:3] == ["episodes-000000000200.arrow", *names[1:]]
    assert [os.path.samefile(tmp_path / "1" / name, tmp_path / "2" / name) for name in names[1:]] == [True, False]
    save_replay(replay, tmp_path / "fresh", None)
    assert _bytes(tmp_path / "2") == _bytes(tmp_path / "fresh")
    assert [len(replay), 1400, 200] == [
        len(load_replay(tmp_path / "2", Uniform(), 1200, None)),
        replay.added,
        replay.first,
    ]


def test_a_smaller_capacity_lets_the_oldest_go(make_episode, tmp_path: Path) -> None:
    replay = Replay(None, None, Uniform())
    replay.add([make_episode([i, i]) for i in range(6)])
    save_replay(replay, tmp_path, None)
    loaded = load_replay(tmp_path, Uniform(), 2, None)
    assert (loaded.first, loaded.added, [e.tokens[0] for e in loaded.episodes]) == (4, 6, [4, 5])


@pytest.mark.parametrize("name", ["index.json", "priorities.npy", "episodes-000000000000.arrow"])
def test_a_missing_or_cut_file_is_an_error(make_episode, tmp_path: Path, name: str) -> None:
    replay = Replay(None, None, Uniform())
    replay.add([make_episode([1, 2])])
    save_replay(replay, tmp_path, None)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="use an older checkpoint"):
        load_replay(tmp_path, Uniform(), None, None)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="use an older checkpoint"):
        load_replay(tmp_path, Uniform(), None, None)


def test_columns_that_are_no_json_are_refused(tmp_path: Path) -> None:
    episode = Episode(np.array([1, 2]), np.array([1]), np.array([1.0]), True, columns={"when": {1, 2}})
    replay = Replay(None, None, Uniform())
    replay.add([episode])
    with pytest.raises(DataError, match=r"columns of episode 0: .*expected JSON values"):
        save_replay(replay, tmp_path, None)
