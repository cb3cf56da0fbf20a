"""Self-play of a finished run: what its model and its start earn in Deal or No Deal, each against that start."""

from pathlib import Path
from typing import Any

from tokenq.acting.explore import Boltzmann
from tokenq.acting.rollout import Writer
from tokenq.config.evaluate import EvaluateConfig
from tokenq.envs.negotiation import read_scenarios
from tokenq.errors import ConfigError
from tokenq.evaluation.intervals import with_intervals
from tokenq.evaluation.self_play import Speaker, self_play
from tokenq.nets.encoder import is_encoder
from tokenq.run.loaded import Loaded


def negotiate(config: EvaluateConfig, scenarios: Path, run: Loaded) -> dict[str, Any]:
    """Points, agreement rate and points per agreement over `eval_samples` games, with intervals over scenarios.

    Both players draw from their models at `temperature`, and open every other game.
    """
    start = run.start()
    if start is None:
        raise ConfigError(f"self_play: {config.run} has kept no start to play against; train from a model on disk")
    if is_encoder(run.network.model) or run.tokenizer.chat_template is None:
        raise ConfigError(f"self_play: got {config.run}, which holds no conversations, expected a run that does")
    games = read_scenarios(scenarios)
    length, drawn = run.config.max_completion_length, Boltzmann(config.temperature)
    figures: dict[str, Any] = {"run": config.run, "games": config.eval_samples, "seed": config.seed}
    partner = Speaker(Writer(start, run.writer.codec, run.writer.context), drawn, length)
    for name, network in (("before", start), ("after", run.network)):
        agent = Speaker(Writer(network, run.writer.codec, run.writer.context), drawn, length)
        figures[name] = with_intervals(self_play(agent, partner, games, config.eval_samples, config.seed))
    return figures
