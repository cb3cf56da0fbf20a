"""What one Q-update costs beside one cross-entropy step of the same model on the same texts.

    python benchmarks/update_cost.py

The two alternate, so that a machine whose speed drifts treats both alike; the figure is the median of the ratios of
neighbours. The cross-entropy step is transformers' own: model(input_ids, labels=...).loss.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import track
from transformers import GPT2Config, GPT2LMHeadModel

from tokenq.learning.learner import Learner, Optimisation
from tokenq.learning.objectives import DoubleDQN, Soft
from tokenq.learning.scaling import RawRewards
from tokenq.learning.sync import NoTarget, Polyak
from tokenq.learning.target import LastLayers, Target, TargetConfig
from tokenq.learning.values import Head, Logits
from tokenq.nets.language import LanguageQ, ValueHead
from tokenq.nets.reference import Reference
from tokenq.replay.buffer import Sample
from tokenq.replay.collate import collate
from tokenq.run.report import versions
from tokenq.types import Batch, Episode

RESULT = Path(__file__).parent / "results" / "update_cost.json"
VOCABULARY, TEXTS, LENGTH, PROMPT, ROUNDS = 50_257, 16, 64, 16, 15
VARIANTS = {
    "soft, logits, polyak": (Soft(values=Logits(), lam=0.0), TargetConfig(sync=Polyak())),
    "soft, logits, last layer lags": (Soft(values=Logits(), lam=0.0), TargetConfig(sync=Polyak(), scope=LastLayers(1))),
    "soft, head K=4, lambda 1, no target": (Soft(values=Head(), lam=1.0), TargetConfig(sync=NoTarget())),
    "soft, head dense softmax, lambda 1": (Soft(values=Head(samples=0), lam=1.0), TargetConfig(sync=NoTarget())),
    "double_dqn, 8 plausible, polyak": (DoubleDQN(), TargetConfig(sync=Polyak())),
}


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=256, n_layer=6, n_head=8))


def episodes() -> list[Episode]:
    rng = np.random.default_rng(0)
    decisions = np.arange(PROMPT, LENGTH)
    rewards = np.zeros(len(decisions))
    rewards[-1] = 1.0
    return [Episode(rng.integers(0, VOCABULARY, LENGTH), decisions, rewards, True) for _ in range(TEXTS)]


def cross_entropy_step() -> Callable[[], object]:
    network = model().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    tokens = torch.tensor(np.array([e.tokens for e in episodes()]))

    def step() -> None:
        network(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def q_update(name: str) -> tuple[Callable[[], object], int]:
    objective, config = VARIANTS[name]
    causal = model()
    head = ValueHead(causal.config.hidden_size) if isinstance(objective.values, Head) else None
    network = LanguageQ(causal, head)
    recorded = Reference(network, objective.plausible).record(episodes())
    batch: Batch = collate(Sample(recorded, np.arange(TEXTS), np.ones(TEXTS, np.float32)), 0)
    target = Target(network, config, 0)
    learner = Learner(network, objective, target, RawRewards(), Optimisation(1e-5), Accelerator(cpu=True))
    return lambda: learner.update(batch), target.bytes


def seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    result = {}
    for name in VARIANTS:
        ours, size = q_update(name)
        theirs = cross_entropy_step()
        ours(), theirs()
        pairs = [(seconds(ours), seconds(theirs)) for _ in track(range(ROUNDS), description=name)]
        ratios = np.array([a / b for a, b in pairs])
        low, high = np.quantile(ratios, [0.25, 0.75])
        result[name] = {
            "ratio": float(np.median(ratios)),
            "quartiles": [float(low), float(high)],
            "update_seconds": float(np.median([a for a, _ in pairs])),
            "cross_entropy_seconds": float(np.median([b for _, b in pairs])),
            "target_bytes": size,
        }
        print(f"| {name} | {np.median(ratios):.2f} [{low:.2f}, {high:.2f}] | {size:,} |")
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, {platform.machine()}"
    RESULT.write_text(json.dumps({"variants": result, "machine": threads, "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
