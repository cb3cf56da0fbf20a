"""Evaluate: score a finished run and the model it started from on the same prompts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenq.acting.rollout import Writer
from tokenq.config.evaluate import EvaluateConfig
from tokenq.errors import ConfigError
from tokenq.evaluation.control import Episodes
from tokenq.evaluation.tabular import start_values
from tokenq.nets.encoder import QNetwork
from tokenq.nets.reference import Reference
from tokenq.replay.rows import read_rows
from tokenq.run.acting import evaluator_of
from tokenq.run.control import is_agent, load_agent
from tokenq.run.data import Data, load_data, read_examples, read_prompts
from tokenq.run.film import film
from tokenq.run.given import Given
from tokenq.run.loaded import Loaded, load_run
from tokenq.run.measure import Measurement
from tokenq.run.off_policy import estimate_off_policy


def evaluate(config: EvaluateConfig, given: Given | None = None) -> dict[str, Any]:
    """Print and return, as JSON, the figures of the trained model, of its start, and known bounds.

    A run of a model that was handed over as an object has kept no start: `before` and the distance to it are null.
    """
    if is_agent(config.run):
        return _agent(config)
    run = load_run(config.run, config.beta)
    if config.off_policy is not None:
        return _printed(estimate_off_policy(config, config.off_policy, run))
    if config.gif is not None:
        raise ConfigError(f"gif: {config.run} is a language model, which has no episode to look at; leave --gif out")
    measurement = _measurement(config, run)
    data = None if measurement is not None and not _is_scored(run) else _data(config, run, given or Given())
    if measurement is None and (data is None or (data.rewards is None and data.game is None)):
        raise ConfigError(
            f"{config.run} was trained without a reward function, so there is nothing to score with; name --metrics"
        )
    start = run.start()
    reference = Reference(start or run.network)
    figures: dict[str, Any] = {"run": config.run, "samples": config.eval_samples, "seed": config.seed, "before": None}
    for name, network in (("before", start), ("after", run.network)):
        if network is None:
            continue
        figures[name] = {} if data is None else _scored(config, run, data, network, reference)
        if measurement is not None:
            writer = Writer(network, run.writer.codec, run.writer.context)
            measured, figures["signatures"] = measurement.of(writer, reference)
            figures[name] |= measured
    if start is None:
        figures["after"] = figures["after"] | {"kl": None}
    figures["bounds"] = {} if data is None else dict(data.bounds)
    return _printed(figures)


def _printed(figures: dict[str, Any]) -> dict[str, Any]:
    """Print figures as JSON, and return them."""
    print(json.dumps(figures, indent=2))
    return figures


def _agent(config: EvaluateConfig) -> dict[str, Any]:
    """The greedy returns of an agent over `eval_samples` episodes, and its exact value where that is known."""
    if config.metrics or config.dataset or config.beta is not None:
        measured = "is an agent, which is measured by the returns of greedy episodes"
        raise ConfigError(f"metrics, dataset, beta: {config.run} {measured}; leave them out")
    trained, network = load_agent(config.run)
    if config.gif is not None:
        film(trained.environment, network, config.seed, Path(config.gif))
    after = Episodes(trained.environment, config.eval_samples, config.seed).evaluate(network)
    after |= start_values(trained.environment, network, trained.objective.gamma)
    return _printed({"run": config.run, "samples": config.eval_samples, "seed": config.seed, "after": after})


def _is_scored(run: Loaded) -> bool:
    """Whether the run has a reward to score with: a run of supervised learning alone may have none."""
    return run.config.task is not None or bool(run.config.reward_funcs) or run.config.environment_factory is not None


def _data(config: EvaluateConfig, run: Loaded, given: Given) -> Data:
    """What the run learned from, with the prompts or the starts of games that are asked for."""
    data = load_data(run.config, given)
    if config.dataset is None or (data.game is None and data.rewards is None):
        return data
    if data.game is not None:
        return replace(data, game=replace(data.game, starts=read_rows(config.dataset)))
    return replace(data, eval_prompts=list(read_prompts(run.config, config.dataset).values()))


def _scored(
    config: EvaluateConfig, run: Loaded, data: Data, network: QNetwork, reference: Reference
) -> dict[str, float]:
    settings = replace(run.config, eval_samples=config.eval_samples, seed=config.seed, top_k=0, top_p=1.0)
    settings = replace(settings, temperature=config.temperature)
    evaluator = evaluator_of(settings, data, Writer(network, run.writer.codec, run.writer.context), reference)
    return {} if evaluator is None else evaluator.evaluate().metrics


def _measurement(config: EvaluateConfig, run: Loaded) -> Measurement | None:
    """What `metrics` asks for, or else what the task is usually measured by; checked before anything is computed."""
    task = run.config.row_task
    metrics = config.metrics or ([] if task is None else list(task.metrics))
    source = config.dataset or run.config.eval_dataset or run.config.pretrain.eval_dataset or run.config.prompt_dataset
    if not metrics:
        return None
    if source is None:
        raise ConfigError(f"metrics: got {', '.join(metrics)}, expected a dataset to measure on; name --dataset")
    measurement = Measurement(
        metrics=metrics,
        rows=read_examples(run.config, source),
        source=source,
        labels=() if task is None else task.labels,
        max_completion_length=run.config.max_completion_length,
        vectors=config.vectors,
        seed=config.seed,
    )
    measurement.check()
    return measurement
