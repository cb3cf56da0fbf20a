"""Games: what is seen, when an episode ends, what is rewarded, and that a resumed game goes on."""

import numpy as np
import pytest

from tokenq.envs.atari import Atari
from tokenq.envs.control import Environments
from tokenq.errors import ConfigError

pytest.importorskip("ale_py", reason="needs ale-py (pip install 'tokenq[atari]')")

BREAKOUT = Atari("ALE/Breakout-v5", {"repeat_action_probability": 0.0})


def played(environments: Environments, steps: int) -> dict[str, list[np.ndarray]]:
    """What random actions led to."""
    rng = np.random.default_rng(0)
    rows = [environments.step(rng.integers(4, size=environments.number)) for _ in range(steps)]
    return {name: [getattr(row, name) for row in rows] for name in ("before", "after", "rewards", "terminated")}


def test_a_game_is_seen_as_small_grey_frames() -> None:
    games = Atari().make(2, 0)
    assert games.spaces.shape == (4, 84, 84) and games.spaces.actions == 6 and games.observations.dtype == np.uint8
    assert (games.observations[0, 0] == games.observations[0, 3]).all()
    both = [games.step(np.full(2, 2)).after for _ in range(40)][-1]
    assert (both[0] != both[1]).any() and (both[0, 0] != both[0, 3]).any(), "no-ops and seeds differ"


def test_a_lost_life_ends_an_episode_but_not_the_game() -> None:
    games = BREAKOUT.make(1, 0)
    history = played(games, 90)
    ends = np.flatnonzero(np.array(history["terminated"])[:, 0])
    assert len(ends) >= 2 and games.episodes == [0] and len(games.taken[0]) == 90
    # The next episode begins where the last one led to, and remembers nothing of it.
    first = history["before"][ends[0] + 1][0]
    assert (first == history["after"][ends[0]][0, -1]).all()
    assert not (history["after"][ends[0]][0, 0] == first[0]).all()
    whole = BREAKOUT.evaluation.make(1, 0)
    assert (
        not np.any(played(whole, 90)["terminated"]) and (whole.observations[0, -1] == games.observations[0, -1]).all()
    )


def test_rewards_are_clipped_in_training_only() -> None:
    def points(game: Atari) -> set[float]:
        return {float(r) for r in np.unique(played(game.make(1, 0), 100)["rewards"])}

    # A pellet counts 10.
    pacman = Atari("ALE/MsPacman-v5")
    assert points(pacman) == {0.0, 1.0} and points(pacman.evaluation) == {0.0, 10.0}


def test_a_resumed_game_goes_on_as_if_nothing_had_happened() -> None:
    unbroken, resumed = Atari("ALE/Breakout-v5").make(2, 0), Atari("ALE/Breakout-v5").make(2, 0)
    played(unbroken, 60)
    resumed.restore(unbroken.state())
    assert (unbroken.observations == resumed.observations).all()
    ours, theirs = played(unbroken, 20), played(resumed, 20)
    assert all((np.array(ours[name]) == np.array(theirs[name])).all() for name in ours)


def test_a_game_is_cut_off() -> None:
    games = Atari(max_episode_steps=20, no_ops=0, fire=False).make(1, 0)
    steps = [games.step(np.zeros(1, np.int64)) for _ in range(21)]
    assert [step.truncated[0] for step in steps].index(True) == 19 and not any(step.terminated[0] for step in steps)


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="no_ops: got -1, expected an integer >= 0"):
        Atari(no_ops=-1)
    with pytest.raises(ConfigError, match=r"got ALE/Pung-v5 .*Pong"):
        Atari("ALE/Pung-v5").make(1, 0)
    with pytest.raises(ConfigError, match="Disable frame-skipping"):
        Atari(kwargs={"frameskip": 4}).make(1, 0)
