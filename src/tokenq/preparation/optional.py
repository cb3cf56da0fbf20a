"""Packages that only preparation needs, imported when a step asks for them."""

import importlib
from typing import Any

from tokenq.errors import ConfigError


def imported(package: str, step: str) -> Any:
    """The module of that name; `step` is the setting that needs it.

    Raises:
        ConfigError: it is not installed; the message says how to install it, or how to do without.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{step}: needs the package {error.name}, which is not installed; "
            f'pip install "tokenq[data]", or set it to null'
        ) from error
