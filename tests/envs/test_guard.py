"""Environments that raise, hang or answer wrongly, as real ones do."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tokenq.envs.guard import Guarded
from tokenq.envs.maze import Maze
from tokenq.envs.text import Answer, Observed, mean_return, play
from tokenq.errors import ConfigError, DataError


class Echo:
    """Repeats an action, unless `trouble` makes something of it; three turns."""

    def __init__(self, trouble: Callable[[str], Any] = lambda action: None) -> None:
        self.trouble, self.turns = trouble, 0

    def reset(self, *, seed: int | None = None, **row: Any) -> Observed:
        self.turns = 0
        self.trouble(row.get("word", ""))
        return "begin", {}

    def step(self, action: str) -> Answer:
        self.turns += 1
        reward = self.trouble(action)
        return action, 1.0 if reward is None else reward, self.turns == 3, False, {}


class Says:
    def __init__(self, *words: str) -> None:
        self.words = words

    def act(self, environment: Any, rng: np.random.Generator) -> str:
        return self.words[int(rng.integers(len(self.words)))]


def raising(action: str) -> None:
    if action == "boom":
        raise ValueError("cannot boom")


@contextmanager
def hanging() -> Iterator[Callable[[str], None]]:
    """A trouble that lasts until the test is over."""
    over = threading.Event()

    def wait(action: str) -> None:
        if action == "hang":
            over.wait(30)

    try:
        yield wait
    finally:
        over.set()


def test_without_trouble_a_guard_changes_nothing() -> None:
    for seed in range(2):
        assert play(Guarded(Maze().make), Says("move up", "move down"), seed) == play(
            Maze().make(), Says("move up", "move down"), seed
        )


def test_an_exception_truncates_the_game_and_is_counted() -> None:
    guarded = Guarded(lambda: Echo(raising))
    guarded.reset()
    assert guarded.step("fine") == ("fine", 1.0, False, False, {})
    assert guarded.step("boom") == ("", 0.0, False, True, {"failed": "step: ValueError: cannot boom"})
    assert guarded.failures == 1
    with pytest.raises(DataError, match="no game is on"):
        guarded.step("fine")
    assert guarded.reset() == ("begin", {}) and guarded.step("again")[0] == "again" and guarded.failures == 1


def test_a_hanging_step_is_left_behind_and_the_next_game_has_another_environment() -> None:
    made = []

    with hanging() as trouble:

        def make() -> Echo:
            made.append(Echo(trouble))
            return made[-1]

        guarded = Guarded(make, seconds=0.05)
        guarded.reset()
        assert guarded.step("hang")[2:] == (False, True, {"failed": "step: no answer within 0.05 seconds"})
        assert guarded.reset() == ("begin", {}) and guarded.step("on")[0] == "on"
        assert guarded.failures == 1 and len(made) == 2


def test_a_failed_reset_says_so_at_the_first_step() -> None:
    guarded = Guarded(lambda: Echo(raising))
    failed = {"failed": "reset: ValueError: cannot boom"}
    assert guarded.reset(word="boom") == ("", failed)
    assert guarded.step("fine") == ("", 0.0, False, True, failed)
    assert guarded.reset() == ("begin", {}) and guarded.failures == 1


def test_an_environment_that_cannot_be_made_fails_and_its_maker_is_asked_again() -> None:
    def make() -> Echo:
        raise OSError("no such game")

    guarded = Guarded(make)
    assert guarded.reset()[1] == {"failed": "reset: OSError: no such game"}
    assert guarded.reset()[1] == {"failed": "reset: OSError: no such game"} and guarded.failures == 2


@pytest.mark.parametrize("reward", [math.nan, math.inf, "much"])
def test_an_answer_that_is_none_fails(reward: Any) -> None:
    guarded = Guarded(lambda: Echo(lambda action: reward if action else None))
    guarded.reset()
    _, earned, terminated, truncated, info = guarded.step("fine")
    assert (earned, terminated, truncated) == (0.0, False, True) and info["failed"].startswith("step: ")


def test_what_ended_by_itself_was_not_cut_off() -> None:
    class Both(Echo):
        def step(self, action: str) -> Answer:
            return action, 1.0, True, True, {}

    guarded = Guarded(Both)
    guarded.reset()
    assert guarded.step("fine") == ("fine", 1.0, True, False, {})


def test_a_turn_that_failed_is_unrated_in_the_log() -> None:
    row = play(Guarded(lambda: Echo(raising)), Says("boom"), 0)
    assert row["rewards"] == [None] and not row["terminated"]
    assert [message["content"] for message in row["messages"]] == ["begin", "boom", ""]
    with pytest.raises(DataError, match="got 2 games that failed, expected whole ones"):
        mean_return(Guarded(lambda: Echo(raising)), Says("boom"), 2)


def test_the_callers_own_mistakes_pass() -> None:
    guarded = Guarded(Maze().make)
    with pytest.raises(ConfigError, match="start: got"):
        guarded.reset(start=[0, 0])
    assert guarded.failures == 0 and guarded.reset(start=[1, 1])[0].startswith("goal 8 6 at 1 1")
    with pytest.raises(ConfigError, match="seconds: got 0"):
        Guarded(Maze().make, seconds=0)


def test_threads_end_with_their_guards() -> None:
    before = set(threading.enumerate())
    guarded = Guarded(Maze().make)
    play(guarded, Says("move up"), 0)
    (thread,) = set(threading.enumerate()) - before
    guarded.close()
    thread.join(5)
    assert not thread.is_alive()
