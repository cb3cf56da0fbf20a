"""Count: an n-gram language model from texts, with its tokenizer beside it."""

from pathlib import Path

from tokenq.config.train import TrainConfig
from tokenq.nets.architectures import NGramModel
from tokenq.nets.ngram import NGram
from tokenq.run.corpus import held_out_tokens, pretraining_tokens
from tokenq.run.folder import claim, run_folder, whole_folder
from tokenq.run.given import Given
from tokenq.run.models import load_tokenizer


def count(config: TrainConfig, architecture: NGramModel) -> Path:
    """Estimate the model from the texts of `pretrain` and print its perplexity on those held out; its folder."""
    given = Given()
    folder = run_folder(config, "texts")
    tokenizer = load_tokenizer(config, given, folder)
    tokens, held_out = pretraining_tokens(config, given, tokenizer), held_out_tokens(config, tokenizer)
    end = tokenizer.eos_token_id
    model = NGram.estimate(tokens, architecture.order, len(tokenizer), architecture.smoothing, end)
    claim(folder, config)
    with whole_folder(folder / "model") as place:
        model.save(place)
        tokenizer.save_pretrained(place)
    if held_out:
        print(f"perplexity {model.perplexity(held_out):.2f} on {len(held_out):,} held-out texts")
    print(f"model is in {folder / 'model'}")
    return folder / "model"
