"""Evaluate: score a finished run and the model it started from on the same prompts."""

import json
from typing import Any

from tokenq.acting.explore import Boltzmann
from tokenq.acting.rollout import Writer
from tokenq.config.evaluate import EvaluateConfig
from tokenq.errors import ConfigError
from tokenq.evaluation.policy import Evaluator
from tokenq.nets.reference import Reference
from tokenq.run.data import load_data, read_prompts
from tokenq.run.given import Given
from tokenq.run.loaded import load_run


def evaluate(config: EvaluateConfig, given: Given | None = None) -> dict[str, Any]:
    """Print and return, as JSON, the figures of the trained model, of its start, and known bounds.

    A run of a model that was handed over as an object has kept no start: `before` and the distance to it are null.
    """
    run = load_run(config.run)
    data = load_data(run.config, given or Given())
    if data.rewards is None:
        raise ConfigError(f"{config.run} was trained without a reward function, so there is nothing to score with")
    words = run.config.prompt_words
    prompts = list(read_prompts(config.dataset, words).values()) if config.dataset else data.eval_prompts
    start = run.start()
    reference = Reference(start or run.network)
    figures: dict[str, Any] = {"run": config.run, "samples": config.eval_samples, "seed": config.seed, "before": None}
    for name, network in (("before", start), ("after", run.network)):
        if network is None:
            continue
        evaluator = Evaluator(
            Writer(network, run.tokenizer, run.writer.ends, run.writer.context),
            data.rewards,
            reference,
            prompts,
            Boltzmann(config.temperature),
            config.eval_samples,
            run.config.max_completion_length,
            config.seed,
        )
        figures[name] = evaluator.evaluate().metrics
    if start is None:
        figures["after"] = figures["after"] | {"kl": None}
    figures["bounds"] = dict(data.bounds)
    print(json.dumps(figures, indent=2))
    return figures
