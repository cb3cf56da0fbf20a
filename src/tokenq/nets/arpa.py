"""N-gram models in the ARPA format (Paul & Baker 1992), the text format that other n-gram programs read.

A line is `log10 p <tab> n-gram <tab> log10 of what its context leaves to the shorter one`, the last only where a longer
n-gram may follow. All unigrams are listed, and `<s>`, which is never predicted, has -99.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tokenq.errors import DataError
from tokenq.nets.ngram import NGram

NEVER = -99.0
BEGIN, END = "<s>", "</s>"


def write_arpa(model: NGram, path: Path, tokens: Sequence[str]) -> None:
    """Write a model with the tokens' names; the begin symbol becomes `<s>` and the end token `</s>`.

    Base-10 logarithms with nine digits. Readers know unknown words as `<unk>`: give the unk id that name.

    Args:
        model: Any smoothing; all of them are backoff models to a reader.
        path: The file.
        tokens: A name for each of the V tokens; that of the end token is not used.

    Raises:
        DataError: Not V names, or one that is empty, holds white space, or is there twice.
    """
    names = _checked_names(path, tokens, model)
    with path.open("w", encoding="utf-8") as file:
        sizes = [len(names), *(len(level.keys) for level in model.levels[1:])]
        file.write("\\data\\\n")
        file.writelines(f"ngram {m}={size}\n" for m, size in enumerate(sizes, 1))
        for m, lines in enumerate(_sections(model, names), 1):
            file.write(f"\n\\{m}-grams:\n")
            file.writelines(lines)
        file.write("\n\\end\\\n")


def _checked_names(path: Path, tokens: Sequence[str], model: NGram) -> list[str]:
    if len(tokens) != model.vocabulary:
        raise DataError(f"{path}: got {len(tokens)} names of tokens, expected {model.vocabulary}, one for each")
    names = [*tokens, BEGIN]
    names[model.end] = END
    seen: set[str] = set()
    for name in names:
        if name.split() != [name]:
            raise DataError(f"{path}: got the token {name!r}, expected names without white space; give it another")
        if name in seen:
            raise DataError(f"{path}: got the token {name!r} twice, expected different names; {BEGIN}, {END} are taken")
        seen.add(name)
    return names


def _sections(model: NGram, names: Sequence[str]) -> Iterator[Iterator[str]]:
    """The lines of each order."""
    first = model.levels[0]
    probabilities = np.full(len(names), first.log_backoff[0] - math.log(model.vocabulary))
    probabilities[first.keys] = first.log_probability
    written = list(names)  # the n-grams of an order by number, in words
    backoffs = np.zeros(len(names))
    if model.order > 1:
        backoffs[first.keys] = model.levels[1].log_backoff
    yield _lines(written, probabilities, backoffs if model.order > 1 else None)
    written = [names[token] for token in first.keys]
    for m, level in enumerate(model.levels[1:], 2):
        contexts, tokens = np.divmod(level.keys, len(names))
        written = [f"{written[c]} {names[t]}" for c, t in zip(contexts, tokens, strict=True)]
        yield _lines(written, level.log_probability, model.levels[m].log_backoff if m < model.order else None)


def _lines(
    written: Sequence[str], probabilities: Float[np.ndarray, "N"], backoffs: Float[np.ndarray, "N"] | None
) -> Iterator[str]:
    logs = np.maximum(probabilities / math.log(10), NEVER)
    if backoffs is None:
        return (f"{log:.9g}\t{words}\n" for log, words in zip(logs, written, strict=True))
    weights = backoffs / math.log(10)
    return (f"{log:.9g}\t{words}\t{weight:.9g}\n" for log, words, weight in zip(logs, written, weights, strict=True))
