"""Perplexity of neural language models of equal size and equal time, beside the n-gram models.

    python benchmarks/perplexity.py FOLDER --seconds 600 --seeds 5 [--corpus NAME] [--model NAME]

Texts and the way of counting are those of `ngram_perplexity.py`: every token of the test text is predicted once, from
all that came before it (recurrent models) or from at least half a context (Transformer). Each update reads 1,024
characters or 512 words; recurrent models read on where they stopped. The first twentieth of the training text validates
(the last one is of the same play as the test text, and worth a fifth of an n-gram model's perplexity); the weights that
validate best are the ones that are tested. Time is that of one processor with bfloat16 arithmetic, one thread a run, so
that all models must be timed on the same kind. What is in the result file already is not run again.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ngram_perplexity import characters, words
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from tokenq.nets.architectures import Recurrent, RotaryTransformer
from tokenq.nets.language import LanguageQ
from tokenq.run.report import versions
from tokenq.supervised import EarlyStopping

RESULT = Path(__file__).parent / "results" / "perplexity.json"
EVERY = 250


class Sized:
    """What `Architecture.build` needs of a tokenizer: ids are numbers here from the start."""

    eos_token_id = bos_token_id = pad_token_id = 0

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return self.vocabulary


CORPORA = {"tinyshakespeare": characters, "wikitext2": words}
# Nearly the same number of parameters on each corpus. Dropout and rates were chosen on the validation texts, seed 0.
MODELS: dict[str, dict[str, Any]] = {
    "tinyshakespeare": {
        "lstm": Recurrent("lstm", layers=2, width=256, dropout=0.2),
        "gru": Recurrent("gru", layers=2, width=296, dropout=0.2),
        "transformer": RotaryTransformer(layers=2, width=208, heads=4, context=128),
    },
    "wikitext2": {
        "lstm": Recurrent("lstm", layers=1, width=128, dropout=0.2),
        "gru": Recurrent("gru", layers=1, width=130, dropout=0.2),
        "transformer": RotaryTransformer(layers=2, width=112, heads=4, context=64, dropout=0.2),
    },
}


@dataclass(frozen=True)
class Rates:
    """Learning rates of Muon and AdamW, and the weight decay of both."""

    muon: float
    adam: float
    decay: float


RATES = {"tinyshakespeare": Rates(1e-2, 3e-3, 0.01), "wikitext2": Rates(1e-2, 5e-3, 0.1)}
SHAPES = {"tinyshakespeare": (16, 128), "wikitext2": (8, 64)}


def lanes(stream: np.ndarray, rows: int, length: int, rng: np.random.Generator) -> Iterator[tuple[bool, torch.Tensor]]:
    """Blocks of `length` + 1 tokens from `rows` places, each where the last one stopped; whether it is a new epoch."""
    while True:
        turned = np.roll(stream, rng.integers(len(stream)))
        each = (len(turned) - 1) // rows
        for start in range(0, each - length, length):
            places = [row * each + start for row in range(rows)]
            yield start == 0, torch.from_numpy(np.stack([turned[place : place + length + 1] for place in places]))


@torch.no_grad()
def nats(network: LanguageQ, stream: np.ndarray) -> float:
    """Mean negative log-likelihood of every token but the first."""
    model: Any = network.model
    tokens = torch.from_numpy(stream)[None]
    if model.config.model_type != "gpt_neox":
        total, state = 0.0, None
        for start in range(0, tokens.shape[1] - 1, 4096):
            part = tokens[:, start : start + 4097]
            answer = model(input_ids=part[:, :-1], state=state, use_cache=True)
            state = answer.state
            total += float(cross_entropy(answer.logits[0].float(), part[0, 1:], reduction="sum"))
        return total / (tokens.shape[1] - 1)
    half, total, count = model.config.max_position_embeddings // 2, 0.0, 0
    for start in range(0, tokens.shape[1] - 1, half):
        part = tokens[:, max(0, start - half) : start + half + 1]
        fresh = min(half, tokens.shape[1] - 1 - start)
        logits = model(input_ids=part[:, :-1]).logits[0, -fresh:].float()
        total += float(cross_entropy(logits, part[0, -fresh:], reduction="sum"))
        count += fresh
    return total / count


def optimisers(model: PreTrainedModel, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embedding and output, AdamW for everything else."""
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    inner = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in ends]
    return [
        torch.optim.Muon(inner, lr=rates.muon, weight_decay=rates.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rates.adam, betas=(0.9, 0.95), weight_decay=rates.decay),
    ]


def train(
    network: LanguageQ, blocks: Iterator[tuple[bool, torch.Tensor]], rates: Rates, seconds: float
) -> Iterator[int]:
    """Updates until the time is over; the learning rates fall along a cosine of the time that has passed."""
    model: Any = network.model
    recurrent = model.config.model_type != "gpt_neox"
    both = optimisers(model, rates)
    groups = [(group, group["lr"]) for optimiser in both for group in optimiser.param_groups]
    began, update, state = time.process_time(), 0, None
    while (passed := (time.process_time() - began) / seconds) < 1:
        for group, rate in groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * passed)) * min(1, (update + 1) / 50)
        fresh, block = next(blocks)
        model.train()
        options = {"state": None if fresh else state, "use_cache": True} if recurrent else {}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = model(input_ids=block[:, :-1], **options)
        model.eval()
        cross_entropy(answer.logits.float().flatten(0, 1), block[:, 1:].flatten()).backward()
        state = answer.state.detach() if recurrent else None
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in both:
            optimiser.step()
            optimiser.zero_grad()
        update += 1
        yield update


def run(name: str, model_name: str, folder: Path, seconds: float, seed: int) -> Any:
    train_texts, test_texts, vocabulary = CORPORA[name](folder)
    end = vocabulary - 1
    stream = np.array([token for text in train_texts for token in [*text, end]])
    test = np.array([end, *(token for text in test_texts for token in [*text, end])])
    held_out, stream = np.split(stream, [len(stream) // 20])
    torch.manual_seed(seed)
    model: PreTrainedModel = MODELS[name][model_name].build(Sized(vocabulary)).eval()
    network = LanguageQ(model)
    best = EarlyStopping(model, None)
    update = 0
    blocks = lanes(stream, *SHAPES[name], np.random.default_rng(seed))
    for update in train(network, blocks, RATES[name], seconds):
        if update % EVERY == 0:
            best.observe(update, nats(network, held_out))
    best.observe(update, nats(network, held_out))
    best.restore()
    return {
        "perplexity": math.exp(nats(network, test)),
        "validation": math.exp(best.best),
        "updates": update,
        "best_update": best.best_update,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--corpus", choices=CORPORA, action="append")
    parser.add_argument("--model", choices=MODELS["wikitext2"], action="append")
    arguments = parser.parse_args()
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        parser.error("got a processor where torch has no fast bfloat16, expected one; LSTMs fail without, others crawl")
    torch.set_num_threads(1)
    with Progress() as progress:
        for corpus in arguments.corpus or CORPORA:
            for name in arguments.model or MODELS[corpus]:
                task = progress.add_task(f"{corpus} {name}", total=arguments.seeds)
                for seed in range(arguments.seeds):
                    key = f"{corpus} {name} {arguments.seconds:.0f}s seed {seed}"
                    found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                    if key not in found["runs"]:
                        result = run(corpus, name, arguments.folder, arguments.seconds, seed)
                        found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                        found["runs"][key] = result
                        found["versions"] = versions()
                        RESULT.write_text(json.dumps(found, indent=1) + "\n")
                        print(key, result)
                    progress.advance(task)


if __name__ == "__main__":
    main()
