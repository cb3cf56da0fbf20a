"""Perplexity of n-gram models, by order and smoothing, and what they cost.

    python benchmarks/ngram_perplexity.py FOLDER

FOLDER holds tinyshakespeare/input.txt (characters; the first nine tenths train, the rest tests) and
wikitext2/valid.txt and test.txt (words between blanks; valid trains, test tests, what valid lacks is <unk>, empty lines
are no texts). A perplexity counts the end token of each text.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tokenq.errors import DataError
from tokenq.nets.ngram import NGram
from tokenq.nets.smoothing import Additive, KneserNey, ModifiedKneserNey, Smoothing

RESULT = Path(__file__).parent / "results" / "ngram_perplexity.json"
SMOOTHINGS: tuple[Smoothing, ...] = (
    *(Additive(alpha) for alpha in (1.0, 0.1, 0.01, 0.001)),
    KneserNey(),
    KneserNey(0.75),
    ModifiedKneserNey(),
)

Corpus = tuple[list[list[int]], list[list[int]], int]


def characters(folder: Path) -> Corpus:
    """Texts to train on, texts to test on, and the vocabulary, whose last id is the end token."""
    text = (folder / "tinyshakespeare" / "input.txt").read_text("utf-8")
    ids = {symbol: i for i, symbol in enumerate(sorted(set(text)))}
    tokens = [ids[symbol] for symbol in text]
    cut = len(tokens) * 9 // 10
    return [tokens[:cut]], [tokens[cut:]], len(ids) + 1


def words(folder: Path) -> Corpus:
    """As `characters`."""
    train, test = (
        [line.split() for line in (folder / "wikitext2" / name).read_text("utf-8").splitlines() if line.strip()]
        for name in ("valid.txt", "test.txt")
    )
    ids = {word: i for i, word in enumerate(sorted({word for line in train for word in line}))}
    unknown = ids["<unk>"]
    return (
        [[ids[word] for word in line] for line in train],
        [[ids.get(word, unknown) for word in line] for line in test],
        len(ids) + 1,
    )


def measured(corpus: Corpus, order: int, smoothing: Smoothing) -> dict[str, Any]:
    train, test, vocabulary = corpus
    start = time.perf_counter()
    try:
        model = NGram.estimate(train, order, vocabulary, smoothing, end=vocabulary - 1)
    except DataError as error:
        return {"impossible": str(error)}
    middle = time.perf_counter()
    perplexity = model.perplexity(test)
    seconds = {"estimate": round(middle - start, 2), "score": round(time.perf_counter() - middle, 2)}
    return {"perplexity": round(perplexity, 2), "seconds": seconds, "ngrams": sum(len(x.keys) for x in model.levels)}


def main(folder: Path) -> None:
    results: dict[str, Any] = {}
    for name, load in (("tinyshakespeare, characters", characters), ("wikitext2, words", words)):
        corpus = load(folder)
        tokens = {"train": sum(map(len, corpus[0])), "test": sum(map(len, corpus[1]))}
        results[name] = {"tokens": tokens, "vocabulary": corpus[2]}
        for order in (2, 3, 5):
            for smoothing in SMOOTHINGS:
                row = measured(corpus, order, smoothing)
                results[name][f"{order}, {smoothing}"] = row
                print(name, order, smoothing, row, flush=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
