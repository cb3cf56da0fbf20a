"""ARPA files, read back by a reader that knows the format and nothing of the model."""

import math
from pathlib import Path

import numpy as np
import pytest

from tokenq.errors import DataError
from tokenq.nets.arpa import write_arpa
from tokenq.nets.ngram import NGram
from tokenq.nets.smoothing import Additive, KneserNey, Smoothing

NAMES = ["ba", "na", "ŋa", "<unk>", "anything"]
END = 4


class Reader:
    """Backs off as the format says: the longest n-gram there is, times the weights of the contexts that were longer."""

    def __init__(self, path: Path) -> None:
        sections = path.read_text("utf-8").split("\n\n")
        assert sections[0].startswith("\\data\\\n") and sections[-1] == "\\end\\\n"
        self.sizes = [int(line.split("=")[1]) for line in sections[0].splitlines()[1:]]
        self.logs: dict[tuple[str, ...], float] = {}
        self.weights: dict[tuple[str, ...], float] = {}
        for order, (section, size) in enumerate(zip(sections[1:-1], self.sizes, strict=True), 1):
            title, *lines = section.splitlines()
            assert title == f"\\{order}-grams:" and len(lines) == size
            for line in lines:
                log, words, *weight = line.split("\t")
                gram = tuple(words.split(" "))
                assert len(gram) == order and len(weight) == (order < len(self.sizes))
                self.logs[gram] = float(log)
                self.weights[gram] = float(weight[0]) if weight else 0.0

    def log10(self, context: tuple[str, ...], word: str) -> float:
        context = context[-(len(self.sizes) - 1) :] if len(self.sizes) > 1 else ()
        if (*context, word) in self.logs:
            return self.logs[(*context, word)]
        return self.weights.get(context, 0.0) + self.log10(context[1:], word)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("smoothing", [KneserNey(0.8), Additive(0.5)])
def test_a_reader_finds_the_same_probabilities(order: int, smoothing: Smoothing, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.choice(3, rng.integers(0, 7), p=[0.7, 0.2, 0.1]) for _ in range(20)]
    model = NGram.estimate(texts, order, 5, smoothing, END)
    write_arpa(model, tmp_path / "model.arpa", NAMES)
    reader = Reader(tmp_path / "model.arpa")
    assert reader.sizes[0] == 6 and reader.logs[("<s>",)] == -99
    for text in [rng.integers(0, 4, rng.integers(1, 8)) for _ in range(20)]:
        words = ["<s>", *(NAMES[token] for token in text), "</s>"]
        read = [math.log(10) * reader.log10(tuple(words[:i]), words[i]) for i in range(1, len(words))]
        assert model.log_probabilities(np.append(text, END)) == pytest.approx(read, abs=1e-7)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:4], "got 4 names of tokens, expected 5"),
        (["ba", "n a", *NAMES[2:]], "'n a', expected names without white space"),
        (["ba", "", *NAMES[2:]], "'', expected names without white space"),
        (["ba", "ba", *NAMES[2:]], "'ba' twice"),
        (["</s>", *NAMES[1:]], "'</s>' twice"),
    ],
)
def test_names_that_a_reader_would_confuse(names: list[str], message: str, tmp_path: Path) -> None:
    model = NGram.estimate([[0, 1]], 2, 5, KneserNey(0.5), END)
    with pytest.raises(DataError, match=message):
        write_arpa(model, tmp_path / "model.arpa", names)
    assert not (tmp_path / "model.arpa").exists()
