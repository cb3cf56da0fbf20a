"""Learning benchmarks: configurations × seeds, each run in a process of its own, with intervals over seeds.

Agents have ten seeds; theirs are summed up by the interquartile mean as well (Agarwal et al. 2021).

    python benchmarks/learning.py walks_offline stories      # these; without names: all
    python benchmarks/learning.py --report                   # print the table from what has been run

A run that is finished is not repeated, and one that was interrupted is resumed, so the command can be given again and
again; nor is a seed whose figures stand in the result already, made by the same command. Results go to
benchmarks/results/<name>.json with versions, machine, and the command of each run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from tokenq.evaluation.control import interquartile_mean
from tokenq.evaluation.intervals import bootstrap, bootstrap_interval
from tokenq.run.report import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "runs" / "benchmarks"
SEEDS = range(5)
WHEN = ("before", "after")


@dataclass(frozen=True)
class Benchmark:
    """A configuration file, what is changed in it, and the seeds it is run with."""

    config: str
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = field(default=tuple(SEEDS))
    tests: dict[str, str] = field(default_factory=dict)
    """Rows that nothing was trained or chosen on, each under a name; measured by the metrics of the task."""

    def command(self, folder: Path, seed: int) -> list[str]:
        resume = ["--resume", "true"] if (folder / "config.yaml").is_file() else []
        return ["train", self.config, "--seed", str(seed), "--output_dir", str(folder), *self.changes, *resume]


def graph(seed: int) -> tuple[str, ...]:
    """Another graph: what is left to prove is that the settings were not made for one."""
    return ("--task.graph_seed", str(seed), "--eval_steps", "null")


DATA = "../shared/data"
# Other model classes than the one an example shows, of about the same size.
CLASSES = {
    "transformer": "{type: rotary_transformer, layers: 2, width: 128, heads: 4, context: 256, dropout: 0.2}",
    "lstm": "{type: recurrent, cell: lstm, layers: 1, width: 128, dropout: 0.2}",
    "gru": "{type: recurrent, cell: gru, layers: 1, width: 128, dropout: 0.2}",
    "rnn": "{type: recurrent, cell: rnn, layers: 1, width: 128, dropout: 0.2}",
}
AFTER_A_TEXT = (
    *("--task.template", "{text} =", "--task.answer", " {}"),
    *("--pretrain.tokenizer", "{type: words, vocabulary: 6000, lowercase: true}"),
)

# At the encoder's rate a recurrent model ends where it began: 0.50 to 0.54 on SST-2. An LSTM takes longest to leave it.
FASTER = {
    cell: ("--finetune.learning_rate", "3e-3", "--finetune.max_steps", str(steps))
    for cell, steps in {"lstm": 2000, "gru": 900, "rnn": 900}.items()
}


def of_class(benchmark: "Benchmark", name: str, *changes: str) -> "Benchmark":
    """The same with a model of another class."""
    return replace(benchmark, changes=(*benchmark.changes, *changes, "--pretrain.architecture", CLASSES[name]))


# What the best of the 20 trials of examples/tune_walks.yaml found on seed 0, rounded.
TUNED_WALKS = (
    *("--learning_rate", "2.3e-3", "--objective.values.beta", "0.04", "--objective.lam", "0.5"),
    *("--target.sync", "{type: periodic, every: 50}"),
)

SST2 = Benchmark("examples/sst2.yaml", tests={"test": f"{DATA}/sst2/test.jsonl"})
TEN = tuple(range(10))
CONTROL = ("acrobot", "mountaincar", "lunarlander", "frozenlake", "taxi", "cliffwalking")
CARTPOLE = Benchmark("examples/control/cartpole.yaml", seeds=TEN)
# One part of the family each, on top of the example, which has double alone.
PARTS = {
    "dqn": ("--objective", "dqn"),
    "dueling": ("--network.dueling", "true"),
    "n_step": ("--replay.n_step", "3"),
    "prioritised": ("--replay.sampler", "prioritised"),
    "munchausen": ("--objective", "munchausen"),
    "c51": ("--objective", "{type: c51, low: 0, high: 100, follows: double}"),
    "qr_dqn": ("--objective", "{type: qr_dqn, follows: double}"),
    "noisy": ("--network.noisy", "0.5", "--exploration", "{type: greedy}"),
    "no_target": ("--target.sync", "{type: none}", "--network.norm", "true"),
}
BABI = Benchmark(
    "examples/babi.yaml",
    tests={
        "task_1": f"{DATA}/babi/en/qa1_single-supporting-fact_test.txt",
        "task_2": f"{DATA}/babi/en/qa2_two-supporting-facts_test.txt",
    },
)
BENCHMARKS = {
    "walks_offline": Benchmark("examples/walks.yaml"),
    "walks_tuned": Benchmark("examples/walks.yaml", TUNED_WALKS),
    "walks_online": Benchmark("examples/walks_online.yaml"),
    "stories": Benchmark("examples/stories.yaml"),
    "double_dqn": Benchmark("examples/double_dqn.yaml"),
    "textbook_dqn": Benchmark("examples/textbook_dqn.yaml"),
    "scored_stories": Benchmark("examples/scored_stories.yaml"),
    **{name: Benchmark(f"examples/games/{name}.yaml") for name in ("maze", "maze_partly", "planning", "star_graph")},
    **{f"walks_{name}": Benchmark(f"examples/walks_{name}.yaml") for name in ("ilql", "cql", "mc")},
    "walks_graph_0": Benchmark("examples/walks.yaml", graph(0)),
    "walks_graph_1": Benchmark("examples/walks.yaml", graph(1)),
    "walks_graph_2": Benchmark("examples/walks.yaml", graph(2)),
    "walks_graph_1002": Benchmark("examples/walks.yaml", graph(1002)),
    # Each form in the other's place, and a maximum over tokens that nobody would say: these lose.
    "walks_head": Benchmark("examples/walks.yaml", ("--objective.values", "head")),
    "stories_logits": Benchmark("examples/stories.yaml", ("--objective.values", "{type: logits, beta: 0.05}")),
    "double_dqn_any_token": Benchmark("examples/double_dqn.yaml", ("--objective.over.probability", "0")),
    "sst2": SST2,
    "sst2_transformer": of_class(SST2, "transformer", *AFTER_A_TEXT),
    **{f"sst2_{cell}": of_class(SST2, cell, *AFTER_A_TEXT, *faster) for cell, faster in FASTER.items()},
    "sst2_bandit": Benchmark("examples/sst2_bandit.yaml", tests={"test": f"{DATA}/sst2/test.jsonl"}),
    "ag_news": Benchmark("examples/ag_news.yaml", tests={"test": f"{DATA}/ag_news/test.jsonl"}),
    "ag_news_bandit": Benchmark("examples/ag_news_bandit.yaml", tests={"test": f"{DATA}/ag_news/test.jsonl"}),
    "multi30k": Benchmark("examples/multi30k.yaml", tests={"test": f"{DATA}/multi30k/test_2016_flickr.{{en,de}}"}),
    "multi30k_fr": Benchmark(
        "examples/multi30k.yaml",
        (
            *("--task.target", "fr", "--prompt_dataset", f"{DATA}/multi30k/train.{{en,fr}}"),
            *("--eval_dataset", f"{DATA}/multi30k/val.{{en,fr}}"),
        ),
        tests={"test": f"{DATA}/multi30k/test_2016_flickr.{{en,fr}}"},
    ),
    "hotels_zh": Benchmark("examples/hotels_zh.yaml", tests={"test": f"{DATA}/chnsenticorp_hotel_zh/test.jsonl"}),
    "tatoeba": Benchmark("examples/tatoeba.yaml", tests={"test": f"{DATA}/tatoeba_en_zh/test.tsv"}),
    "babi": BABI,
    **{f"babi_{name}": of_class(BABI, name) for name in ("lstm", "rnn")},
    **{name: Benchmark(f"examples/control/{name}.yaml", seeds=TEN) for name in CONTROL},
    "cartpole": CARTPOLE,
    **{f"cartpole_{name}": replace(CARTPOLE, changes=changes) for name, changes in PARTS.items()},
    "cartpole_rainbow": Benchmark("examples/control/rainbow.yaml", seeds=TEN),
    "cartpole_pqn": Benchmark("examples/control/pqn.yaml", seeds=TEN),
    "xquad": Benchmark("examples/xquad.yaml", tests={"test": "prepared/xquad/test.jsonl"}),
}


def run(name: str, benchmark: Benchmark, seed: int) -> None:
    folder = RUNS / name / f"seed-{seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "tokenq"]
    with (folder.parent / f"seed-{seed}.log").open("a") as log:
        call = partial(subprocess.run, cwd=ROOT, env=environment, stderr=log, check=True)
        if not (folder / "summary.json").is_file():
            call([*program, *benchmark.command(folder, seed)], stdout=log)
        for test, rows in benchmark.tests.items():
            if not (folder / f"{test}.json").is_file():
                done = call([*program, "evaluate", str(folder), "--dataset", rows], stdout=subprocess.PIPE)
                (folder / f"{test}.json").write_bytes(done.stdout)


def command(name: str, benchmark: Benchmark) -> str:
    """What a user would type for seed N."""
    relative = Path("runs") / "benchmarks" / name / "seed-N"
    return "tokenq " + " ".join(benchmark.command(relative, 0)).replace("--seed 0", "--seed N")


def known(name: str, benchmark: Benchmark) -> dict[str, Any]:
    """The result so far, if it was made by the same command."""
    path = RESULTS / f"{name}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return result if result.get("command") == command(name, benchmark) else {}


def collect(name: str, benchmark: Benchmark) -> dict[str, Any]:
    """The result: what the runs' summaries say, and what an earlier result says about seeds that have no run here."""
    old, summaries, earlier = known(name, benchmark), {}, {}
    for seed in benchmark.seeds:
        if (path := RUNS / name / f"seed-{seed}" / "summary.json").is_file():
            summaries[seed] = json.loads(path.read_text())
        else:
            earlier[seed] = old["seeds"].index(seed)

    def values(part: str, key: str, found: dict[int, dict[str, Any]]) -> list[float]:
        seeds = benchmark.seeds
        return [found[s][key] if s in found else old[part][key]["seeds"][earlier[s]] for s in seeds]

    def of(part: str, found: dict[int, dict[str, Any]], metrics: list[str]) -> dict[str, Any]:
        return {key: statistics(values(part, key, found)) for key in metrics}

    first = next(iter(summaries.values()), None)
    if first is None:
        return old
    metrics = [key for key, value in first["after"].items() if key in first["before"] and value is not None]
    result = {
        "tests": benchmark.tests,
        "name": name,
        "command": command(name, benchmark),
        "seeds": list(benchmark.seeds),
        "reward_calls": first["reward_calls"],
        "updates": first["updates"],
        "wall_seconds": [
            round(summaries[s]["wall_seconds"], 1) if s in summaries else old["wall_seconds"][earlier[s]]
            for s in benchmark.seeds
        ],
        "bounds": {k: v for k, v in first["after"].items() if k not in first["before"]},
        **{when: of(when, {s: summary[when] for s, summary in summaries.items()}, metrics) for when in WHEN},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread a run",
        "versions": versions(),
    }
    for test in benchmark.tests:
        found = {s: json.loads((RUNS / name / f"seed-{s}" / f"{test}.json").read_text()) for s in summaries}
        measured = next(iter(found.values()))["after"]
        metrics = [key for key in measured if f"{key}_low" in measured]
        for when in WHEN:
            result[f"{test}_{when}"] = of(f"{test}_{when}", {s: f[when] for s, f in found.items()}, metrics)
    return result


