"""The shapes that travel: an episode (token time) or steps (environment time), and a batch (decision time).

Letters in shapes: L tokens, E tokens of a source, N decisions, S = N + 1 decision states, k plausible tokens, B
episodes in a batch, R texts that they are read from, M environments.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tokenq.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class ReferenceRecord:
    """What the frozen reference model said along one episode, computed once, when the episode enters the replay.

    `logit` is the reference's raw logit of each action, `logsumexp` the log-sum-exp of its logits at every state
    (the last entry belongs to s_N), `plausible` its k most probable tokens per state with their raw logits
    (k = 0 when no objective asks for them).
    """

    logit: Float[np.ndarray, "N"]
    logsumexp: Float[np.ndarray, "S"]
    plausible: Int[np.ndarray, "S k"]
    plausible_logit: Float[np.ndarray, "S k"]


@dataclass(frozen=True, eq=False)
class Episode:
    """One text with its decisions and rewards.

    `decisions` are the positions in `tokens` that the policy chose, in increasing order and never 0; the others are
    prompt or environment tokens. `rewards` holds one number per decision, NaN where nobody rated (never 0 instead).
    `terminated` is true if the episode ended by itself and false if it was cut off: the latter bootstraps from s_N.
    `columns` carries what the user gave along with the text (JSON values only). `source` is what an encoder reads
    before the first decision, empty for a model without one; `tokens` is then what the decoder reads and writes.
    `since` says from which token on each state is read, where a policy forgets what lies further back: non-decreasing,
    one for each of the N + 1 states. None: all from the first token on.
    """

    tokens: Int[np.ndarray, "L"]
    decisions: Int[np.ndarray, "N"]
    rewards: Float[np.ndarray, "N"]
    terminated: bool
    record: ReferenceRecord | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    source: Int[np.ndarray, "E"] = field(default_factory=lambda: np.empty(0, np.int64))
    since: Int[np.ndarray, "S"] | None = None

    def __post_init__(self) -> None:
        n = len(self.decisions)
        if n == 0:
            raise DataError("an episode needs at least one decision, got none")
        if len(self.rewards) != n:
            raise DataError(f"an episode of {n} decisions needs {n} rewards, got {len(self.rewards)}")
        if self.decisions[0] < 1 or self.decisions[-1] >= len(self.tokens) or (np.diff(self.decisions) < 1).any():
            raise DataError(
                f"decisions must be increasing positions in 1..{len(self.tokens) - 1}, got {self.decisions}"
            )
        if np.isinf(self.rewards).any():
            raise DataError(f"rewards must be finite, or NaN for unrated, got {self.rewards}")
        if self.since is not None and ((np.diff(self.since) < 0).any() or (self.since > self.states).any()):
            raise DataError(f"states must be read from non-decreasing positions before them, got {self.since}")

    @property
    def actions(self) -> Int[np.ndarray, "N"]:
        """The token chosen at each decision."""
        actions: np.ndarray = self.tokens[self.decisions]
        return actions

    @property
    def states(self) -> Int[np.ndarray, "S"]:
        """The position whose hidden state each decision was taken in; the last one is s_N, after everything."""
        return np.append(self.decisions - 1, len(self.tokens) - 1)

    @property
    def starts(self) -> Int[np.ndarray, "S"]:
        """From which token on each state is read."""
        return np.zeros_like(self.states) if self.since is None else self.since

    @property
    def readings(self) -> list[slice]:
        """The stretches of `tokens` that the states are read from: one, unless the policy forgets."""
        if self.since is None:
            return [slice(0, len(self.tokens))]
        states, starts = self.states, self.starts
        return [slice(int(start), int(states[starts == start][-1]) + 1) for start in np.unique(starts)]

    @property
    def reading_of_state(self) -> Int[np.ndarray, "S"]:
        """In which of the `readings` each state is read."""
        starts = self.starts
        return starts if self.since is None else np.unique(starts, return_inverse=True)[1]

    @property
    def closes(self) -> Bool[np.ndarray, "N"]:
        """Which decisions are the last of a turn: those that no further decision follows immediately."""
        return np.append(np.diff(self.decisions) > 1, True)

    def __len__(self) -> int:
        """Number of tokens, those of the source included."""
        return len(self.source) + len(self.tokens)

    @property
    def total_reward(self) -> float:
        """The undiscounted sum of the rated rewards; NaN if nothing was rated."""
        return float(np.nan if np.isnan(self.rewards).all() else np.nansum(self.rewards))

    def with_record(self, record: ReferenceRecord) -> "Episode":
        """The same carrying the reference's record."""
        return replace(self, record=record)


