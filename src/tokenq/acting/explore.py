"""Behaviour policies: how completions are drawn from a language model's logits."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tokenq.errors import ConfigError
from tokenq.ops import policies, schedules


@dataclass(frozen=True)
class Boltzmann:
    """Draw from softmax(logits / temperature), cut to the top-k and the nucleus: how language models speak."""

    temperature: float = 1.0
    """Temperature of the softmax, > 0; 1 is the model's own policy."""
    top_k: int = 0
    """Keep only the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches this, in (0, 1]; 1 keeps all."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(
                f"temperature: got {self.temperature}, expected a finite number > 0; for greedy text use --greedy"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k: got {self.top_k}, expected an integer >= 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: got {self.top_p}, expected a number in (0, 1]")

    def log_probabilities(self, logits: Float[Tensor, "B V"], update: int) -> Float[Tensor, "B V"]:
        """Log-probabilities to draw from; the same at every update."""
        return policies.boltzmann(logits, self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True)
class EpsilonGreedy:
    """Textbook DQN: with probability ε a uniformly random token, otherwise the best one.

    One draw per text and token. ε falls in a straight line (Mnih et al. 2015, Algorithm 1).
    """

    start: float = 1.0
    """ε at update 0, in [0, 1]."""
    end: float = 0.05
    """ε from update `over` on, in [0, 1]."""
    over: int = 100
    """Number of updates over which ε falls from start to end."""

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise ConfigError(f"start, end: got {self.start}, {self.end}, expected probabilities in [0, 1]")

    def epsilon(self, update: int) -> float:
        """ε at an update."""
        return schedules.linear(self.start, self.end, self.over, update)

    def log_probabilities(self, logits: Float[Tensor, "B V"], update: int) -> Float[Tensor, "B V"]:
        """Log-probabilities to draw from."""
        return policies.epsilon_greedy(logits, self.epsilon(update))


@dataclass(frozen=True)
class Greedy:
    """Always the best token: for evaluation, and for networks whose noise explores."""

    def log_probabilities(self, logits: Float[Tensor, "B V"], update: int) -> Float[Tensor, "B V"]:
        """All probability on the best token."""
        return policies.epsilon_greedy(logits, 0.0)
