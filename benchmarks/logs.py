"""Real logs: behaviour cloning, best-10 % cloning, `mc` and `soft` from the same start, estimated off-policy.

    python examples/logs/rows.py ../shared/data runs/logs
    python benchmarks/logs.py deal city                      # these sets; without names: all four

Every method starts from the clone of its seed, which also stands in for the behaviour in every estimate; returns are
not discounted. Results go to benchmarks/results/logs_<set>.json after every seed: estimates on test.jsonl with
intervals over its episodes for each seed (`within`: their mean), means and intervals over seeds, and for Deal or No
Deal games against the clone, of the clone itself as well. What is finished with the same settings is not repeated, be
it a run or a method's seed in the result file; with other settings the file is begun anew.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tokenq.acting.explore import Boltzmann
from tokenq.envs.negotiation import read_scenarios
from tokenq.evaluation.intervals import bootstrap_interval
from tokenq.evaluation.self_play import Speaker, self_play
from tokenq.run.loaded import load_run
from tokenq.run.report import defined, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LOGS, RUNS = Path("runs/logs"), Path("runs/benchmarks/logs")
SETS = ("deal", "city", "persuasion", "satisfaction")
CONTEXTS = "../shared/data/deal_or_no_deal/selfplay_contexts.txt"
DOUBTED = ("fqe", "wis", "pdis", "dr", "wdr")
"""Estimates with an interval of their own."""
ESTIMATES = (*DOUBTED, "effective_sample_size", "cut_share")

METHODS: dict[str, tuple[str, ...]] = {
    "best_10": (
        *("finetune", "--finetune.dataset", "{logs}/best.jsonl", "--finetune.eval_dataset", "{logs}/best_dev.jsonl"),
        *("--finetune.max_steps", "100", "--finetune.eval_steps", "10", "--finetune.patience", "2"),
    ),
    "mc": ("train", "--finetune.max_steps", "0", "--objective", "{{type: mc, gamma: 1.0}}"),
    "soft": ("train", "--finetune.max_steps", "0"),
}
"""A command, and what is changed in the example's configuration. {logs} is the folder of the set's rows.

The example's own pretraining and fine-tuning make the clone, from which every method starts.
"""


def command(name: str, method: str, seed: int, folder: Path, start: Path, extra: list[str]) -> list[str]:
    verb, *changes = (part.format(logs=LOGS / name) for part in METHODS[method])
    common = ["--model", str(start), "--pretrain.max_steps", "0", "--seed", str(seed), "--output_dir", str(folder)]
    return [verb, f"examples/logs/{name}.yaml", *common, *changes, *extra, *resumed(folder)]


def resumed(folder: Path) -> list[str]:
    return ["--resume", "true"] if (ROOT / folder / "config.yaml").is_file() else []


def tokenq(arguments: list[str], log: Path) -> bytes:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "tokenq", *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
            stdout=subprocess.PIPE,
            stderr=file,
            check=True,
        )
    return done.stdout


def runs_of(made: dict[str, Any]) -> Path:
    """The folder of the runs of these settings."""
    digest = hashlib.sha256(json.dumps([made, METHODS], sort_keys=True).encode()).hexdigest()
    return RUNS / str(made["name"]) / digest[:8]


def cloned(runs: Path, name: str, seed: int, extra: list[str]) -> Path:
    """The folder of the seed's behaviour clone: pretrained on the texts, then fine-tuned on the assistant's turns."""
    folder = runs / f"clone-{seed}"
    if not (ROOT / folder / "model").is_dir():
        config = ["finetune", f"examples/logs/{name}.yaml", "--seed", str(seed), "--output_dir", str(folder)]
        tokenq([*config, *extra, *resumed(folder)], ROOT / runs / f"clone-{seed}.log")
    return folder / "model"


def run(runs: Path, name: str, method: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The estimates of one method and seed, and of its clone."""
    folder = runs / f"{method}-{seed}"
    log = ROOT / runs / f"{method}-{seed}.log"
    start = cloned(runs, name, seed, options.clone)
    if not (ROOT / folder / "model").is_dir():
        tokenq(command(name, method, seed, folder, start, options.train), log)
    estimates = ROOT / folder / "off_policy.json"
    if not estimates.is_file():
        test = ["--dataset", str(LOGS / name / "test.jsonl"), "--off_policy", "fitted_q", "--off_policy.gamma", "1"]
        test += ["--off_policy.batch_size", "16", *(["--off_policy.cluster", "game"] if name == "deal" else [])]
        behaviour = ["--behaviour", str(start), "--seed", str(seed)]
        estimates.write_bytes(tokenq(["evaluate", str(folder), *test, *behaviour, *options.evaluate], log))
    found: dict[str, Any] = json.loads(estimates.read_text())
    if name == "deal":
        found["self_play"] = games(ROOT / folder, start, seed, options.games)
        found["clone_self_play"] = games(ROOT / start.parent, start, seed, options.games)
    return found


