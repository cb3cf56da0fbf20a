"""N-gram models against numbers worked by hand, a slow recursion, and nltk."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.errors import ConfigError, DataError
from tokenq.nets.ngram import HEADER, TENSORS, NGram
from tokenq.nets.smoothing import Additive, KneserNey, ModifiedKneserNey, Smoothing

A, B, C, END, NEW = range(5)
TWO_TEXTS = [[A, B], [A, C]]


def texts(number: int = 40, vocabulary: int = 6, seed: int = 0) -> list[list[int]]:
    """Zipfian tokens below `vocabulary` - 2; the last two ids are a token that never comes and the end token."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocabulary - 1)
    return [rng.choice(vocabulary - 2, rng.integers(1, 9), p=weights / weights.sum()).tolist() for _ in range(number)]


def last(order: int, begin, text) -> tuple:
    """The order - 1 tokens before the next one; the begin symbol is one of them."""
    stream = (begin, *text)
    return stream[max(0, len(stream) - order + 1) :]


def probability(model: NGram, context: list[int], token: int) -> float:
    return math.exp(model.log_probabilities([*context, token])[-1])


# Unigrams count predecessors: a 1, b 1, c 1, end 2, of 5; 4 discounts of 1/2 leave 2/5, 0.08 to each of 5 tokens.
@pytest.mark.parametrize(
    ("order", "context", "token", "expected"),
    [
        (2, [], A, 1.5 / 2 + 0.5 / 2 * (0.1 + 0.08)),
        (2, [A], B, 0.5 / 2 + 1 / 2 * (0.1 + 0.08)),
        (2, [A, B], END, 0.5 / 1 + 0.5 * (0.3 + 0.08)),
        (2, [C], NEW, 0.5 * 0.08),
        (2, [NEW], END, 0.38),
        # What begins a text counts occurrences in every order: nothing precedes it.
        (3, [], A, 1.5 / 2 + 0.5 / 2 * 0.18),
        (3, [A], B, 0.5 / 2 + 1 / 2 * (0.5 / 2 + 1 / 2 * 0.18)),
    ],
)
def test_kneser_ney_by_hand(order: int, context: list[int], token: int, expected: float) -> None:
    model = NGram.estimate(TWO_TEXTS, order, 5, KneserNey(0.5), END)
    assert probability(model, context, token) == pytest.approx(expected, abs=1e-12)
    assert model.distribution(context)[token] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("order", "context", "token", "expected"),
    [(2, [], A, 3 / 7), (2, [A], B, 2 / 7), (2, [A, B], END, 2 / 6), (2, [NEW], A, 1 / 5), (1, [B], END, 3 / 11)],
)
def test_additive_by_hand(order: int, context: list[int], token: int, expected: float) -> None:
    model = NGram.estimate(TWO_TEXTS, order, 5, Additive(1.0), END)
    assert probability(model, context, token) == pytest.approx(expected, abs=1e-12)


def test_perplexity_counts_the_closing_end_token() -> None:
    model = NGram.estimate(TWO_TEXTS, 2, 5, Additive(1.0), END)
    expected = (3 / 7 * 2 / 7 * 2 / 6) ** (-1 / 3)
    assert model.perplexity([[A, B]]) == pytest.approx(expected)
    # A text that has its end token already does not get another one.
    assert model.perplexity([[A, B, END]]) == pytest.approx(expected)
    closed = NGram.estimate([[*text, END] for text in TWO_TEXTS], 2, 5, Additive(1.0), END)
    assert np.array_equal(closed.distribution([A]), model.distribution([A]))


@pytest.mark.parametrize("smoothing", [Additive(0.3), KneserNey(0.75)])
def test_uniform_text_has_the_perplexity_of_its_vocabulary(smoothing: Smoothing) -> None:
    uniform = [[0, 1, 2, 3, 4, 5, 6]] * 5
    model = NGram.estimate(uniform, 1, 8, smoothing, end=7)
    assert model.perplexity(uniform) == pytest.approx(8, rel=1e-12)


