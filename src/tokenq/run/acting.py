"""What writes and what is measured in a run: completions of prompts, or games."""

from tokenq.acting.explore import Boltzmann
from tokenq.acting.games import GameRollout, Limits, Player
from tokenq.acting.rollout import PromptOrder, Rollout, RolloutSettings, Writer
from tokenq.config.train import TrainConfig
from tokenq.evaluation.games import GameEvaluator
from tokenq.evaluation.policy import Evaluator
from tokenq.learning.scaling import PerPrompt
from tokenq.nets.reference import Reference
from tokenq.run.data import Data, Playable

SIDE_BY_SIDE = 128
"""Games that an evaluation plays at once, at most."""


def rollout_of(config: TrainConfig, data: Data, writer: Writer, reference: Reference) -> Rollout | GameRollout | None:
    """What plays, or answers prompts and has the answers scored; None where there is nothing to score with."""
    explore, seed = config.exploration or _sampling(config), config.seed
    if data.game is not None:
        player = _player(config, data.game, writer, config.generation_batch_size)
        order = PromptOrder(data.game.starts, seed)
        return GameRollout(player, order, explore, reference, config.generation_batch_size, seed)
    if data.rewards is None or not data.prompts:
        return None
    settings = RolloutSettings(
        completions=config.generation_batch_size,
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_length,
        max_steps=config.max_steps,
        bootstrap_truncated=config.bootstrap_truncated,
        relative=isinstance(config.reward_scale, PerPrompt),
    )
    return Rollout(writer, PromptOrder(data.prompts, seed), data.rewards, explore, reference, settings)


def evaluator_of(
    config: TrainConfig, data: Data, writer: Writer, reference: Reference
) -> Evaluator | GameEvaluator | None:
    """What plays or completes and scores, `eval_samples` times; None where there is nothing to score with."""
    samples, seed = config.eval_samples, config.seed
    if data.game is not None:
        player = _player(config, data.game, writer, min(samples, SIDE_BY_SIDE))
        return GameEvaluator(player, reference, data.game.starts, _sampling(config), samples, seed)
    if data.rewards is None or not data.prompts:
        return None
    prompts, length = data.eval_prompts, config.max_completion_length
    return Evaluator(writer, data.rewards, reference, prompts, _sampling(config), samples, length, seed)


def _player(config: TrainConfig, game: Playable, writer: Writer, beside: int) -> Player:
    return Player(writer, game.make, Limits(config.max_completion_length, config.max_turns, beside))


def _sampling(config: TrainConfig) -> Boltzmann:
    return Boltzmann(config.temperature, config.top_k, config.top_p)
