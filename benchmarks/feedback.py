"""Accuracy against feedback: soft Q-learning beside REINFORCE and TRL's GRPO and RLOO, from the same start.

    python benchmarks/feedback.py ../shared/data [--corpus sst2] [--method soft] [--seeds 5]
    python benchmarks/feedback.py --draw

A decoder-only Transformer says one word after a text, and learns only whether that word was the right label: 64 such
scores a round, 400 rounds. The start knows the texts and that a label follows, with labels drawn by lot. Accuracy is
that of the most probable word on test texts. Soft Q-learning makes four updates a round, of everything that was said so
far; the others have to forget what an update has used. `--rate` measures other learning rates on the development texts.
What is in the result file already is not run again. TRL comes with `pip install "tokenq[benchmarks]"`.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from tokenq import QTrainer, TrainConfig
from tokenq.config.supervised import PretrainConfig
from tokenq.config.train import ReplayConfig
from tokenq.envs.classification import Classification
from tokenq.evaluation.intervals import bootstrap_interval
from tokenq.learning.objectives import Soft
from tokenq.learning.sync import NoTarget
from tokenq.learning.target import TargetConfig
from tokenq.learning.values import Head
from tokenq.nets.architectures import RotaryTransformer
from tokenq.nets.loading import save_model
from tokenq.nets.ragged import by_length
from tokenq.nets.tokenizers import Words
from tokenq.replay.rows import read_rows
from tokenq.run.corpus import tokens_of
from tokenq.run.drive import updates
from tokenq.run.report import versions
from tokenq.run.seeding import seed_everything
from tokenq.run.stage import Stage
from tokenq.run.supervise import pretrain_model

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "feedback.json"
PICTURE = ROOT / "docs" / "figures" / "feedback.png"
ROUNDS, EVERY, BATCH = 400, 50, 64
REUSE = 4
GENERATIONS = 8
NAMES = {"sst2": ["negative", "positive"], "ag_news": ["world", "sports", "business", "technology"]}
CONTEXT = {"sst2": 80, "ag_news": 200}


@dataclass(frozen=True)
class Corpus:
    """Rows of a task, ready for every method."""

    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    task: Classification


def rows(folder: Path, corpus: str, part: str) -> Corpus:
    task = Classification(NAMES[corpus], template="{text} =", answer=" {}")
    read = {name: task.examples(read_rows(str(folder / corpus / f"{name}.jsonl"))) for name in ("train", part)}
    return Corpus(read["train"], read[part], task)


def make_start(data: Corpus, corpus: str, place: Path, seed: int) -> None:
    """A model that has read the texts and ends each with some label or other."""
    seed_everything(seed)
    lot = random.Random(seed)
    texts = [f"{row['prompt']} {lot.choice(data.task.names)}" for row in data.train]
    tokenizer = Words(vocabulary=6000, lowercase=True).train(texts, "bare", False)
    # Rotary positions: TRL pads prompts on the left and does not say where they begin.
    model = RotaryTransformer(layers=2, width=128, heads=4, context=CONTEXT[corpus]).build(tokenizer).eval()
    config = PretrainConfig(max_steps=200, per_device_train_batch_size=32)
    stage = Stage("pretraining", "pretrain", place / "pretrain", logging_steps=100, save_steps=200)
    pretrain_model(model, tokenizer, tokens_of(texts, tokenizer), [], config, seed, stage)
    save_model(model, tokenizer, place)


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, data: Corpus) -> float:
    """Share of texts whose most probable next word is their label."""
    right = 0
    for start in range(0, len(data.test), 128):
        part = data.test[start : start + 128]
        words = next_words(model, *prompts(tokenizer, part)).argmax(-1).tolist()
        right += sum(tokenizer.decode(w).strip() == row["references"][0] for w, row in zip(words, part, strict=True))
    return right / len(data.test)


def prompts(tokenizer: Any, part: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, padded at the end, and lengths."""
    ids = [torch.tensor(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]) for row in part]
    return pad_sequence(ids, batch_first=True), torch.tensor([len(i) for i in ids])