def slow_kneser_ney(sample: list[list[int]], order: int, vocabulary: int, end: int, smoothing: Smoothing):
    """P(token | all of the text before) by the recursion as it is written, from dictionaries."""
    begin = -1
    grams: Counter[tuple[int, ...]] = Counter()
    for text in sample:
        stream = [begin, *text, end]
        grams.update(tuple(stream[i:j]) for j in range(2, len(stream) + 1) for i in range(max(0, j - order), j))
    predecessors = Counter(gram[1:] for gram in grams if len(gram) > 1)
    adjusted = {g: n if len(g) == order or g[0] == begin else predecessors[g] for g, n in grams.items()}

    def discounts(length: int) -> list[float]:
        if isinstance(smoothing, KneserNey) and smoothing.discount is not None:
            return [smoothing.discount] * 3
        n = Counter(count for gram, count in adjusted.items() if len(gram) == length)
        y = n[1] / (n[1] + 2 * n[2])
        if isinstance(smoothing, KneserNey):
            return [y] * 3
        return [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]

    following: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for gram, n in adjusted.items():
        following.setdefault(gram[:-1], {})[gram] = n
    taken = {length: discounts(length) for length in range(1, order + 1)}

    def p(token: int, context: tuple[int, ...]) -> float:
        followers = following.get(context)
        lower = p(token, context[1:]) if context else 1 / vocabulary
        if followers is None:
            return lower
        d = taken[len(context) + 1]
        rest = sum(d[min(n, 3) - 1] for n in followers.values())
        n = followers.get((*context, token), 0)
        return ((n - d[min(n, 3) - 1] if n else 0.0) + rest * lower) / sum(followers.values())

    return lambda context, token: p(token, last(order, begin, context))


@pytest.mark.parametrize(
    ("smoothing", "order"),
    [*itertools.product((KneserNey(0.6), KneserNey()), (1, 2, 3, 5)), *((ModifiedKneserNey(), n) for n in (1, 2, 3))],
)
def test_kneser_ney_is_its_recursion(smoothing: Smoothing, order: int) -> None:
    vocabulary = 400
    sample = texts(600, vocabulary, seed=1)
    model = NGram.estimate(sample, order, vocabulary, smoothing, end=vocabulary - 1)
    slow = slow_kneser_ney(sample, order, vocabulary, vocabulary - 1, smoothing)
    for text in [*sample[:3], *texts(2, vocabulary, seed=9), [vocabulary - 2, 0, 1]]:
        ours = model.log_probabilities(text)
        theirs = [math.log(slow(text[:i], token)) for i, token in enumerate(text)]
        assert ours == pytest.approx(theirs, abs=1e-9)


def nltk_counts(sample: list[list[int]], order: int):
    """What nltk counts when a text has one begin symbol and one end token, and no n-gram ends in a begin symbol."""
    from nltk.lm import NgramCounter
    from nltk.util import everygrams

    streams = [["<s>", *map(str, text), "</s>"] for text in sample]
    return NgramCounter([[g for g in everygrams(s, max_len=order) if g[-1] != "<s>"] for s in streams])


# Its vocabulary always has <UNK>, here the token that never comes; `score` would mask "<s>" as unknown.
NAMES = ["0", "1", "2", "3", "<UNK>", "</s>"]


def test_additive_is_that_of_nltk() -> None:
    from nltk.lm import Laplace, Lidstone, Vocabulary

    sample = texts()
    for order, alpha in itertools.product((1, 2, 3), (0.25, 1.0)):
        model = NGram.estimate(sample, order, 6, Additive(alpha), end=5)
        arguments = (order, Vocabulary(name for name in NAMES if name != "<UNK>"), nltk_counts(sample, order))
        theirs = Laplace(*arguments) if alpha == 1 else Lidstone(alpha, *arguments)
        for text in ([], [0], [0, 1, 2], [4, 0], [3, 3, 3], [0, 0, 1, 0]):
            context = last(order, "<s>", [NAMES[token] for token in text])
            scores = [theirs.unmasked_score(name, context) for name in NAMES]
            assert model.distribution(text) == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_kneser_ney_is_that_of_nltk_above_the_unigrams(order: int) -> None:
    """Nltk does not smooth unigrams, so what never came (id 4) has probability 0 there; ours share with 1 / V.

    Both interpolate down to their unigrams with the same weight, which ours show by the token that never came. Contexts
    shorter than order - 1 tokens, begin symbol included, are left out: nltk divides by zero there, unless it is given
    several begin symbols, whose counts in lower orders then are 1 for each token that begins a text.
    """
    from nltk.lm import KneserNeyInterpolated, Vocabulary

    sample = texts()
    model = NGram.estimate(sample, order, 6, KneserNey(0.7), end=5)
    theirs = KneserNeyInterpolated(
        order, 0.7, vocabulary=Vocabulary(name for name in NAMES if name != "<UNK>"), counter=nltk_counts(sample, order)
    )
    ours_1 = model.distribution([4] * order)
    theirs_1 = np.array([theirs.unmasked_score(name, ()) for name in NAMES])
    assert theirs_1[4] == 0 and ours_1[4] == pytest.approx(0.7 * 5 / len_bigrams(sample) / 6)
    seen = [tuple(text[:n]) for text in sample[:12] for n in range(order - 2, len(text) + 1)]
    for text in [*seen, (3,) * (order - 1), (2, 3, 4)]:
        context = last(order, "<s>", [NAMES[token] for token in text])
        scores = np.array([theirs.unmasked_score(name, context) for name in NAMES])
        ours = model.distribution(list(text))
        assert ours - ours[4] / ours_1[4] * (ours_1 - theirs_1) == pytest.approx(scores, abs=1e-9)