@dataclass(frozen=True)
class Spaces:
    """What an agent's network reads and answers.

    `shape` is that of one observation, `states` how many there are if they are discrete. `heads` holds the number of
    choices of each part of an action: one number for a plain discrete action.
    """

    shape: tuple[int, ...]
    states: int | None
    heads: tuple[int, ...]

    @property
    def actions(self) -> int:
        """How many actions there are in all."""
        return math.prod(self.heads)


@dataclass(frozen=True, eq=False)
class Steps:
    """One step of every environment. `after` is what it led to, also where the episode ended there."""

    before: Shaped[np.ndarray, "M *shape"]
    actions: Int[np.ndarray, "M"]
    rewards: Float[np.ndarray, "M"]
    after: Shaped[np.ndarray, "M *shape"]
    terminated: Bool[np.ndarray, "M"]
    truncated: Bool[np.ndarray, "M"]

    @property
    def ended(self) -> Bool[np.ndarray, "M"]:
        """Which episodes are over, in either way."""
        ended: np.ndarray = self.terminated | self.truncated
        return ended


@dataclass(frozen=True, eq=False)
class Texts:
    """What a language model reads: padded texts, and in which of them, and where, decisions were taken.

    State (b, n) is read in row `rows[b, n]` of `tokens`, at position `states[b, n]`; R is B, or more where a policy
    forgets. Column n+1 of n+1 decisions is s_N, further columns are padding. `source` is what an encoder reads.
    """

    tokens: Int[Tensor, "R L"]
    attention: Int[Tensor, "R L"]
    states: Int[Tensor, "B S"]
    rows: Int[Tensor, "B S"]
    source: Int[Tensor, "R E"]
    source_attention: Int[Tensor, "R E"]

    @classmethod
    def of(cls, episodes: Sequence[Episode], pad_token: int) -> "Texts":
        """The texts of episodes, padded on the right, on the CPU."""
        readings = [episode.readings for episode in episodes]
        read = [(episode, stretch) for episode, parts in zip(episodes, readings, strict=True) for stretch in parts]
        first = np.cumsum([0, *map(len, readings)])
        rows = [n + episode.reading_of_state for n, episode in zip(first[:-1], episodes, strict=True)]
        return cls(
            tokens=padded([episode.tokens[stretch] for episode, stretch in read], torch.int64, pad_token),
            attention=padded([np.ones(stretch.stop - stretch.start) for _, stretch in read], torch.int64),
            states=padded([episode.states - episode.starts for episode in episodes], torch.int64),
            # Later states are never read in an earlier row, so that the padding becomes each episode's last row.
            rows=padded(rows, torch.int64).cummax(1).values,
            source=padded([episode.source for episode, _ in read], torch.int64, pad_token),
            source_attention=padded([np.ones(len(episode.source)) for episode, _ in read], torch.int64),
        )


def padded(rows: Sequence[Shaped[np.ndarray, "..."]], dtype: torch.dtype, fill: int = 0) -> Shaped[Tensor, "..."]:
    """Rows of different length along a new first axis, padded on the right; further axes must agree."""
    lengths = np.array([len(row) for row in rows])
    there = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    out = torch.full((*there.shape, *rows[0].shape[1:]), fill, dtype=dtype)
    out[there] = torch.as_tensor(np.concatenate(rows), dtype=dtype)
    return out


