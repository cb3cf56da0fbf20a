"""The settings of pretraining and fine-tuning, the two supervised stages that may come before Q-learning."""

from dataclasses import dataclass, field

from tokenq.config.checks import at_least, not_negative, positive
from tokenq.errors import ConfigError
from tokenq.learning.optimisers import Optimiser
from tokenq.learning.target import Full, HeadOnly, LastLayers
from tokenq.nets.architectures import (
    Encoder,
    EncoderDecoder,
    NGramModel,
    Recurrent,
    RotaryTransformer,
    ShiftingTransformer,
    Transformer,
)
from tokenq.nets.loading import Lora
from tokenq.nets.pretext import Causal, Masked, SpanCorruption
from tokenq.nets.tokenizers import BPE, Characters, Unigram, WordPiece, Words
from tokenq.ops.schedules import Decay


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised learning from texts, and the size of the model where none is given."""

    max_steps: int = 0
    """Updates of pretraining, >= 0; 0 is none."""
    per_device_train_batch_size: int = 100
    """Texts per update and device, >= 1."""
    optim: Optimiser = "adamw"
    """The optimiser; `muon`: Muon for the matrices of the layers, AdamW for the rest."""
    learning_rate: float = 1e-3
    """Largest step size, > 0; warmed up over a tenth of the updates."""
    lr_scheduler_type: Decay = "cosine"
    """How the step size falls to 0, if it does."""
    weight_decay: float = 0.01
    """Decoupled weight decay, >= 0."""
    dataset: str | None = None
    """Texts to learn from: a file or a `datasets` id; null: the texts of `dataset` or of the task."""
    eval_dataset: str | None = None
    """Texts to validate on; null: no validation."""
    eval_steps: int = 100
    """Updates between two validations, >= 1."""
    patience: int | None = None
    """Validations without a smaller loss after which pretraining stops, >= 1; needs rows for them. null: never."""
    block_size: int | None = None
    """Texts are joined and cut into pieces of so many tokens, >= 2; null: each text stays one, cut at the context."""
    objective: Causal | Masked | SpanCorruption | None = None
    """What is predicted, which must be what suits the model; null: that."""
    architecture: (
        Transformer | RotaryTransformer | ShiftingTransformer | Recurrent | EncoderDecoder | Encoder | NGramModel
    ) = field(default_factory=Transformer)
    """The model, where none is given."""
    tokenizer: Characters | Words | BPE | WordPiece | Unigram | None = None
    """The tokenizer, trained on the same texts; null: that of the task or of the model."""

    def __post_init__(self) -> None:
        at_least(self, 0, "max_steps")
        at_least(self, 1, "per_device_train_batch_size", "eval_steps", "patience")
        at_least(self, 2, "block_size")
        positive(self, "learning_rate")
        not_negative(self, "weight_decay")


@dataclass(frozen=True)
class FinetuneConfig:
    """Supervised learning from right answers, before any Q-learning."""

    max_steps: int = 0
    """Updates of fine-tuning, >= 0; 0 is none."""
    per_device_train_batch_size: int = 32
    """Answers per update and device, >= 1."""
    optim: Optimiser = "adamw"
    """The optimiser; `muon`: Muon for the matrices of the layers, AdamW for the rest."""
    learning_rate: float = 5e-4
    """Largest step size, > 0; warmed up over a tenth of the updates."""
    lr_scheduler_type: Decay = "cosine"
    """How the step size falls to 0, if it does."""
    weight_decay: float = 0.01
    """Decoupled weight decay, >= 0."""
    dataset: str | None = None
    """Rows with right answers; null: those of `prompt_dataset`."""
    eval_dataset: str | None = None
    """Rows to validate on; null: those of `eval_dataset`."""
    eval_steps: int = 100
    """Updates between two validations, >= 1."""
    patience: int | None = None
    """Validations without a smaller loss after which fine-tuning stops, >= 1; needs rows for them. null: never."""
    scope: Full | LastLayers | HeadOnly | Lora = field(default_factory=Full)
    """What is trained: everything, the last layers, the output layer alone, or LoRA adapters, merged at the end."""
    noise: float = 0.0
    """Share of the tokens or labels that were drawn blindly, in [0, 1): what the model imitates is the rest."""

    def __post_init__(self) -> None:
        at_least(self, 0, "max_steps")
        at_least(self, 1, "per_device_train_batch_size", "eval_steps", "patience")
        positive(self, "learning_rate")
        not_negative(self, "weight_decay")
        if not 0 <= self.noise < 1:
            raise ConfigError(f"noise: got {self.noise}, expected a number in [0, 1)")
        if self.optim == "muon" and isinstance(self.scope, HeadOnly):
            raise ConfigError("optim: got muon with scope head, which trains no matrix of a layer; expected adamw")
