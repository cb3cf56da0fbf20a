"""An environment that raises or hangs costs its game and nothing else.

A worker thread, not a process: environments are seldom picklable, and a turn costs tens of microseconds instead of
milliseconds. The price: a thread cannot be stopped. One that hangs is left behind with its environment (it ends with
the program), and code that never gives the interpreter lock back holds up everything; run such code in a process.
"""

import math
import queue
import threading
from collections.abc import Callable
from typing import Any

from tokenq.envs.text import Answer, Observed, TextEnvironment, no_game
from tokenq.errors import ConfigError, UserError


class Guarded:
    """The environments that `make` makes, with at most `seconds` for each reset and each step.

    One that raises, hangs or answers wrongly truncates its game: observation "", reward 0 (unknown, not earned) and
    `info["failed"]` with the reason; if a reset failed, the first step says so. The next game has a new environment.
    `failures` counts them. Errors that are the caller's (`UserError`) pass.
    """

    def __init__(self, make: Callable[[], TextEnvironment], seconds: float = 30.0) -> None:
        self.failures = 0
        self._worker: _Worker | None = None
        if not seconds > 0:
            raise ConfigError(f"seconds: got {seconds}, expected a number > 0")
        self._make, self._seconds = make, seconds
        self._failed: str | None = None
        self._on = False

    def reset(self, *, seed: int | None = None, **row: Any) -> Observed:
        """A new game, in a new environment if the last one failed."""
        self._failed, self._on = None, True
        self._worker = self._worker or _Worker(self._make)
        found: Observed = self._answer("reset", lambda environment: _observed(environment.reset(seed=seed, **row)))
        return found if self._failed is None else ("", {"failed": self._failed})

    def step(self, action: str) -> Answer:
        """One step; truncated if it fails, or if the reset before it did."""
        if not self._on:
            raise no_game()
        if self._failed is None:
            found: Answer = self._answer("step", lambda environment: _answered(environment.step(action)))
            if self._failed is None:
                self._on = not (found[2] or found[3])
                return found
        self._on = False
        return "", 0.0, False, True, {"failed": self._failed}

    def _answer(self, name: str, question: Callable[[TextEnvironment], Any]) -> Any:
        """The answer; None with `_failed` set if there is none."""
        assert self._worker is not None
        found = self._worker.ask(question, self._seconds)
        if isinstance(found, UserError):
            raise found
        if found is None:
            self._failed = f"{name}: no answer within {self._seconds:g} seconds"
        elif isinstance(found, BaseException):
            self._failed = f"{name}: {type(found).__name__}: {found}"
        if self._failed is None:
            return found
        self.failures += 1
        self.close()
        return None

    def close(self) -> None:
        """Let the thread end, at once if it does not hang."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __del__(self) -> None:
        self.close()


class _Worker:
    """A thread with an environment of its own, so that every call comes from the same thread."""

    def __init__(self, make: Callable[[], TextEnvironment]) -> None:
        self._questions: queue.SimpleQueue[Callable[[TextEnvironment], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(make,), daemon=True, name="environment").start()

    def ask(self, question: Callable[[TextEnvironment], Any], seconds: float) -> Any:
        """The answer or the exception that came instead; None if neither comes in time."""
        self._questions.put(question)
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """No more questions."""
        self._questions.put(None)

    def _run(self, make: Callable[[], TextEnvironment]) -> None:
        environment: TextEnvironment | None = None
        while (question := self._questions.get()) is not None:
            try:
                environment = make() if environment is None else environment
                self._answers.put(question(environment))
            except BaseException as error:
                self._answers.put(error)


def _observed(found: Any) -> Observed:
    observation, info = found
    if not isinstance(observation, str):
        raise TypeError(f"got an observation of type {type(observation).__name__}, expected a string")
    return observation, dict(info)


def _answered(found: Any) -> Answer:
    observation, reward, terminated, truncated, info = found
    observation, info = _observed((observation, info))
    if not math.isfinite(reward):
        raise ValueError(f"got the reward {reward}, expected a finite number")
    return observation, float(reward), bool(terminated), bool(truncated and not terminated), info
