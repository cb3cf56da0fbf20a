"""Word vectors: reading them, making them from a model, and how well they agree with people."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.answers import Answers, Embedder
from tokenq.evaluation.similarity import (
    EmbeddingSimilarity,
    Vectors,
    gold_agreement,
    load_vectors,
    model_vectors,
    spearman,
)

GLOVE = "cat 1 0\ndog 0.8 0.6\nu.s. -1 0\n北京 0 1\n京 0 -2\n"


def write(folder: Path, text: str, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_vectors_of_a_text_are_the_mean_of_its_known_words(tmp_path: Path) -> None:
    vectors = load_vectors(write(tmp_path, GLOVE))
    assert vectors.matrix.dtype == np.float32 and isinstance(vectors, Embedder)
    found = vectors.embed(["cat", "Cat, dog!", "U.S.", "the cat", "北京", "东京", "horse", ""])
    expected = [[1, 0], [0.9, 0.3], [-1, 0], [1, 0], [0, 1], [0, -2], [np.nan] * 2, [np.nan] * 2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert vectors.embed([]).shape[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("cat 1 0\ndog 1\n", "row 2: got 1 numbers after 'dog', expected 2"),
        ("cat\n", "row 1: got 0 numbers after 'cat', expected 1"),
        ("cat 1 0\ndog 1 0\ncat 1 0\n", r"row 3: got 'cat' again \(first in row 1\)"),
        ("cat 1 x\n", "row 1, column 3: got 'x', expected a number"),
        ("cat 1 1e39\n", "row 1: got a number too large for float32"),
        ("cat 1 nan\n", "row 1, column 3: got 'nan', expected a finite number"),
    ],
)
def test_malformed_vectors(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_vectors(write(tmp_path, text))


def test_files_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_vectors(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"cat 1\n\xff 2\n")
    with pytest.raises(DataError, match="row 2: not UTF-8"):
        load_vectors(tmp_path / "binary")


def word_tokenizer(*tokens: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_vectors_of_a_model_are_the_mean_of_its_embeddings() -> None:
    # Two rows more than tokens, as in padded models; more than the 512 tokens that the library would keep by itself.
    embeddings = np.array([[9, 9], [1, 0], [0, 1], [7, 7], [7, 7]], dtype=np.float16)
    vectors = model_vectors(embeddings, word_tokenizer("[UNK]", "cat", "dog"))
    assert isinstance(vectors, Embedder)
    found = vectors.embed(["cat dog", "dog horse", "horse", "", "cat " * 600 + "dog " * 600])
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1], [np.nan] * 2, [np.nan] * 2, [0.5, 0.5]])
    assert vectors.embed([]).shape == (0, 2)
    with pytest.raises(ConfigError, match="got 2 rows and a tokenizer with token 2"):
        model_vectors(embeddings[:2], word_tokenizer("[UNK]", "cat", "dog"))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_rank_correlation_is_that_of_scipy(rows: list[tuple[int, int]]) -> None:
    a, b = np.array(rows, dtype=float).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_agreement_counts_the_pairs_that_it_covers(tmp_path: Path) -> None:
    vectors = load_vectors(write(tmp_path, GLOVE))
    # Cosines of the covered pairs: 0.8, -1, -0.8; the order of the scores is 3, 2, 1, so one exchange: rho = 0.5.
    text = "word1\tword2\tscore\ncat\tdog\t9\ncat\tu.s.\t5\nu.s.\tdog\t1\ncat\thorse\t3\n"
    found = gold_agreement(vectors, write(tmp_path, text, "gold.tsv"), minimum=3)
    assert found.spearman.value == pytest.approx(0.5)
    assert (found.spearman.n, found.pairs) == (3, 4)
    with pytest.raises(DataError, match="cover 3 of 4 pairs, expected at least 20"):
        gold_agreement(vectors, tmp_path / "gold.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: expected the tab-separated columns word1, word2, score"),
        ("cat\tdog\t9\n", "row 1: expected the tab-separated columns"),
        ("word1\tword2\tscore\ncat\tdog\n", "row 2: got 2 columns, expected 3"),
        ("word1\tword2\tscore\ncat\tdog\thigh\n", "row 2, column score: got 'high'"),
        ("word1\tword2\tscore\n", "cover 0 of 0 pairs"),
    ],
)
def test_malformed_gold_standards(tmp_path: Path, text: str, message: str) -> None:
    vectors = Vectors({"cat": 0}, np.ones((1, 2), dtype=np.float32))
    with pytest.raises(DataError, match=message):
        gold_agreement(vectors, write(tmp_path, text, "gold.tsv"))


def test_twitter_vectors_agree_with_people_as_far_as_25_dimensions_can(shared_data: Path) -> None:
    vectors = load_vectors(shared_data / "glove_twitter_25d" / "glove_twitter_25d.txt")
    found = gold_agreement(vectors, shared_data / "word_similarity" / "wordsim353.tsv")
    # The figures that came with the data, from another program: 0.43 on 284 pairs.
    assert found.spearman.value == pytest.approx(0.43, abs=0.005)
    assert (found.spearman.n, found.pairs) == (284, 353)
    assert found.spearman.low < found.spearman.value < found.spearman.high


def test_similarity_to_the_nearest_reference(tmp_path: Path) -> None:
    vectors = load_vectors(write(tmp_path, GLOVE))
    rows = [
        ("cat", ["u.s.", "dog"], 0.8),  # the nearer one
        ("cat cat", ["u.s."], -1.0),  # opposite
        ("horse", ["cat"], 0.0),  # says nothing that is known
        ("", ["cat", "horse"], 0.0),
        ("cat", ["horse", "u.s."], -1.0),  # an unknown reference is no reference
        ("cat", ["horse"], None),  # nothing to compare with
    ]
    answers = Answers([p for p, _, _ in rows], [r for _, r, _ in rows], vectors=vectors)
    found = EmbeddingSimilarity().score(answers)
    assert found.value == pytest.approx((0.8 - 1 + 0 + 0 - 1) / 5) and found.n == 5
    unknown = EmbeddingSimilarity().score(Answers(["cat"], [["horse"]], vectors=vectors))
    assert math.isnan(unknown.value) and unknown.n == 0