@dataclass(frozen=True, eq=False)
class Observations:
    """What the network of a control task reads: the observation before a step, and the one n steps later.

    `ended` says after which steps the episode is over, in either way: the next step of the sequence then belongs to
    another one. It may be None for sequences of one step, which nothing follows.
    """

    before: Shaped[Tensor, "B N *shape"]
    after: Shaped[Tensor, "B N *shape"]
    ended: Bool[Tensor, "B N"] | None = None


@dataclass(frozen=True, eq=False)
class References:
    """The records of a batch's episodes, padded: see `ReferenceRecord`."""

    logit: Float[Tensor, "B N"]
    logsumexp: Float[Tensor, "B S"]
    plausible: Int[Tensor, "B S k"]
    plausible_logit: Float[Tensor, "B S k"]

    @property
    def plausible_probability(self) -> Float[Tensor, "B S k"]:
        """How probable the reference finds its k most plausible tokens."""
        return (self.plausible_logit - self.logsumexp.unsqueeze(-1)).exp()


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded decisions: what every objective sees. The step of a control task is an episode of one decision.

    `continues` is 1 if the episode goes on after decision n or was truncated there and 0 if it terminated; where n
    steps are one, it also holds the discounts within them. `decided` marks real decisions, `rated` the real decisions
    whose reward is known. `weight` is the importance weight of each episode and `index` its identity in the replay.
    `time` is how much time each decision takes on a clock of turns: 1 where one ends, 0 within; None: always 1.
    """

    inputs: Texts | Observations
    actions: Int[Tensor, "B N"]
    rewards: Float[Tensor, "B N"]
    continues: Float[Tensor, "B N"]
    decided: Bool[Tensor, "B N"]
    rated: Bool[Tensor, "B N"]
    weight: Float[Tensor, "B"]
    index: Int[Tensor, "B"]
    record: References | None = None
    time: Float[Tensor, "B N"] | None = None

    def discounts(self, gamma: float) -> Float[Tensor, "B N"]:
        """What the value after each decision is worth at it: γ to the power of the time it takes, 0 at an end."""
        return self.continues * (gamma if self.time is None else gamma**self.time)

    @property
    def valid(self) -> Bool[Tensor, "B S"]:
        """Which states are real: the first, and each one that follows a real decision."""
        return torch.cat([self.decided.new_ones(len(self.decided), 1), self.decided], dim=1)

    @property
    def texts(self) -> Texts:
        """The inputs of a language model."""
        if not isinstance(self.inputs, Texts):
            raise DataError("got a batch of observations for a language model, expected texts")
        return self.inputs

    @property
    def observations(self) -> Observations:
        """The inputs of a control network."""
        if not isinstance(self.inputs, Observations):
            raise DataError("got a batch of texts for a network of observations; it is of another kind of run")
        return self.inputs

    @property
    def reference(self) -> References:
        """What the reference model said; raises `ConfigError` where there is none."""
        if self.record is None:
            raise ConfigError("values: got calibrated values where there is no reference model; set values to raw")
        return self.record

    @property
    def following(self) -> "Batch":
        """The same decisions, with the reference's record of the states after them alone: N states instead of S."""
        if self.record is None:
            return self
        after = {name: tensor[:, 1:] for name, tensor in vars(self.record).items() if name != "logit"}
        return replace(self, record=replace(self.record, **after))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor replaced by `function` of it."""

        def inside(part: Any) -> Any:
            if part is None or isinstance(part, Tensor):
                return None if part is None else function(part)
            return type(part)(**{name: inside(value) for name, value in vars(part).items()})

        mapped: Batch = inside(self)
        return mapped

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return self if self.index.device == device else self.map(lambda tensor: tensor.to(device))
