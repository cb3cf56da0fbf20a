"""Every setting of `tokenq evaluate`."""

from dataclasses import dataclass, field

from tokenq.config.checks import at_least, checked_seed, not_negative, positive


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure what a run learned, against the model it started from."""

    run: str
    """Folder of the run."""
    dataset: str | None = None
    """Prompts to evaluate on; null: those of the run."""
    metrics: list[str] = field(default_factory=list)
    """Metrics of the greedy completion of every row, such as accuracy, bleu, perplexity; none: those of the task."""
    vectors: str | None = None
    """Word vectors for embedding_similarity, a file in GloVe's format; null: the model's own embeddings."""
    eval_samples: int = 128
    """Completions, >= 1."""
    temperature: float = 1.0
    """Temperature of the drawn completions, > 0; greedy ones are measured as well."""
    beta: float | None = None
    """How much the Q heads of the run have to say, >= 0 (`guidance.beta`); null: as much as while it trained."""
    seed: int = 0
    """Seed of the draw, >= 0."""
    gif: str | None = None
    """File for a picture of one greedy episode, of an agent only; null: none."""

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        not_negative(self, "beta")
        at_least(self, 1, "eval_samples")
        positive(self, "temperature")
