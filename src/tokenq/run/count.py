"""Count: an n-gram language model from texts, with its tokenizer beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenq.config.train import TrainConfig
from tokenq.nets.architectures import NGramModel
from tokenq.nets.ngram import NGram
from tokenq.run.corpus import held_out_texts, pretraining_texts
from tokenq.run.folder import claim, run_folder, whole_folder
from tokenq.run.given import Given
from tokenq.run.models import load_tokenizer


def count(config: TrainConfig, architecture: NGramModel) -> Path:
    """Estimate the model from the texts of `pretrain` and print its perplexity on those held out; its folder."""
    given = Given()
    folder = run_folder(config, "texts")
    tokenizer = load_tokenizer(config, given, folder)
    texts, held_out = pretraining_texts(config, given, tokenizer), held_out_texts(config, tokenizer)
    end = tokenizer.eos_token_id
    model = NGram.estimate(_tokens(texts, tokenizer), architecture.order, len(tokenizer), architecture.smoothing, end)
    claim(folder, config)
    with whole_folder(folder / "model") as place:
        model.save(place)
        tokenizer.save_pretrained(place)
    if held_out:
        print(
            f"perplexity {model.perplexity(list(_tokens(held_out, tokenizer))):.2f} on {len(held_out):,} held-out texts"
        )
    print(f"model is in {folder / 'model'}")
    return folder / "model"


def _tokens(texts: Sequence[str], tokenizer: Any) -> Iterator[list[int]]:
    for text in texts:
        yield list(tokenizer(text, add_special_tokens=False)["input_ids"])
