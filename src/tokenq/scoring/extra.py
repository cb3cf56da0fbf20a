"""The libraries of the optional extra `metrics`, imported by the metric that needs one."""

import importlib
from typing import Any

from tokenq.errors import ConfigError


def extra(module: str) -> Any:
    """The module; a ConfigError that says how to install it where it is missing.

    Not imported at the top of a file: most commands need none of them, and one of them takes seconds.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f'{module}: not installed; run pip install "tokenq[metrics]"') from error
