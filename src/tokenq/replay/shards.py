"""A replay on disk: Arrow shards of episodes, priorities, and an index.

    index.json                 format, identities, highest priority, the shards in order
    priorities.npy             float64, oldest episode first
    episodes-<identity>.arrow  up to 512 episodes, named after the first one in it

Identities 0-511 share a shard, 512-1023 the next, and so on. A shard that holds all of its 512 episodes never changes:
it is hard-linked from the previous checkpoint. Only the oldest shard (if some of its episodes have left) and the newest
are written anew, so that the bytes depend on the content of the replay alone. No pickle is written or read.
"""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from jaxtyping import Shaped

from tokenq.errors import CheckpointError, DataError
from tokenq.replay.buffer import Replay, Sampler
from tokenq.replay.links import link
from tokenq.types import Episode, ReferenceRecord

_FORMAT = 3
_SHARD = 512
_RECORD = ("logit", "logsumexp", "plausible", "plausible_logit")

# An array is stored as its bytes: the round trip is exact for every dtype, and NaN stays the same NaN.
_ARRAY = pyarrow.struct(
    [("dtype", pyarrow.string()), ("shape", pyarrow.list_(pyarrow.int64())), ("data", pyarrow.large_binary())]
)
_SCHEMA = pyarrow.schema(
    [
        ("identity", pyarrow.int64()),
        ("tokens", _ARRAY),
        ("decisions", _ARRAY),
        ("rewards", _ARRAY),
        ("terminated", pyarrow.bool_()),
        ("record", pyarrow.struct([(name, _ARRAY) for name in _RECORD])),
        ("columns", pyarrow.large_string()),
        ("source", _ARRAY),
        ("since", _ARRAY),
    ]
)


def save_replay(replay: Replay, folder: Path, previous: Path | None) -> None:
    """Writes the replay into `folder`, linking (or else copying) unchanged shards from `previous`.

    `previous` is the folder of an earlier save of the same replay, or None. Raises OSError if the disk refuses, and
    DataError if a column of an episode is no JSON value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = _whole_shards(previous) if previous is not None else {}
    episodes = replay.episodes
    shards = []
    for first, stop in _cuts(replay.first, replay.added):
        name = f"episodes-{first:012d}.arrow"
        shards.append({"file": name, "first": first, "episodes": stop - first})
        if name in whole:
            link(whole[name], folder / name)
        else:
            _write_shard(folder / name, first, episodes[first - replay.first : stop - replay.first])
    np.save(folder / "priorities.npy", replay.priorities, allow_pickle=False)
    index = {"format": _FORMAT, "added": replay.added, "highest_priority": replay.highest_priority, "shards": shards}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def load_replay(folder: Path, sampler: Sampler, capacity_episodes: int | None, capacity_tokens: int | None) -> Replay:
    """The replay that `save_replay` wrote, with the same identities; smaller capacities let the oldest episodes go.

    Raises CheckpointError if a file is missing or damaged.
    """
    replay = Replay(capacity_episodes, capacity_tokens, sampler)
    try:
        index = _read_index(folder)
        episodes = [episode for shard in index["shards"] for episode in _read_shard(folder / shard["file"])]
        priorities = np.load(folder / "priorities.npy", allow_pickle=False)
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise CheckpointError(f"{folder}: the replay cannot be read ({error}); use an older checkpoint") from error
    if len(priorities) != len(episodes):
        raise CheckpointError(
            f"{folder}: got {len(priorities)} priorities for {len(episodes)} episodes; use an older checkpoint"
        )
    replay.restore(episodes, priorities, index["highest_priority"], index["added"])
    return replay


def _cuts(first: int, stop: int) -> Iterable[tuple[int, int]]:
    """The ranges of identities, one per shard."""
    edges = [first, *range((first // _SHARD + 1) * _SHARD, stop, _SHARD), stop]
    return pairwise(edges) if first < stop else []


def _whole_shards(folder: Path) -> dict[str, Path]:
    """The shards there that can never change, by name."""
    shards = _read_index(folder)["shards"]
    return {shard["file"]: folder / shard["file"] for shard in shards if shard["episodes"] == _SHARD}


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if index["format"] != _FORMAT:
        raise ValueError(f"format {index['format']}, expected {_FORMAT}")
    return index


def _write_shard(path: Path, first: int, episodes: Iterable[Episode]) -> None:
    rows = [_to_row(identity, episode) for identity, episode in enumerate(episodes, start=first)]
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, _SCHEMA) as writer:
        writer.write_table(pyarrow.Table.from_pylist(rows, schema=_SCHEMA))


def _read_shard(path: Path) -> list[Episode]:
    with pyarrow.OSFile(str(path), "rb") as file, pyarrow.ipc.open_file(file) as reader:
        return [_to_episode(row) for row in reader.read_all().to_pylist()]


def _to_row(identity: int, episode: Episode) -> dict[str, Any]:
    record = episode.record
    try:
        columns = json.dumps(dict(episode.columns))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"columns of episode {identity}: {error}; expected JSON values; convert or drop them"
        ) from error
    return {
        "identity": identity,
        "tokens": _to_bytes(episode.tokens),
        "decisions": _to_bytes(episode.decisions),
        "rewards": _to_bytes(episode.rewards),
        "terminated": episode.terminated,
        "record": None if record is None else {name: _to_bytes(getattr(record, name)) for name in _RECORD},
        "columns": columns,
        "source": _to_bytes(episode.source),
        "since": None if episode.since is None else _to_bytes(episode.since),
    }


def _to_episode(row: dict[str, Any]) -> Episode:
    record = row["record"]
    return Episode(
        tokens=_to_array(row["tokens"]),
        decisions=_to_array(row["decisions"]),
        rewards=_to_array(row["rewards"]),
        terminated=row["terminated"],
        record=None if record is None else ReferenceRecord(**{name: _to_array(record[name]) for name in _RECORD}),
        columns=json.loads(row["columns"]),
        source=_to_array(row["source"]),
        since=None if row["since"] is None else _to_array(row["since"]),
    )


def _to_bytes(array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}


def _to_array(stored: dict[str, Any]) -> Shaped[np.ndarray, "..."]:
    # A copy, because frombuffer's view cannot be written to and torch refuses to share that.
    return np.frombuffer(stored["data"], dtype=stored["dtype"]).reshape(stored["shape"]).copy()
