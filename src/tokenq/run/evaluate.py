"""Evaluate: score a finished run and the model it started from on the same prompts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenq.acting.rollout import Writer
from tokenq.config.evaluate import EvaluateConfig
from tokenq.config.parse import from_file
from tokenq.config.train import TrainConfig
from tokenq.errors import ConfigError
from tokenq.evaluation.answers import Answers, Embedder
from tokenq.evaluation.control import Episodes
from tokenq.evaluation.intervals import with_intervals
from tokenq.evaluation.likelihood import Perplexity
from tokenq.evaluation.similarity import gold_agreement, load_vectors
from tokenq.evaluation.tabular import start_values
from tokenq.nets.encoder import QNetwork
from tokenq.nets.loading import load_tokenizer
from tokenq.nets.ngram import HEADER, NGram
from tokenq.nets.reference import Reference
from tokenq.replay.codecs import Joint
from tokenq.replay.rows import read_rows
from tokenq.run.acting import evaluator_of
from tokenq.run.control import is_agent, load_agent
from tokenq.run.data import Data, check_against, load_data, numbered_examples, numbered_prompts
from tokenq.run.film import film
from tokenq.run.folder import CONFIG
from tokenq.run.given import Given
from tokenq.run.loaded import Loaded, load_run
from tokenq.run.measure import Measurement, Rows, judged_episodes, own_vectors
from tokenq.run.negotiate import negotiate
from tokenq.run.off_policy import estimate_off_policy
from tokenq.run.over_seeds import over_seeds, seeds_of
from tokenq.run.report import defined


def evaluate(config: EvaluateConfig, given: Given | None = None) -> dict[str, Any]:
    """Print and return, as JSON, the figures of the trained model, of its start, and known bounds.

    A run of a model that was handed over as an object has kept no start: `before` and the distance to it are null.
    Of several runs, which differ by their seeds alone: means and intervals over runs, and the figures of each.
    """
    if len(config.runs) == 1:
        return _printed(_figures(config, given or Given()))
    seeds = seeds_of(config.runs)
    each = [_figures(replace(config, runs=[run]), given or Given()) for run in config.runs]
    return _printed(over_seeds(config.runs, seeds, each))


def _figures(config: EvaluateConfig, given: Given) -> dict[str, Any]:
    """The figures of one run, where one that is not defined may be NaN."""
    if is_agent(config.run):
        return _agent(config)
    counted = _counted_in(config.run)
    if counted is not None:
        return _counted(config, counted)
    run = load_run(config.run, config.beta)
    if config.off_policy is not None:
        return estimate_off_policy(config, config.off_policy, run)
    if config.gold is not None:
        return _gold(config, Path(config.gold), run)
    if config.self_play is not None:
        return negotiate(config, Path(config.self_play), run)
    if config.gif is not None:
        raise ConfigError(f"gif: {config.run} is a language model, which has no episode to look at; leave --gif out")
    measurement = _measurement(config, run)
    # Rows without prompts can be measured, not scored.
    scored = measurement is None or (_is_scored(run) and len(measurement.prompts) > 0)
    data = _data(config, run, given) if scored else None
    if measurement is None and (data is None or (data.rewards is None and data.game is None)):
        raise ConfigError(
            f"{config.run} was trained without a reward function, so there is nothing to score with; name --metrics"
        )
    return _before_and_after(config, run, data, measurement)


def _before_and_after(
    config: EvaluateConfig, run: Loaded, data: Data | None, measurement: Measurement | None
) -> dict[str, Any]:
    """The scores and metrics of the start, which distances are measured from, and of the trained model."""
    start = run.start()
    reference = Reference(start or run.network)
    figures: dict[str, Any] = {"run": config.run, "samples": config.eval_samples, "seed": config.seed, "before": None}
    for name, network in (("before", start), ("after", run.network)):
        if network is None:
            continue
        measured: dict[str, float] = {}
        if measurement is not None:
            writer = Writer(network, run.writer.codec, run.writer.context)
            measured, figures["signatures"] = measurement.of(writer, reference)
        figures[name] = ({} if data is None else _scored(config, run, data, network, reference)) | measured
    if start is None:
        figures["after"] = figures["after"] | {"kl": None}
    figures["bounds"] = {} if data is None else dict(data.bounds)
    return figures


def _printed(figures: dict[str, Any]) -> dict[str, Any]:
    """Print figures as JSON, where one that is not defined is null, and return them as printed."""
    printed: dict[str, Any] = defined(figures)
    print(json.dumps(printed, indent=2, allow_nan=False))
    return printed


def _agent(config: EvaluateConfig) -> dict[str, Any]:
    """The greedy returns of an agent over `eval_samples` episodes, and its exact value where that is known."""
    if config.metrics or config.dataset or config.gold or config.self_play or config.beta is not None:
        measured = "is an agent, which is measured by the returns of greedy episodes"
        raise ConfigError(f"metrics, dataset, gold, self_play, beta: {config.run} {measured}; leave them out")
    trained, network = load_agent(config.run)
    if config.gif is not None:
        film(trained.environment, network, config.seed, Path(config.gif))
    after = Episodes(trained.environment, config.eval_samples, config.seed).evaluate(network)
    after |= start_values(trained.environment, network, trained.objective.gamma)
    return {"run": config.run, "samples": config.eval_samples, "seed": config.seed, "after": after}


def _counted_in(run: str) -> Path | None:
    """The folder of the n-gram model that a run made, or that `run` itself is."""
    return next((folder for folder in (Path(run) / "model", Path(run)) if (folder / HEADER).is_file()), None)


def _counted(config: EvaluateConfig, folder: Path) -> dict[str, Any]:
    """The perplexity of an n-gram model, over the tokens that a network is asked for."""
    asked = [name for name in config.metrics if name != "perplexity"]
    asked += [
        name
        for name in ("vectors", "gold", "self_play", "gif", "off_policy", "beta")
        if getattr(config, name) is not None
    ]
    if asked:
        raise ConfigError(
            f"got {', '.join(asked)} for {config.run}, which is an n-gram model, expected perplexity, all that can be "
            "measured of one; write --metrics perplexity --dataset FILE"
        )
    source, made = config.dataset, Path(config.run) / CONFIG
    if source is None and made.is_file():
        source = from_file(TrainConfig, made).pretrain.eval_dataset
    if source is None:
        raise ConfigError("metrics: got perplexity, expected a dataset to measure on; name --dataset")
    model, tokenizer = NGram.load(folder), load_tokenizer(str(folder))
    rows = list(enumerate(read_rows(source), 1))
    episodes = judged_episodes(rows, source, Joint(tokenizer, [tokenizer.eos_token_id]), None)
    found = Answers(log_probabilities=[model.log_probabilities(e.tokens)[e.decisions] for e in episodes])
    after = with_intervals({"perplexity": Perplexity().score(found, config.seed)})
    return {"run": config.run, "seed": config.seed, "after": after}


def _gold(config: EvaluateConfig, file: Path, run: Loaded) -> dict[str, Any]:
    """How well word vectors agree with people: the embeddings of both models, and the file of `vectors`."""

    def agreement(vectors: Embedder) -> dict[str, float]:
        found = gold_agreement(vectors, file, seed=config.seed)
        return with_intervals({"spearman": found.spearman}) | {"covered": found.spearman.n, "pairs": found.pairs}

    figures: dict[str, Any] = {"run": config.run, "gold": config.gold, "seed": config.seed}
    for name, network in (("before", run.start()), ("after", run.network)):
        figures[name] = None if network is None else agreement(own_vectors(network, run.tokenizer))
    if config.vectors is not None:
        figures["vectors"] = agreement(load_vectors(Path(config.vectors)))
    return figures


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
    return replace(data, eval_prompts=[row for _, row in numbered_prompts(run.config, config.dataset)])


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
    rows = numbered_examples(run.config, source)
    if config.dataset is not None:
        _check_known(run.config, rows, source)
    measurement = Measurement(
        metrics=metrics,
        rows=rows,
        prompts=_prompts(run.config, rows, source),
        source=source,
        labels=() if task is None else task.labels,
        max_completion_length=run.config.max_completion_length,
        vectors=config.vectors,
        seed=config.seed,
    )
    measurement.check()
    return measurement


def _prompts(config: TrainConfig, rows: Rows, source: str) -> Rows:
    """Every row that has right answers, or else each prompt once; none where no row has a prompt."""
    if any("prompt" in row and "references" in row for _, row in rows):
        return rows
    words = config.prompt_words is not None
    if any("prompt" in row or (words and isinstance(row.get("text"), str)) for _, row in rows):
        return numbered_prompts(config, source)
    return []


def _check_known(config: TrainConfig, rows: Rows, source: str) -> None:
    """Raise `DataError`, with file and row, for something evaluated that none of the run's own rows teach."""
    teaching = [file for file in (config.finetune.dataset, config.prompt_dataset) if file is not None]
    if config.row_task is not None and teaching:
        check_against(config, [row for file in teaching for _, row in numbered_examples(config, file)], rows, source)