def statistics(values: list[float]) -> dict[str, object]:
    array = np.array(values)
    low, high = bootstrap_interval(array)
    found: dict[str, object] = {"mean": float(np.mean(values)), "low": low, "high": high}
    if len(values) > len(SEEDS):
        low, high = bootstrap(lambda rows: interquartile_mean(array[rows]), len(array))
        found |= {"iqm": interquartile_mean(array), "iqm_low": low, "iqm_high": high}
    return found | {"seeds": [round(v, 4) for v in values]}


def report() -> None:
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        if "after" not in result:
            continue
        for key in ("reward", "greedy_reward", "kl", "return", "start_value"):
            if key in result["after"]:
                before, after = result["before"][key]["mean"], result["after"][key]
                if "iqm" in after:
                    print(f"| {result['name']} | {key}, IQM | | {after['iqm']:.2f} ", end="")
                    print(f"[{after['iqm_low']:.2f}, {after['iqm_high']:.2f}] | |")
                print(
                    f"| {result['name']} | {key} | {before:.3f} | {after['mean']:.3f} "
                    f"[{after['low']:.3f}, {after['high']:.3f}] | {' '.join(f'{v:.3f}' for v in after['seeds'])} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, help="the first so many alone: what is written says which they were")
    parser.add_argument("--again", action="store_true", help="repeat seeds that the result holds already")
    arguments = parser.parse_args()
    if arguments.report:
        return report()
    names = arguments.names or list(BENCHMARKS)
    RESULTS.mkdir(exist_ok=True)
    with Progress() as progress, ThreadPoolExecutor(arguments.jobs) as pool:
        for name in names:
            benchmark = replace(BENCHMARKS[name], seeds=BENCHMARKS[name].seeds[: arguments.seeds])
            ready = [] if arguments.again else known(name, benchmark).get("seeds", [])
            missing = [seed for seed in benchmark.seeds if seed not in ready]
            task = progress.add_task(name, total=len(missing))
            for done in [pool.submit(run, name, benchmark, seed) for seed in missing]:
                done.result()
                progress.advance(task)
            (RESULTS / f"{name}.json").write_text(json.dumps(collect(name, benchmark), indent=1) + "\n")
    report()


if __name__ == "__main__":
    main()
