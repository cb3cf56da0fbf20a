"""QTrainer: the parts behind TRL's argument names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenq.acting.rewards import RewardFunction
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.nets.loading import save_network
from tokenq.run.given import Given
from tokenq.run.report import Summary
from tokenq.run.session import Session
from tokenq.run.train import prepare, train_session

Reward = RewardFunction | str


class QTrainer:
    """Train a causal language model from scores.

    Args:
        model: A folder, a hub id, a loaded causal language model, or a PEFT model.
        reward_funcs: One or several reward functions by TRL's contract, as objects or by name. None for scored data.
        args: The configuration; defaults otherwise.
        train_dataset: Rows (a list, a `datasets.Dataset`): scored episodes, or prompts with whatever the reward
            functions want to see.
        eval_dataset: Prompts to evaluate on; by default those that are trained on.
        processing_class: The tokenizer; by default the model's.
        peft_config: A PEFT configuration: trains an adapter on the frozen model.
        environment_factory: Makes a game of several turns each time that it is called: an object with `reset` and
            `step` (`envs.text.TextEnvironment`), or the name of such a factory.

    Raises:
        ConfigError, DataError: Something in the arguments or rows must be put right; nothing was trained yet.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Reward | Sequence[Reward] | None = None,
        args: TrainConfig | None = None,
        train_dataset: Iterable[Mapping[str, Any]] | None = None,
        eval_dataset: Iterable[Mapping[str, Any]] | None = None,
        processing_class: Any = None,
        peft_config: Any = None,
        environment_factory: Callable[[], Any] | str | None = None,
    ) -> None:
        config = args or TrainConfig()
        if isinstance(environment_factory, str):
            config, environment_factory = replace(config, environment_factory=environment_factory), None
        functions = [] if reward_funcs is None else _listed(reward_funcs)
        named = [function for function in functions if isinstance(function, str)]
        objects = [function for function in functions if not isinstance(function, str)]
        if named and objects and config.reward_weights is not None:
            raise ConfigError("reward_funcs: got names and objects together with reward_weights; pass all as objects")
        if isinstance(model, str):
            config = replace(config, model=model)
        self.config = replace(config, reward_funcs=[*config.reward_funcs, *named])
        self._given = Given(
            model=None if isinstance(model, str) else model,
            tokenizer=processing_class,
            rewards=objects,
            rows=train_dataset,
            eval_rows=eval_dataset,
            peft_config=peft_config,
            environment_factory=environment_factory,
        )
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The parts: network, learner, replay and the rest, built when first asked for."""
        if self._session is None:
            self._session = prepare(self.config, self._given)
        return self._session

    @property
    def model(self) -> Any:
        """The model that is trained."""
        return self.session.network.model

    def train(self) -> Summary:
        """Train to the end; what summary.json holds."""
        return train_session(self.session)

    def evaluate(self) -> dict[str, float]:
        """Score the model as it is now on the evaluation prompts.

        Raises:
            ConfigError: There is no reward function to score with.
        """
        if self.session.evaluator is None:
            raise ConfigError("evaluate: got no reward function, expected at least one; pass reward_funcs")
        return self.session.evaluator.evaluate().metrics

    def save_model(self, output_dir: str) -> None:
        """Write a plain Hugging Face checkpoint."""
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_network(self.session.network, self.session.tokenizer, folder)


def _listed(functions: Reward | Sequence[Reward]) -> list[Reward]:
    return [functions] if isinstance(functions, str) or callable(functions) else list(functions)