def len_bigrams(sample: list[list[int]]) -> int:
    """The number of different bigrams."""
    return len({pair for text in sample for pair in itertools.pairwise([-1, *text, 5])})


TOKENS = st.lists(st.integers(0, 5), max_size=8)
SMOOTHINGS = st.one_of(st.builds(Additive, st.floats(1e-3, 10)), st.builds(KneserNey, st.floats(0.01, 1)))


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=6), st.integers(1, 5), SMOOTHINGS, TOKENS)
def test_distributions_sum_to_one_and_are_what_is_scored(
    sample: list[list[int]], order: int, smoothing: Smoothing, text: list[int]
) -> None:
    model = NGram.estimate(sample, order, 6, smoothing, end=5)
    scores = model.log_probabilities(text)
    for i, token in enumerate(text):
        distribution = model.distribution(text[:i])
        assert abs(distribution.sum() - 1) < 1e-9 and (distribution > 0).all()
        assert scores[i] == pytest.approx(math.log(distribution[token]), abs=1e-9)


def test_samples_follow_the_distribution_and_stop_at_the_end() -> None:
    model = NGram.estimate(texts(), 3, 6, KneserNey(0.7), end=5)
    rng = np.random.default_rng(0)
    drawn = [model.sample([0, 1], 4, rng) for _ in range(800)]
    shares = np.bincount([tokens[0] for tokens in drawn], minlength=6) / len(drawn)
    # Five standard errors.
    assert shares == pytest.approx(model.distribution([0, 1]), abs=5 * 0.5 / math.sqrt(len(drawn)))
    assert all(len(tokens) == 4 or tokens[-1] == 5 for tokens in drawn)
    assert all(5 not in tokens[:-1] for tokens in drawn) and {len(tokens) for tokens in drawn} == {1, 2, 3, 4}
    # An end token of the prefix ends nothing.
    assert len(model.sample([5], 1, rng)) == 1 and len(model.sample([0], 0, rng)) == 0


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    model = NGram.estimate(texts(), 4, 6, KneserNey(0.75), end=5)
    model.save(tmp_path / "model")
    loaded = NGram.load(tmp_path / "model")
    assert (loaded.order, loaded.vocabulary, loaded.end) == (4, 6, 5) and loaded.smoothing == "KneserNey(discount=0.75)"
    assert np.array_equal(loaded.log_probabilities([0, 1, 0, 2, 4]), model.log_probabilities([0, 1, 0, 2, 4]))
    (tmp_path / "model" / TENSORS).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"expected ngram.json and ngram.safetensors"):
        NGram.load(tmp_path / "model")
    (tmp_path / "model" / HEADER).write_text('{"format": 2}')
    with pytest.raises(ConfigError, match="got format 2, expected 1"):
        NGram.load(tmp_path / "model")


def test_what_is_out_of_range_is_named() -> None:
    with pytest.raises(DataError, match="text 1 has the id 6 at position 2"):
        NGram.estimate([[0], [0, 1, 6]], 2, 6, Additive(), end=5)
    with pytest.raises(DataError, match="no text"):
        NGram.estimate([], 2, 6, Additive(), end=5)
    with pytest.raises(ConfigError, match="end: got 6"):
        NGram.estimate([[0]], 2, 6, Additive(), end=6)
    with pytest.raises(ConfigError, match="order"):
        NGram.estimate([[0]], 0, 6, Additive(), end=5)
    with pytest.raises(DataError, match="the text has the id -1"):
        NGram.estimate([[0]], 2, 6, Additive(), end=5).log_probabilities([0, -1])


def test_kneser_ney_reads_shakespeare_far_better_than_additive(shared_data: Path) -> None:
    text = (shared_data / "tinyshakespeare" / "input.txt").read_text("utf-8")
    tokens = np.unique(list(text[:400_000]), return_inverse=True)[1]
    end = int(tokens.max()) + 1
    perplexities = [
        NGram.estimate([tokens[:360_000]], 5, end + 1, smoothing, end).perplexity([tokens[360_000:]])
        for smoothing in (KneserNey(), Additive(0.01))
    ]
    assert perplexities[0] < 0.8 * perplexities[1] < 8
