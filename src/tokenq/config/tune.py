"""Every setting of `tokenq tune`; what a search space may look like stands in `config/search.py`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tokenq.config.checks import at_least, checked_seed
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class Tpe:
    """Tree-structured Parzen estimator: settings like those of the good trials (Bergstra et al. 2011)."""

    startup_trials: int = 10
    """Trials drawn at random first, >= 1."""

    def __post_init__(self) -> None:
        at_least(self, 1, "startup_trials")


@dataclass(frozen=True)
class Random:
    """Settings drawn independently of what came out before."""


@dataclass(frozen=True)
class Median:
    """Stop a trial whose best evaluation so far is worse than the median of earlier trials at the same update."""

    startup_trials: int = 5
    """Trials that end before any is stopped, >= 1."""
    warmup_steps: int = 0
    """Updates before which no trial is stopped, >= 0."""

    def __post_init__(self) -> None:
        at_least(self, 1, "startup_trials")
        at_least(self, 0, "warmup_steps")


@dataclass(frozen=True)
class Hyperband:
    """Stop most trials early and a few late, in brackets of successive halving (Li et al. 2018, arXiv 1603.06560)."""

    min_steps: int = 1
    """Updates that the first to be stopped have made, >= 1."""
    reduction: int = 3
    """One trial in so many goes on at each rung, >= 2."""

    def __post_init__(self) -> None:
        at_least(self, 1, "min_steps")
        at_least(self, 2, "reduction")


@dataclass(frozen=True)
class TuneConfig:
    """Search for better settings of a training run."""

    config: str | None = None
    """YAML file of `tokenq train`: the default configuration, which is the first trial."""
    search: dict[str, Any] = field(default_factory=dict)
    """What to vary: a dotted key of `tokenq train` -> {low: …, high: …, log: …, step: …} or {choices: […]}."""
    trials: int = 20
    """Trials of the study in all, those before a resume included, >= 1."""
    metric: str = "eval_reward"
    """What counts: a metric of evaluations, after the last update, on the evaluation prompts."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Whether more of the metric is better, or less."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds that every trial trains with, each >= 0; its score is the mean over them."""
    output_dir: str | None = None
    """Folder of the study; null: runs/tune-NAME, by the name of `config`."""
    seed: int = 0
    """Seed of the sampler, >= 0."""
    sampler: Tpe | Random = field(default_factory=Tpe)
    """How settings are chosen."""
    pruner: Median | Hyperband | None = None
    """When a trial is stopped early, by the evaluations of its first seed; null: never."""
    workers: int = 1
    """Trials at a time, each in a process of its own on this machine, >= 1."""
    resume: bool = False
    """Go on with the study in `output_dir`."""
    timeout: float | None = None
    """Seconds after which no trial begins; those that run are finished. null: no limit."""

    def __post_init__(self) -> None:
        if self.config is None:
            raise ConfigError("config: got none, expected the YAML file of tokenq train whose settings to vary")
        if not self.search:
            raise ConfigError("search: got none, expected at least one setting, as in learning_rate: {low: …, high: …}")
        at_least(self, 1, "trials", "workers")
        checked_seed(self.seed)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: got {self.seeds}, expected at least one, each >= 0 and different")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ConfigError(f"timeout: got {self.timeout}, expected a finite number > 0, or null")
