"""Every setting of `tokenq generate`."""

from dataclasses import dataclass, field

from tokenq.acting.explore import Boltzmann
from tokenq.config.checks import at_least, checked_seed, not_negative
from tokenq.errors import ConfigError


@dataclass(frozen=True)
class GenerateConfig:
    """Let the model of a run answer prompts."""

    run: str
    """Folder of the run."""
    prompt: list[str] = field(default_factory=list)
    """A text to continue, or a user's message if the model has a chat template."""
    num_generations: int = 1
    """Completions per prompt, >= 1."""
    max_completion_length: int | None = None
    """Longest completion in tokens, >= 1; null: that of the run."""
    temperature: float = 1.0
    """Temperature, > 0."""
    top_k: int = 0
    """Draw from the k most probable tokens; 0: from all."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens with this probability, in (0, 1]."""
    greedy: bool = False
    """Always take the best token; temperature, top_k and top_p then say nothing."""
    beta: float | None = None
    """How much the Q heads of the run have to say, >= 0 (`guidance.beta`); null: as much as while it trained."""
    seed: int = 0
    """Seed of the draw, >= 0."""

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        not_negative(self, "beta")
        at_least(self, 1, "num_generations", "max_completion_length")
        if not self.prompt:
            raise ConfigError("prompt: got none, expected at least one --prompt TEXT")
        Boltzmann(self.temperature, self.top_k, self.top_p)
