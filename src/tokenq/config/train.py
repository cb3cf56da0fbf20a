"""Every setting of `tokenq train`: frozen dataclasses whose field docstrings are the command line's help.

All periods are counted in updates (optimiser steps). Only the top floors read these classes; parts get plain arguments.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from tokenq.acting.explore import Boltzmann, EpsilonGreedy
from tokenq.config.checks import at_least, checked_seed, not_negative, positive
from tokenq.config.supervised import FinetuneConfig, PretrainConfig
from tokenq.envs.classification import Classification
from tokenq.envs.maze import Maze
from tokenq.envs.planning import Planning
from tokenq.envs.questions import Babi, QuestionAnswering
from tokenq.envs.star_graph import StarGraph
from tokenq.envs.text import Game
from tokenq.envs.translation import Translation
from tokenq.envs.walks import Walks
from tokenq.envs.wordle import Wordle
from tokenq.errors import ConfigError
from tokenq.learning.learner import Clock
from tokenq.learning.objectives import DQN, DoubleDQN, Soft
from tokenq.learning.offline import CQL, ILQL, MC
from tokenq.learning.optimisers import Optimiser
from tokenq.learning.scaling import PerPrompt, RawRewards, Standardise, WorstIsZero
from tokenq.learning.target import TargetConfig
from tokenq.learning.values import Afterstates
from tokenq.ops.schedules import Decay
from tokenq.replay.samplers import Prioritised, Recent, Uniform

RowTask = Classification | Translation | QuestionAnswering | Babi
"""A task that finds prompts and right answers in rows of data."""
MadeTask = Walks | StarGraph | Planning
"""A task that makes its own rows and prompts."""


@dataclass(frozen=True)
class ReplayConfig:
    """Which episodes are kept, and which of them an update sees."""

    capacity_episodes: int | None = 10_000
    """Episodes kept at most, >= 1 and no fewer than the data have scored; the oldest leave first. null: no limit."""
    capacity_tokens: int | None = None
    """Tokens kept at most, prompts included, >= 1. null: no limit."""
    sampler: Uniform | Recent | Prioritised = field(default_factory=Uniform)
    """How episodes are drawn."""

    def __post_init__(self) -> None:
        at_least(self, 1, "capacity_episodes", "capacity_tokens")


@dataclass(frozen=True)
class TrainConfig:
    """Train a language model from scores."""

    model: str | None = None
    """Folder or hub id of the model to start from; null: a small one made by `pretrain`."""
    task: (
        Walks | StarGraph | Planning | Maze | Wordle | Classification | Translation | QuestionAnswering | Babi | None
    ) = None
    """A task with its own reward: one that makes its own data, or what the rows of `prompt_dataset` ask for."""
    environment_factory: str | dict[str, Any] | None = None
    """A game of several turns: `module:name` or `file.py:Name` of what makes one, or of an object whose method `make`
    does, or {path: ..., args: {...}}."""
    environment_timeout: float = 30.0
    """Seconds that an environment may take for an answer, > 0; one that takes longer has its game cut off."""
    max_turns: int | None = None
    """Turns of a game, >= 1; null: until the environment ends it."""
    memory: int | None = None
    """Newest observations that the model sees of a conversation, >= 1; null: those of the task, or all."""
    dataset: str | None = None
    """Scored episodes to learn from: .jsonl, .json, .parquet, .csv or a `datasets` id."""
    prompt_dataset: str | None = None
    """Prompts to answer with fresh text, and columns for the reward functions; the same formats."""
    prompt_words: int | None = None
    """Rows with a `text` and no `prompt` become prompts of this many words, >= 1; null: every row has a `prompt`."""
    eval_dataset: str | None = None
    """Prompts to evaluate on; null: those that are trained on."""
    reward_funcs: list[str | dict[str, Any]] = field(default_factory=list)
    """Rewards: `module:name`, `file.py:Name`, a folder with a classifier, or {path: ..., args: {...}}."""
    reward_weights: list[float] | None = None
    """Weight of each reward function; null: all 1."""
    output_dir: str | None = None
    """Folder of the run."""
    seed: int = 0
    """Seed of every random stream, >= 0."""
    max_steps: int = 400
    """Updates in all, >= 1."""
    offline_steps: int | None = None
    """How many updates come first, from `dataset` alone; null: all without a reward, none without data, else half."""
    per_device_train_batch_size: int = 32
    """Episodes per forward pass and device, >= 1."""
    gradient_accumulation_steps: int = 1
    """Forward passes per update, >= 1."""
    generation_batch_size: int = 32
    """Completions per rollout, a multiple of `num_generations`."""
    num_generations: int = 1
    """Completions per prompt in a rollout, >= 1."""
    steps_per_generation: int = 1
    """Updates per rollout, >= 1."""
    max_completion_length: int = 64
    """Longest completion in tokens, >= 1."""
    temperature: float = 1.0
    """Temperature of rollouts, > 0."""
    top_k: int = 0
    """Rollouts draw from the k most probable tokens; 0: from all."""
    top_p: float = 1.0
    """Rollouts draw from the smallest set of tokens with this probability, in (0, 1]."""
    exploration: Boltzmann | EpsilonGreedy | None = None
    """How rollouts choose tokens; null: boltzmann with `temperature`, `top_k` and `top_p`."""
    bootstrap_truncated: bool = False
    """Whether a completion cut off at `max_completion_length` is valued as if it went on; false: it ends there."""
    chat_template: str | None = None
    """Jinja template for conversations, or a file with one; null: the tokenizer's own."""
    objective: Soft | DQN | DoubleDQN | ILQL | CQL | MC = field(default_factory=Soft)
    """What is learned."""
    clock: Clock = "decision"
    """What `objective.gamma` discounts: every decision (a token), or every turn of a conversation."""
    target: TargetConfig = field(default_factory=TargetConfig)
    """The lagging copy that targets are computed from."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """The store of episodes."""
    reward_scale: RawRewards | WorstIsZero | Standardise | PerPrompt | None = None
    """How returns are shifted and scaled; null: standardise where all text is fresh, else worst_is_zero."""
    optim: Optimiser = "adamw"
    """The optimiser; `muon`: Muon for the matrices of the layers, AdamW for the rest."""
    learning_rate: float = 3e-4
    """Step size of the optimiser, > 0."""
    lr_scheduler_type: Decay = "constant"
    """How the step size falls from the first update on, to 0 after the last one; the warm-up multiplies it."""
    warmup_steps: int = 0
    """Updates over which the step size rises from 0, >= 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay, >= 0."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, > 0."""
    logging_steps: int = 10
    """Updates between two lines of metrics, >= 1."""
    eval_steps: int | None = None
    """Updates between two evaluations, >= 1; null: only before and after training."""
    eval_samples: int = 128
    """Completions per evaluation, >= 1."""
    save_steps: int = 100
    """Updates between two checkpoints, >= 1."""
    save_total_limit: int = 2
    """Checkpoints kept, >= 2: should the newest be damaged, the one before it is there."""
    log_completions: bool = True
    """Whether completions are written to the run's folder."""
    report_to: list[str] = field(default_factory=list)
    """Trackers to report to as well, such as tensorboard."""
    resume: bool = False
    """Go on from the newest whole checkpoint in `output_dir`."""
    use_peft: bool = False
    """Train LoRA adapters instead of all weights."""
    lora_r: int = 16
    """Rank of the adapters, >= 1."""
    lora_alpha: int = 32
    """Scale of the adapters is this over the rank, >= 1."""
    lora_target_modules: list[str] | None = None
    """Names of the modules that get adapters; null: what peft knows for the model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the weights."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Pretraining, before everything else."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning on right answers, after pretraining and before Q-learning."""

    @property
    def row_task(self) -> RowTask | None:
        """The task, if it reads rows of data; others make their own."""
        return self.task if isinstance(self.task, RowTask) else None

    @property
    def game(self) -> Game | None:
        """The task, if it is a game of several turns."""
        return self.task if isinstance(self.task, Game) else None

    @property
    def turns_seen(self) -> int | None:
        """How many of the newest observations the model sees."""
        return self.game.memory if self.memory is None and self.game is not None else self.memory

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        at_least(self, 0, "offline_steps", "warmup_steps")
        at_least(self, 1, "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
        at_least(self, 1, "generation_batch_size", "num_generations", "steps_per_generation", "max_completion_length")
        at_least(self, 1, "logging_steps", "eval_steps", "eval_samples", "save_steps", "prompt_words")
        at_least(self, 1, "max_turns", "memory")
        at_least(self, 1, "lora_r", "lora_alpha")
        at_least(self, 2, "save_total_limit")
        positive(self, "learning_rate", "max_grad_norm", "environment_timeout")
        Boltzmann(self.temperature, self.top_k, self.top_p)
        not_negative(self, "weight_decay")
        if self.offline_steps is not None and self.offline_steps > self.max_steps:
            raise ConfigError(f"offline_steps: got {self.offline_steps}, expected at most max_steps ({self.max_steps})")
        if self.generation_batch_size % self.num_generations:
            multiple = f"expected a multiple of num_generations ({self.num_generations})"
            raise ConfigError(f"generation_batch_size: got {self.generation_batch_size}, {multiple}")
        if isinstance(self.reward_scale, PerPrompt) and self.num_generations < 2:
            few = f"got per_prompt with num_generations {self.num_generations}, expected at least 2"
            raise ConfigError(f"reward_scale: {few}: a completion is compared with the others of its prompt")
        if isinstance(self.objective.values, Afterstates) and self.turns_seen is not None:
            raise ConfigError(
                f"objective.values: got afterstates for a model that sees {self.turns_seen} observations, where the "
                "last token of a turn is never read with those before it; use heads"
            )
        if self.environment_factory is not None and self.task is not None:
            raise ConfigError("environment_factory: got one beside a task, expected one of them; drop the other")
        if self.environment_factory is not None or self.game is not None:
            if self.reward_funcs:
                raise ConfigError("reward_funcs: got some beside a game, which has rewards of its own; drop them")
            if isinstance(self.reward_scale, PerPrompt):
                raise ConfigError("reward_scale: got per_prompt for a game, which has no prompt; choose another scale")
