"""Objects that a caller hands over in place of names in the configuration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenq.acting.rewards import RewardFunction

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Given:
    """What Python callers may pass as objects; everything else is named in the configuration.

    `model` is a loaded causal language model (a PEFT model included), `peft_config` a PEFT configuration.
    `environment_factory` makes a game of several turns each time that it is called.
    """

    model: Any = None
    tokenizer: Any = None
    rewards: Sequence[RewardFunction] = ()
    rows: Iterable[Mapping[str, Any]] | None = None
    eval_rows: Iterable[Mapping[str, Any]] | None = None
    peft_config: Any = None
    environment_factory: Callable[[], Any] | None = None
