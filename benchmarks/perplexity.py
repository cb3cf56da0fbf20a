"""Perplexity of neural language models of equal size after equally many updates, beside the n-gram models.

    python benchmarks/perplexity.py FOLDER [--seeds 5] [--corpus NAME] [--model NAME]

Texts and the way of counting are those of `ngram_perplexity.py`: every token of the test text is predicted once, from
all that came before it (recurrent models) or from at least three quarters of a context (Transformer). 6,000 updates
read 2,048 characters each, 3,500 updates 512 words, of the same text for all models; recurrent models read on where
they stopped. The first twentieth of the training text validates (the last one is of the same play as the test text, and
worth a fifth of an n-gram model's perplexity); the weights that validate best are the ones that are tested. Arithmetic
is bfloat16, on an accelerator if there is one. What is in the result file already is not run again.
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
from tokenq.nets.loading import device
from tokenq.run.report import versions
from tokenq.supervised import EarlyStopping

RESULT = Path(__file__).parent / "results" / "perplexity.json"
EVERY = 500
"""Updates between two validations; the last update must be one of them."""


class Sized:
    """What `Architecture.build` needs of a tokenizer: ids are numbers here from the start."""

    eos_token_id = bos_token_id = pad_token_id = 0

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return self.vocabulary


CORPORA = {"tinyshakespeare": characters, "wikitext2": words}
# Nearly the same number of parameters on each corpus. Dropout and rates were chosen on the validation texts by
# seed 0; that of the Transformer on characters by five.
MODELS: dict[str, dict[str, Any]] = {
    "tinyshakespeare": {
        "lstm": Recurrent("lstm", layers=2, width=256, dropout=0.2),
        "gru": Recurrent("gru", layers=2, width=296, dropout=0.2),
        "transformer": RotaryTransformer(layers=4, width=144, heads=4, context=128),
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
# At the rates of the others a GRU on characters diverges after 500 updates, on each of five seeds.
OWN_RATES = {("tinyshakespeare", "gru"): Rates(3e-3, 2e-3, 0.01)}
UPDATES = {"tinyshakespeare": 6000, "wikitext2": 3500}
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
    tokens = torch.from_numpy(stream).to(network.device)
    recurrent = network.causal.config.model_type != "gpt_neox"
    parts = _read_on(network.model, tokens) if recurrent else _windows(network.model, tokens)
    total, count = 0.0, 0
    for logits, following in parts:
        total += float(cross_entropy(logits.float().flatten(0, 1), following.flatten(), reduction="sum"))
        count += following.numel()
    assert count == len(stream) - 1
    return total / count


def _read_on(model: Any, tokens: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and what they should have said, from everything that came before."""
    state = None
    for start in range(0, len(tokens) - 1, 4096):
        part = tokens[None, start : start + 4097]
        answer = model(input_ids=part[:, :-1], state=state, use_cache=True)
        state = answer.state
        yield answer.logits, part[:, 1:]


def _windows(model: Any, tokens: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same from at least three quarters of a context, but for the first tokens."""
    context = model.config.max_position_embeddings
    fresh = context // 4
    read, following = tokens[:-1], tokens[1:]
    yield model(input_ids=read[None, :context]).logits, following[None, :context]
    windows = read[fresh:].unfold(0, context, fresh)
    asked = following[context:].unfold(0, fresh, fresh)
    for part, wanted in zip(windows.split(64), asked.split(64), strict=True):
        yield model(input_ids=part).logits[:, -fresh:], wanted
    if left := (len(following) - context) % fresh:
        yield model(input_ids=read[None, -context:]).logits[:, -left:], following[None, -left:]


def optimisers(model: PreTrainedModel, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embedding and output, AdamW for everything else."""
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    inner = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in ends]
    return [
        torch.optim.Muon(inner, lr=rates.muon, weight_decay=rates.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rates.adam, betas=(0.9, 0.95), weight_decay=rates.decay),
    ]


def train(network: LanguageQ, blocks: Iterator[tuple[bool, torch.Tensor]], rates: Rates, updates: int) -> Iterator[int]:
    """Updates one by one; the learning rates fall along a cosine."""
    model: Any = network.model
    recurrent = model.config.model_type != "gpt_neox"
    both = optimisers(model, rates)
    groups = [(group, group["lr"]) for optimiser in both for group in optimiser.param_groups]
    state = None
    for update in range(updates):
        for group, rate in groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * update / updates)) * min(1, (update + 1) / 50)
        fresh, block = next(blocks)
        block = block.to(network.device)
        model.train()
        options = {"state": None if fresh else state, "use_cache": True} if recurrent else {}
        with torch.autocast(network.device.type, dtype=torch.bfloat16):
            answer = model(input_ids=block[:, :-1], **options)
        model.eval()
        cross_entropy(answer.logits.float().flatten(0, 1), block[:, 1:].flatten()).backward()
        state = answer.state.detach() if recurrent else None
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in both:
            optimiser.step()
            optimiser.zero_grad()
        yield update + 1


def run(name: str, model_name: str, folder: Path, seed: int) -> Any:
    train_texts, test_texts, vocabulary = CORPORA[name](folder)
    end = vocabulary - 1
    stream = np.array([token for text in train_texts for token in [*text, end]])
    test = np.array([end, *(token for text in test_texts for token in [*text, end])])
    held_out, stream = np.split(stream, [len(stream) // 20])
    torch.manual_seed(seed)
    built: Any = MODELS[name][model_name].build(Sized(vocabulary))
    model: PreTrainedModel = built.eval().to(device())
    network = LanguageQ(model)
    best, began = EarlyStopping(model, None), time.perf_counter()
    blocks = lanes(stream, *SHAPES[name], np.random.default_rng(seed))
    rates = OWN_RATES.get((name, model_name), RATES[name])
    for update in train(network, blocks, rates, UPDATES[name]):
        if update % EVERY == 0:
            best.observe(update, nats(network, held_out))
    best.keep_best()
    return {
        "perplexity": math.exp(nats(network, test)),
        "validation": math.exp(best.best),
        "best_update": best.best_update,
        "seconds": round(time.perf_counter() - began),
        "device": torch.cuda.get_device_name() if network.device.type == "cuda" else f"{network.device}",
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--corpus", choices=CORPORA, action="append")
    parser.add_argument("--model", choices=MODELS["wikitext2"], action="append")
    arguments = parser.parse_args()
    on_cpu = device().type == "cpu"
    if on_cpu and not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        parser.error("got a processor where torch has no fast bfloat16, expected one; LSTMs fail without, others crawl")
    torch.set_num_threads(1)
    with Progress() as progress:
        for corpus in arguments.corpus or CORPORA:
            for name in arguments.model or MODELS[corpus]:
                task = progress.add_task(f"{corpus} {name}", total=arguments.seeds)
                for seed in range(arguments.seeds):
                    key = f"{corpus} {name} seed {seed}"
                    found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                    if key not in found["runs"]:
                        result = run(corpus, name, arguments.folder, seed)
                        found = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
                        found["runs"][key] = result
                        found.setdefault("versions", {})[result["device"]] = versions()
                        RESULT.write_text(json.dumps(found, indent=1) + "\n")
                        print(key, result)
                    progress.advance(task)


if __name__ == "__main__":
    main()
