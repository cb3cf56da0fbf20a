"""Metrics of language tasks: numbers worked by hand, the libraries that define them, and what their intervals are."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from tokenq.errors import ConfigError, DataError
from tokenq.evaluation.answers import Answers
from tokenq.evaluation.diversity import Distinct, Repetition, longest_loop
from tokenq.evaluation.intervals import Score, bootstrap, bootstrap_interval, jackknife_interval
from tokenq.evaluation.labels import F1, per_class
from tokenq.evaluation.metrics import METRICS, Metric, fitting, scores
from tokenq.evaluation.overlap import ROUGE
from tokenq.evaluation.similarity import Vectors
from tokenq.scoring.extra import extra
from tokenq.scoring.matching import exact_match, token_f1
from tokenq.scoring.overlap import sentence_bleu, sentence_chrf
from tokenq.scoring.words import words

COLOURS = ("red", "green", "blue")
texts = st.lists(st.sampled_from([*COLOURS, "colour."]), max_size=9).map(" ".join)


def value(metric: str, predictions: Sequence[str], *references: list[str]) -> float:
    return METRICS[metric].score(Answers(predictions, references or None)).value


def colourful(n: int, seed: int, labels: bool) -> Answers:
    """Rows with every column: texts of 4 to 15 colours and their references, or the colour itself as a class."""
    rng = np.random.default_rng(seed)
    drawn = [list(rng.choice(COLOURS, size=1 if labels else rng.integers(4, 16))) for _ in range(n)]
    told = [
        [w if rng.random() < 0.4 else rng.choice(COLOURS) for w in row] if rng.random() < 0.8 else row for row in drawn
    ]
    return Answers(
        predictions=[" ".join(row) for row in told],
        references=[[" ".join(row)] for row in drawn],
        labels=COLOURS if labels else None,
        log_probabilities=[np.log(rng.uniform(0.1, 1, size=rng.integers(5))) for _ in range(n)],
        kl=rng.normal(1.0, 1.0, size=n),
        vectors=Vectors({w: i for i, w in enumerate(COLOURS)}, np.eye(3, dtype=np.float32)),
    )


@pytest.mark.parametrize("name", {type(metric): name for name, metric in METRICS.items()}.values())
def test_an_interval_holds_the_value_and_shrinks_with_more_rows(name: str) -> None:
    metric = METRICS[name]
    few, many = (metric.score(colourful(n, 1, "labels" in metric.needs)) for n in (25, 250))
    for score in (few, many):
        assert score.low < score.value < score.high
    assert many.high - many.low < 0.6 * (few.high - few.low)
    assert few.n <= 25 and few.n < many.n <= 250


def test_the_same_rows_and_seed_give_the_same_interval() -> None:
    assert all(isinstance(metric, Metric) for metric in METRICS.values())
    for name in ("token_f1", "chrf", "distinct2"):
        first, again = (METRICS[name].score(colourful(9, 1, False), seed=3) for _ in range(2))
        assert first == again
    assert (
        METRICS["chrf"].score(colourful(9, 1, False), seed=4).low != METRICS["chrf"].score(colourful(9, 1, False)).low
    )


def test_bootstrap_of_a_mean_is_the_bootstrap_of_any_figure() -> None:
    values = np.random.default_rng(0).normal(size=23)
    assert bootstrap(lambda rows: float(values[rows].mean()), 23, 5, 0.8) == bootstrap_interval(values, 5, 0.8)
    assert all(math.isnan(end) for end in bootstrap(lambda rows: 1.0, 0))
    assert all(math.isnan(end) for end in bootstrap(lambda rows: float("nan"), 3))
    # Resamples without row 0 are undefined and left out; the others hold it one to three times.
    low, high = bootstrap(lambda rows: float((rows == 0).sum()) if 0 in rows else float("nan"), 3, level=0.99)
    assert (low, high) == (1.0, 3.0)


def test_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=40)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(40)
    interval = jackknife_interval(float(values.mean()), (values.sum() - values) / 39)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half))
    assert all(math.isnan(end) for end in jackknife_interval(1.0, np.array([1.0])))


def test_the_interval_of_distinct_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 301)

    def corpus() -> Answers:
        return Answers([" ".join(map(str, rng.choice(300, size=12, p=share / share.sum()))) for _ in range(40)])

    found = [Distinct(1).score(corpus()) for _ in range(100)]
    truth = np.mean([score.value for score in found])
    covered = np.mean([score.low <= truth <= score.high for score in found])
    assert covered == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 100))


RIGHT = [["red"], ["red"], ["green"], ["green"]]
TOLD = ["red", " green", "green\n", "Red"]


def test_classes_by_hand() -> None:
    # red: 1 hit of 1 prediction and 2 rows; green: 1 of 2 and 2; blue never occurs; "Red" is no class.
    answers = Answers(TOLD, RIGHT, COLOURS)
    found = scores(fitting(["accuracy", "precision", "recall", "f1"], answers.available), answers)
    assert [s.value for s in found.values()] == pytest.approx([0.5, (1 + 0.5) / 2, 0.5, (2 / 3 + 1 / 2) / 2])
    parts = per_class(answers)
    assert [parts["red"][m].value for m in ("precision", "recall", "f1")] == pytest.approx([1, 0.5, 2 / 3])
    assert math.isnan(parts["blue"]["f1"].value)
    with pytest.raises(ConfigError, match="label: got 'pink', expected one of"):
        F1("pink").score(answers)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_classes_as_scikit_learn_counts_them(n: int) -> None:
    rng = np.random.default_rng(n)
    right, told = rng.choice(COLOURS, size=n).tolist(), rng.choice(COLOURS, size=n).tolist()
    answers = Answers(told, [[a] for a in right], COLOURS)
    expected = precision_recall_fscore_support(right, told, average="macro", zero_division=0)[:3]
    names = ("accuracy", "precision", "recall", "f1")
    found = [METRICS[name].score(answers).value for name in names]
    assert found == pytest.approx([accuracy_score(right, told), *expected])


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["Eiffel tower"], 1, 1),
        ("in the year 1969", ["1969"], 0, 0.5),  # three words without "the", one of them right: P 1/3, R 1
        ("Neil Armstrong", ["Buzz Aldrin", "Armstrong"], 0, 2 / 3),
        ("a a b b", ["b"], 0, 2 / 3),  # "a" is an article; P 1/2, R 1
        ("", ["yes"], 0, 0),
        ("the.", [""], 1, 1),
        ("埃菲尔铁塔。", ["埃菲尔 铁塔"], 1, 1),
        ("北京大学", ["北京"], 0, 2 / 3),
    ],
)
def test_answers_to_questions_by_hand(prediction: str, references: list[str], exact: float, f1: float) -> None:
    assert exact_match(prediction, references) == exact
    assert token_f1(prediction, references) == pytest.approx(f1)


def test_bleu_and_chrf_by_hand() -> None:
    cat, sat = "the cat is on the mat", "the cat sat on the mat"
    # Matches 5/6, 3/5, 1/4 and none of 3, which smoothing makes 1/2 of one; as long as the reference.
    assert value("bleu", [cat], [sat]) == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    # Every order that exists is right; three words of four.
    assert sentence_bleu("the cat sat", ["the cat sat down"]) == pytest.approx(math.exp(1 - 4 / 3))
    # P 1; R (2/3 + 1/2) / 2 over the two orders that both have; F2 = 5PR / (4P + R).
    assert value("chrf", ["ab"], ["abc"]) == pytest.approx(100 * 7 / 11)
    assert sentence_chrf("ab", ["x", "abc"]) == pytest.approx(7 / 11)
    assert sentence_bleu(sat, [cat, sat]) == sentence_chrf(sat, [sat]) == 1.0
    assert sentence_bleu("我喜欢猫", ["我喜欢狗"]) == 0 < sentence_bleu("我喜欢猫", ["我喜欢狗"], "zh")


@pytest.mark.parametrize("n", [1, 5, 40])
def test_bleu_and_chrf_are_those_of_sacrebleu(n: int) -> None:
    rng = np.random.default_rng(n)

    def text() -> str:
        return " ".join(rng.choice([*COLOURS, "colour."], size=rng.integers(9)))

    told, right = [text() for _ in range(n)], [[text() for _ in range(rng.integers(1, 4))] for _ in range(n)]
    places = [[row[i] if i < len(row) else None for row in right] for i in range(max(map(len, right)))]
    assert value("bleu", told, *right) == pytest.approx(sacrebleu.corpus_bleu(told, places).score)
    assert value("chrf", told, *right) == pytest.approx(sacrebleu.corpus_chrf(told, places).score)


def test_signatures_can_be_quoted() -> None:
    answers = Answers(["x", "y"], [["x"], ["y", "z"]])
    version = f"version:{sacrebleu.__version__}"
    found = {name: METRICS[name].score(answers).signature for name in ("bleu_zh", "chrf", "rougel")}
    assert found == {
        "bleu_zh": f"nrefs:var|case:mixed|eff:no|tok:zh|smooth:exp|{version}",
        "chrf": f"nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}",
        "rougel": None,
    }


def test_rouge_by_hand() -> None:
    # Two of three and four words; one of two and three pairs; "the cat" in common.
    rows = (["The cat sat."], ["dogs", "the cat is here"])
    assert [value(f"rouge{v}", *rows) for v in "12l"] == pytest.approx([4 / 7, 2 / 5, 4 / 7])
    assert value("rouge1_zh", ["我喜欢猫"], ["我喜欢狗"]) == pytest.approx(3 / 4)
    with pytest.raises(DataError, match=r"row 2, references: got '我喜欢狗'.*rouge1_zh"):
        ROUGE("1").score(Answers(["x", "y"], [["x"], ["我喜欢狗"]]))


def test_variety_by_hand() -> None:
    rows = ["a b a b", "a b c", "d", ""]
    assert value("distinct2", rows) == 3 / 5 and value("distinct1", rows) == 4 / 8
    assert Repetition(2).score(Answers(rows)).value == pytest.approx((1 / 3 + 0) / 2)
    assert Repetition(2).score(Answers(rows)).n == 2
    assert value("longest_loop", rows) == 4 / 4 and value("mean_length", rows) == 8 / 4
    assert value("mean_length", ["我喜欢 red。"]) == 5
    assert [longest_loop(text) for text in ("no no no", "so it is so it is so it", "to be or not to be", "", "x")] == [
        3, 8, 0, 0, 0,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="n: got 0"):
        Distinct(0)


@given(texts)
def test_the_longest_loop_is_the_one_that_a_plain_search_finds(text: str) -> None:
    tokens = words(text)
    cuts = [tokens[i:j] for i in range(len(tokens)) for j in range(i + 2, len(tokens) + 1)]
    loops = [cut for cut in cuts if any(cut[p:] == cut[:-p] for p in range(1, len(cut) // 2 + 1))]
    assert longest_loop(text) == max(map(len, loops), default=0)


@given(st.lists(texts, min_size=1, max_size=5))
def test_distinct_is_a_share_of_all_n_grams(rows: list[str]) -> None:
    grams = Counter(g for row in rows for g in zip(row.split(), row.split()[1:], strict=False))
    found = Distinct(2).score(Answers(rows))
    assert math.isnan(found.value) if not grams else found.value == len(grams) / grams.total()


def test_likelihood_by_hand() -> None:
    # Five halvings over three tokens; the row without tokens does not count.
    answers = Answers(
        log_probabilities=[np.log([0.5, 0.5]), np.log([0.125]), np.array([])], kl=np.array([1.0, 2.0, 6.0])
    )
    assert METRICS["perplexity"].score(answers).value == pytest.approx(2 ** (5 / 3))
    assert METRICS["perplexity"].score(answers).n == 2
    assert METRICS["kl"].score(answers).value == 3.0
    empty = METRICS["perplexity"].score(Answers(log_probabilities=[np.array([])]))
    assert math.isnan(empty.value) and empty.n == 0


def test_silence_is_scored_as_silence() -> None:
    answers = Answers(
        ["", ""], [["red"], ["green blue", "red"]], vectors=Vectors({"red": 0}, np.ones((1, 1), np.float32))
    )
    zeros = [n for n, m in METRICS.items() if m.needs <= answers.available and m.needs & {"references"}]
    assert {n: METRICS[n].score(answers).value for n in zeros} == dict.fromkeys(zeros, 0.0)
    undefined = METRICS["repetition"].score(answers)
    assert math.isnan(undefined.value) and math.isnan(undefined.low) and undefined.n == 0
    assert METRICS["mean_length"].score(answers) == Score(0.0, 0.0, 0.0, 2)


def test_metrics_that_a_task_cannot_have() -> None:
    task = Answers(["x"], log_probabilities=[np.array([-1.0])]).available
    assert list(fitting(["perplexity", "distinct2"], task)) == ["perplexity", "distinct2"]
    with pytest.raises(ConfigError, match="metrics: got 'blue'; did you mean 'bleu'"):
        fitting(["blue"], task)
    with pytest.raises(ConfigError, match="got 'weather'; expected one of accuracy, precision"):
        fitting(["weather"], task)
    expected = (
        "got 'f1', which needs predictions, references, labels; this task has predictions, log_probabilities; "
        "metrics that fit: distinct1, distinct2, distinct3, repetition, longest_loop, mean_length, perplexity$"
    )
    with pytest.raises(ConfigError, match=expected):
        fitting(["f1"], task)
    with pytest.raises(ConfigError, match="references: these rows have none"):
        METRICS["bleu"].score(Answers(["x"]))
    with pytest.raises(ConfigError, match=r'no_such_library: not installed; run pip install "tokenq\[metrics\]"'):
        extra("no_such_library")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "got no column"),
        ({"predictions": []}, "got 0 predictions, expected one or more rows"),
        ({"predictions": ["x"], "references": [["x"], ["y"]]}, "got 1 predictions, 2 references"),
        ({"predictions": ["x", "y"], "references": [["x"], []]}, r"row 2, references: got \[\]"),
        ({"predictions": ["x"], "references": ["x"]}, "row 1, references: got 'x', expected a list"),
        ({"predictions": ["x"], "labels": ["x", "y"]}, "expected the right class of each row"),
        ({"references": [["x"]], "labels": ["x", "x"]}, "two or more different classes"),
        ({"references": [["z"]], "labels": ["x", "y"]}, r"row 1, references: got \['z'\], expected one of"),
        ({"log_probabilities": [np.array([-1.0]), np.array([-np.inf])]}, "row 2, log_probabilities"),
        ({"log_probabilities": [np.array([0.5])]}, "row 1, log_probabilities: expected finite numbers <= 0"),
        ({"kl": np.array([0.0, np.nan])}, "row 2, kl"),
    ],
)
def test_rows_that_are_wrong(columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Answers(**columns)  # type: ignore[arg-type]
    for call in (sentence_bleu, sentence_chrf):
        with pytest.raises(DataError, match="expected a list of one or more strings"):
            call("x", [])
