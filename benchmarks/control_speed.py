"""Environment steps per second of an agent, beside Stable-Baselines3's DQN, in one run.

    python benchmarks/control_speed.py [--steps 20000] [--repeats 5] [--threads 2]

Both train on CartPole-v1 with the same network (two layers of 256), batch (64), number of updates (128 after every
256 environment steps), target copy (after every 128 updates), learning rate and exploration: the recipe of
rl-baselines3-zoo. Neither evaluates nor logs. They take turns, so that a machine whose speed drifts is unfair to none;
ratios are those of neighbours. Sampling is timed apart, 64 of 50,000 transitions, drawn as each trains. The last
rows are the time of an update in a bare loop of torch, plain, in 16 bits and compiled (which needs a C++ compiler), and
that of its matrix products by themselves. Stable-Baselines3 comes with `pip install "tokenq[benchmarks]"`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import stable_baselines3
import torch
from rich.progress import track

from tokenq.acting.explore import EpsilonGreedy
from tokenq.config.control import ControlConfig
from tokenq.learning.losses import Huber
from tokenq.learning.objectives import DQN, Vocabulary
from tokenq.learning.sync import Periodic
from tokenq.learning.target import TargetConfig
from tokenq.learning.values import Raw
from tokenq.nets.control import Mlp
from tokenq.replay.transitions import Transitions
from tokenq.run.control import prepare
from tokenq.run.report import versions
from tokenq.types import Steps

RESULT = Path(__file__).parent / "results" / "control_speed.json"
STARTS, ROUND, UPDATES, BATCH, WIDTH = 1_000, 256, 128, 64, 256


def tokenq_seconds(steps: int, num_envs: int, seed: int) -> float:
    """Training from the first random step to the last update."""
    with tempfile.TemporaryDirectory() as folder:
        config = ControlConfig(
            num_envs=num_envs, output_dir=f"{folder}/run", seed=seed, environment_steps=steps, learning_starts=STARTS,
            steps_per_rollout=ROUND, updates_per_rollout=UPDATES, network=Mlp(2, WIDTH),
            objective=DQN(Raw(), Vocabulary(), 0.99, Huber()), target=TargetConfig(Periodic(UPDATES)),
            exploration=EpsilonGreedy(1.0, 0.04, 4_000), per_device_train_batch_size=BATCH, learning_rate=2.3e-3,
        )  # fmt: skip
        session = prepare(replace(config, learning_starts=STARTS // num_envs * num_envs))
        began = time.perf_counter()
        session.begin()
        for _ in session.learn():
            pass
        return time.perf_counter() - began


def sb3_seconds(steps: int, seed: int) -> float:
    """The same by Stable-Baselines3."""
    model = sb3_model(seed)
    began = time.perf_counter()
    model.learn(steps)
    return time.perf_counter() - began


def sb3_model(seed: int) -> "stable_baselines3.DQN":
    return stable_baselines3.DQN(
        "MlpPolicy", gymnasium.make("CartPole-v1"), learning_rate=2.3e-3, batch_size=BATCH, buffer_size=100_000,
        learning_starts=STARTS, gamma=0.99, target_update_interval=10, train_freq=ROUND, gradient_steps=UPDATES,
        exploration_fraction=0.16, exploration_final_eps=0.04, policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        seed=seed, device="cpu",
    )  # fmt: skip


def sampling_seconds() -> tuple[float, float]:
    """Time of one batch out of 50,000 transitions, drawn as each library trains: ours, theirs."""
    rng = np.random.default_rng(0)
    ours, theirs = Transitions(100_000), sb3_model(0).replay_buffer
    for t in range(50_000):
        before, after = rng.normal(size=(2, 1, 4)).astype(np.float32)
        one, no = np.ones(1), np.zeros(1, bool)
        ours.add(Steps(before, np.array([t % 2]), one, after, np.array([t % 50 == 49]), no))
        theirs.add(before, after, np.array([[t % 2]]), one, np.array([t % 50 == 49]), [{}])

    def round_of_ours() -> None:
        for _ in ours.sample_many(BATCH, UPDATES, rng, 0):
            pass

    return timed(round_of_ours, 20) / UPDATES, timed(lambda: theirs.sample(BATCH), 20 * UPDATES)


def products_seconds() -> float:
    """What the matrix products of one update cost: forward, backward, and forward through the target."""
    sizes = [(4, WIDTH), (WIDTH, WIDTH), (WIDTH, 2)]
    rows = [(torch.randn(BATCH, a), torch.randn(a, b), torch.randn(BATCH, b)) for a, b in sizes]

    def products() -> None:
        for x, w, g in rows:
            torch.mm(x, w), torch.mm(x, w), torch.mm(x.T, g)
        for _, w, g in rows[1:]:
            torch.mm(g, w.T)

    return timed(products, 2_000)


def plain_seconds() -> dict[str, float]:
    """One update in a bare loop of torch, without replay, environment, target or metrics: what is left to gain."""
    x, goal = torch.randn(BATCH, 4), torch.randn(BATCH)
    taken = torch.randint(2, (BATCH, 1))

    def update(compiled: bool, half: bool) -> Callable[[], None]:
        layers = (torch.nn.Linear(4, WIDTH), torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 2))
        network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

        def loss() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                q = network(x).gather(1, taken).squeeze(1)
            return torch.nn.functional.huber_loss(q.float(), goal)

        step = torch.compile(loss) if compiled else loss

        def once() -> None:
            optimiser.zero_grad()
            step().backward()
            optimiser.step()

        return once

    ways = {"eager": (False, False), "bfloat16": (False, True), "compiled": (True, False)}
    return {name: timed(update(*way), 2_000) for name, way in ways.items()}


def timed(call: Callable[[], object], times: int) -> float:
    call()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [0, 50, 100])
    return {"median": float(median), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rates: dict[str, list[float]] = {"sb3": [], "tokenq": [], "tokenq, 8 environments": []}
    products, ours, theirs = [], [], []
    plain: dict[str, list[float]] = {}
    for seed in track(range(arguments.repeats)):
        rates["sb3"].append(arguments.steps / sb3_seconds(arguments.steps, seed))
        rates["tokenq"].append(arguments.steps / tokenq_seconds(arguments.steps, 1, seed))
        rates["tokenq, 8 environments"].append(arguments.steps / tokenq_seconds(arguments.steps, 8, seed))
        products.append(products_seconds())
        for name, seconds in plain_seconds().items():
            plain.setdefault(name, []).append(1e6 * seconds)
        times = sampling_seconds()
        ours.append(times[0]), theirs.append(times[1])
    ratios = {
        name: summary([ours / theirs for ours, theirs in zip(values, rates["sb3"], strict=True)])
        for name, values in rates.items()
        if name != "sb3"
    }
    found = {
        "command": f"python benchmarks/control_speed.py --steps {arguments.steps} --repeats {arguments.repeats}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads",
        "steps_per_second": {name: summary(values) for name, values in rates.items()},
        "ratio_to_sb3": ratios,
        "sampling_microseconds": {
            "sb3": summary([1e6 * t for t in theirs]),
            "tokenq": summary([1e6 * t for t in ours]),
        },
        "sampling_ratio": summary([t / o for o, t in zip(ours, theirs, strict=True)]),
        "bare_update_microseconds": {name: summary(values) for name, values in plain.items()},
        "products_of_one_update_microseconds": summary([1e6 * value for value in products]),
        "versions": versions() | {"stable_baselines3": stable_baselines3.__version__},
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