def next_words(model: Any, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Logits after each prompt; what is padded comes later and is not seen."""

    def read(ids: torch.Tensor, heard: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = model.get_decoder()(input_ids=ids).last_hidden_state
        return (hidden[torch.arange(len(ids)), heard.sum(1) - 1],)

    (hidden,) = by_length(read, (ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()))
    logits: torch.Tensor = model.get_output_embeddings()(hidden)
    return logits


def soft(start: Path, data: Corpus, seed: int, rate: float) -> list[float]:
    """This library, with everything that was said kept for replay."""
    reached: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            model=str(start), output_dir=f"{folder}/run", seed=seed, max_steps=REUSE * ROUNDS, offline_steps=0,
            generation_batch_size=BATCH, steps_per_generation=REUSE, per_device_train_batch_size=BATCH,
            max_completion_length=1, learning_rate=rate, lr_scheduler_type="linear", weight_decay=0.1, eval_samples=1,
            objective=Soft(values=Head(beta=0.2), lam=1.0), target=TargetConfig(sync=NoTarget()),
            replay=ReplayConfig(capacity_episodes=None), save_steps=REUSE * ROUNDS,
        )  # fmt: skip
        trainer = QTrainer(str(start), data.task.reward, config, data.train, data.train[:1])
        for row in updates(trainer.session):
            if row["update"] % (REUSE * EVERY) == 0:
                reached.append(accuracy(trainer.model, trainer.session.tokenizer, data))
    return reached


def reinforce(start: Path, data: Corpus, seed: int, rate: float) -> list[float]:
    """Williams (1992), eq. 11, with the mean reward so far as its baseline."""
    tokenizer, model = AutoTokenizer.from_pretrained(start), AutoModelForCausalLM.from_pretrained(start).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    order, total, count = shuffled(data.train, seed), 0.0, 0
    reached = []
    torch.manual_seed(seed)
    for update in range(1, ROUNDS + 1):
        part = [next(order) for _ in range(BATCH)]
        logits = next_words(model, *prompts(tokenizer, part))
        said = torch.distributions.Categorical(logits=logits.detach()).sample()
        answers = [tokenizer.decode(word) for word in said.tolist()]
        scores = torch.tensor(data.task.reward(answers, [row["references"] for row in part]))
        total, count = total + float(scores.sum()), count + BATCH
        ((scores - total / count) * cross_entropy(logits, said, reduction="none")).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - (update - 1) / ROUNDS)
        optimiser.step()
        optimiser.zero_grad()
        if update % EVERY == 0:
            reached.append(accuracy(model, tokenizer, data))
    return reached


def shuffled(found: Sequence[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    while True:
        yield from (found[i] for i in rng.permutation(len(found)))


class Watch(TrainerCallback):
    """Measures the model every so many updates."""

    def __init__(self, measure: Callable[[Any], float]) -> None:
        self.measure = measure
        self.reached: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % EVERY == 0:
            model.eval()
            self.reached.append(self.measure(model))
            model.train()


def from_trl(name: str, start: Path, data: Corpus, seed: int, rate: float) -> list[float]:
    """TRL's trainer of this name, with eight completions a prompt and no distance from the reference to pay for."""
    import trl

    tokenizer = AutoTokenizer.from_pretrained(start)
    asked = Dataset.from_list([{key: row[key] for key in ("prompt", "references")} for row in data.train])
    watch = Watch(lambda model: accuracy(model, tokenizer, data))
    with tempfile.TemporaryDirectory() as folder:
        args = getattr(trl, f"{name}Config")(
            output_dir=folder, seed=seed, max_steps=ROUNDS, per_device_train_batch_size=BATCH,
            num_generations=GENERATIONS, max_completion_length=1, learning_rate=rate, weight_decay=0.1, beta=0.0,
            temperature=1.0, use_cpu=True,
            bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", logging_steps=ROUNDS,
            disable_tqdm=True, disable_dropout=True,
        )  # fmt: skip
        trainer = getattr(trl, f"{name}Trainer")(
            model=AutoModelForCausalLM.from_pretrained(start), reward_funcs=data.task.reward, args=args,
            train_dataset=asked, processing_class=tokenizer, callbacks=[watch],
        )  # fmt: skip
        # Without Triton TRL 1.16 scores every position of a prompt to keep the one that was asked for.
        with patch("trl.trainer.utils._use_triton", return_value=True):
            trainer.train()
    return watch.reached


METHODS: dict[str, Callable[..., list[float]]] = {
    "soft": soft,
    "reinforce": reinforce,
    "grpo": partial(from_trl, "GRPO"),
    "rloo": partial(from_trl, "RLOO"),
}
RATES: dict[str, dict[str, float]] = {
    "soft": {},
    "reinforce": {"ag_news": 3e-4},
    "grpo": {"ag_news": 3e-4},
    "rloo": {"ag_news": 3e-4},
}
"""Learning rates where 1e-3 is not the best of those tried on development texts."""


def rate_of(method: str, corpus: str) -> float:
    return RATES[method].get(corpus, 1e-3)


def draw() -> None:
    """Mean accuracy and its interval over seeds, for each corpus and method."""
    found = json.loads(RESULT.read_text())["runs"]
    corpora = [corpus for corpus in NAMES if any(key.startswith(corpus) for key in found)]
    figure, axes = plt.subplots(
        1, len(corpora), figsize=(5.5 * len(corpora), 4), constrained_layout=True, squeeze=False
    )
    for axis, corpus in zip(axes[0], corpora, strict=True):
        for method in METHODS:
            curves = np.array([v for key, v in found.items() if key.startswith(f"{corpus} {method} ")])
            if len(curves) == 0:
                continue
            feedback = BATCH * EVERY * np.arange(curves.shape[1])
            low, high = np.array([bootstrap_interval(column) for column in curves.T]).T
            axis.plot(feedback, curves.mean(0), label=method)
            axis.fill_between(feedback, low, high, alpha=0.2)
            last = bootstrap_interval(curves[:, -1])
            print(
                f"| {corpus} | {method} | {curves[:, -1].mean():.3f} [{last[0]:.3f}, {last[1]:.3f}] | {len(curves)} |"
            )
        axis.set(title=corpus, xlabel="labels that were scored", ylabel="accuracy on test texts")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(PICTURE, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--corpus", choices=NAMES, action="append")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rate", type=float, help="another rate, measured on development texts and not written down")
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.draw:
        return draw()
    with Progress() as progress, tempfile.TemporaryDirectory() as place:
        for corpus in arguments.corpus or NAMES:
            data = rows(arguments.folder, corpus, "test" if arguments.rate is None else "dev")
            task = progress.add_task(corpus, total=arguments.seeds * len(arguments.method or METHODS))
            for seed in range(arguments.seeds):
                start = Path(place) / f"{corpus}-{seed}"
                for method in arguments.method or METHODS:
                    key = f"{corpus} {method} seed {seed}"
                    found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                    if key not in found["runs"] or arguments.rate is not None:
                        if not start.is_dir():
                            start.mkdir()
                            make_start(data, corpus, start, seed)
                            model = AutoModelForCausalLM.from_pretrained(start).eval()
                            before = accuracy(model, AutoTokenizer.from_pretrained(start), data)
                        rate = arguments.rate or rate_of(method, corpus)
                        curve = [before, *METHODS[method](start, data, seed, rate)]
                        print(key, rate, [round(value, 3) for value in curve], flush=True)
                        if arguments.rate is None:
                            # Another process may have written since.
                            found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                            found["runs"][key] = curve
                            found["rates"] = {c: {m: rate_of(m, c) for m in METHODS} for c in NAMES}
                            found["versions"] = versions()
                            RESULT.write_text(json.dumps(found, indent=1) + "\n")
                    progress.advance(task)


if __name__ == "__main__":
    main()