def games(folder: Path, start: Path, seed: int, number: int) -> dict[str, Any]:
    """The method's model against the clone, each opening every other game."""
    file = folder / "self_play.json"
    if not file.is_file():
        trained = load_run(str(folder))
        length, clone = trained.config.max_completion_length, load_run(str(ROOT / start.parent))
        ours, theirs = (Speaker(run.writer, Boltzmann(), length) for run in (trained, clone))
        found = self_play(ours, theirs, read_scenarios(ROOT / CONTEXTS), number, seed)
        file.write_text(json.dumps({name: asdict(score) for name, score in found.items()}, indent=1) + "\n")
    read: dict[str, Any] = json.loads(file.read_text())
    return read


def collect(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over seeds with their intervals; the clone is what `before` is in any method's estimates."""
    longest = max(found.values(), key=len)
    table: dict[str, Any] = {"logged": longest[0]["logged"]}
    table["behaviour_cloning"] = _over_seeds(longest, "before") | _self_play(longest, "clone_self_play")
    for method, seeds in found.items():
        table[method] = _over_seeds(seeds, "after") | _self_play(seeds, "self_play")
        table[method]["gain_fqe"] = _figure(seeds, "gain", "fqe")
    return table


def _over_seeds(seeds: list[dict[str, Any]], when: str) -> dict[str, Any]:
    return {name: _figure(seeds, when, name) for name in ESTIMATES}


def _figure(seeds: list[dict[str, Any]], when: str, name: str) -> dict[str, Any]:
    """Over seeds, and `within`: the mean ends of the seeds' own intervals, over test episodes, where there are any."""
    ends = [[figures[when][f"{name}{end}"] for end in ("_low", "_high")] for figures in seeds if name in DOUBTED]
    within = {"within": np.mean(ends, 0).round(4).tolist()} if ends else {}
    return _mean([figures[when][name] for figures in seeds]) | within


def _self_play(seeds: list[dict[str, Any]], whose: str) -> dict[str, Any]:
    games = [figures[whose] for figures in seeds if whose in figures]
    # An undefined figure comes back from the file as null.
    values = {key: [game[key]["value"] for game in games] for key in games[0]} if games else {}
    means = {key: _mean([np.nan if value is None else value for value in found]) for key, found in values.items()}
    return {"self_play": means} if means else {}


def _mean(values: list[float]) -> dict[str, Any]:
    low, high = bootstrap_interval(np.array(values))
    return {"mean": float(np.mean(values)), "low": low, "high": high, "seeds": [round(value, 4) for value in values]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SETS])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--games", type=int, default=400)
    for stage in ("clone", "train", "evaluate"):
        parser.add_argument(
            f"--{stage}", type=str.split, default=[], help=f"more options for the commands that {stage}"
        )
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or SETS:
        table = benchmark(name, options)
        for method in ("behaviour_cloning", *options.methods):
            row = " | ".join(f"{table[method][key]['mean']:.3f}" for key in ESTIMATES)
            print(f"| {name} | {method} | {row} |")


def benchmark(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The set's table, over at least so many seeds; the result file is written after each."""
    config = f"examples/logs/{name}.yaml"
    made: dict[str, Any] = {
        "name": f"logs_{name}",
        "config": config,
        "settings": yaml.safe_load((ROOT / config).read_text("utf-8")),
        "options": {stage: vars(options)[stage] for stage in ("clone", "train", "evaluate", "games")},
    }
    runs = earlier(made)
    asked = {method: runs.setdefault(method, []) for method in options.methods}
    for seed in range(options.seeds):
        lacking = [method for method, found in asked.items() if len(found) == seed]
        for method in lacking:
            asked[method].append(run(runs_of(made), name, method, seed, options))
        if lacking:
            known = {method: found for method, found in runs.items() if found}
            changes = {"changes": {method: list(METHODS[method]) for method in known}}
            seeds = {"seeds": {method: list(range(len(found))) for method, found in known.items()}}
            result = made | changes | seeds | {"table": collect(known), "runs": known}
            result |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "versions": versions()}
            result_file(made).write_text(json.dumps(defined(result), indent=1, allow_nan=False) + "\n")
    return collect(runs)


def result_file(made: dict[str, Any]) -> Path:
    return RESULTS / f"{made['name']}.json"


def earlier(made: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The estimates of each method, seed by seed, that stand in the result file, if they were made the same way."""
    result = json.loads(result_file(made).read_text()) if result_file(made).is_file() else {}
    if not made.items() <= result.items():
        return {}
    same = [method for method, change in METHODS.items() if result["changes"].get(method) == list(change)]
    return {method: result["runs"][method] for method in same}


if __name__ == "__main__":
    main()
