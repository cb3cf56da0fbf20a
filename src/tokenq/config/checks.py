"""Checks that several configurations share; each raises `ConfigError` with the name of the field."""

from typing import Any

from tokenq.errors import ConfigError


def at_least(config: Any, least: int, *names: str) -> None:
    """Each named field is None or an integer of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{name}: got {value}, expected an integer >= {least}")


def checked_seed(seed: int) -> None:
    """The seed is one that every random stream accepts."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed: got {seed}, expected an integer in 0..2**63 - 1")


def positive(config: Any, *names: str) -> None:
    """Each named field is a finite number above zero."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"{name}: got {value}, expected a finite number > 0")


def not_negative(config: Any, *names: str) -> None:
    """Each named field is None or a finite number of at least zero."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigError(f"{name}: got {value}, expected a finite number >= 0")
