"""Every setting of `tokenq evaluate`."""

from dataclasses import dataclass, field

from tokenq.config.checks import at_least, checked_seed, not_negative, positive
from tokenq.errors import ConfigError
from tokenq.learning.fitted_q import FittedQ


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure what a run learned, against the model it started from."""

    runs: list[str]
    """Folder of the run; several, if they differ by their seeds alone: figures over seeds."""
    dataset: str | None = None
    """Rows to evaluate on; null: those of the run. With off_policy: scored rows, none the run's or `fitted_on`'s."""
    metrics: list[str] = field(default_factory=list)
    """Metrics of what the model says to every row, or of the row's text: bleu, perplexity; none: those of the task."""
    vectors: str | None = None
    """Word vectors for embedding_similarity and gold, a file in GloVe's format; null: the model's own embeddings."""
    gold: str | None = None
    """Pairs of words with human scores, to compare the embeddings with and nothing else; null: no comparison."""
    self_play: str | None = None
    """Scenarios of Deal or No Deal to negotiate over with the start, and nothing else; null: no negotiations."""
    eval_samples: int = 128
    """Completions, or games, >= 1."""
    temperature: float = 1.0
    """Temperature of the drawn completions, > 0; greedy ones are measured as well."""
    beta: float | None = None
    """How much the Q heads of the run have to say, >= 0 (`guidance.beta`); null: as much as while it trained."""
    seed: int = 0
    """Seed of the draw, >= 0."""
    gif: str | None = None
    """File for a picture of one greedy episode, of an agent only; null: none."""

    off_policy: FittedQ | None = None
    """Estimate from logged episodes what the policies would earn, without generating; null: generate and score."""
    behaviour: str | None = None
    """Folder of the model that stands in for who wrote the logs, with off_policy; null: what the run began with."""
    fitted_on: str | None = None
    """Scored rows that values are fitted on, with off_policy; null: those that the run learned from."""

    @property
    def run(self) -> str:
        """The folder, where there is one run."""
        (folder,) = self.runs
        return folder

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("runs: got none, expected the folder of a run")
        if len(self.runs) > 1 and (self.gold or self.self_play or self.gif):
            raise ConfigError(f"runs: got {len(self.runs)} with gold, self_play or gif, which look at one; name one")
        checked_seed(self.seed)
        not_negative(self, "beta")
        at_least(self, 1, "eval_samples")
        positive(self, "temperature")
        for name in ("behaviour", "fitted_on"):
            given = getattr(self, name)
            if given is not None and self.off_policy is None:
                raise ConfigError(f"{name}: got {given} without off_policy, which alone asks for it; name both")
        if self.gold is not None and (self.dataset or self.metrics or self.gif or self.off_policy):
            raise ConfigError("gold: got dataset, metrics, gif or off_policy beside it; it measures word vectors alone")
        if self.self_play is not None and (self.dataset or self.metrics or self.gif or self.off_policy or self.gold):
            raise ConfigError("self_play: got dataset, metrics, gif, off_policy or gold beside it; leave them out")
        if self.off_policy is not None and self.dataset is None:
            raise ConfigError("off_policy: got no dataset, expected scored rows that the run never saw; name --dataset")
        if self.off_policy is not None and (self.metrics or self.gif or self.temperature != 1.0):
            raise ConfigError("off_policy: got metrics, gif or temperature beside it; they belong to generated text")
