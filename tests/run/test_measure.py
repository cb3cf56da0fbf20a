"""`tokenq evaluate` by the kind of its rows, on word vectors, and on n-gram models."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenq.cli import main
from tokenq.config.evaluate import EvaluateConfig
from tokenq.errors import ConfigError, DataError
from tokenq.nets.ngram import NGram
from tokenq.run.measure import judged

Start = Callable[..., Path]
Jsonl = Callable[[Sequence[Mapping[str, Any]]], str]

LOGS: list[dict[str, Any]] = [
    {"prompt": "ab", "completion": "cd", "reward": 1.0},
    {"prompt": "ab", "completion": "e", "reward": 0.0, "terminated": False},
    {"prompt": "h", "completion": "ga.", "reward": 0.5},
]


def measured(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """The figures that are printed, which must be JSON as the standard has it."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--eval_samples", "2", *options]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    figures: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return figures


def refused(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["evaluate", str(run), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def asked(*metrics: str) -> list[str]:
    return [option for name in metrics for option in ("--metrics", name)]


@pytest.fixture(scope="module")
def run(start: Start, online: dict[str, Any]) -> Path:
    """A run on prompts with a reward and without right answers."""
    return start(online)


@pytest.fixture(scope="module")
def storyteller(start: Start, online: dict[str, Any], jsonl: Jsonl) -> Path:
    """A run on the first words of texts."""
    texts = jsonl([{"text": "ab cd ef gh"}, {"text": "ab cd ha"}, {"text": "fe dc ba"}])
    return start(online | {"prompt_dataset": texts, "prompt_words": 2, "max_steps": 1})


@pytest.fixture(scope="module")
def counted(start: Start, jsonl: Jsonl) -> Path:
    """The folder of a bigram model over words."""
    made = {"architecture": {"type": "ngram", "order": 2, "smoothing": "additive"}, "tokenizer": {"type": "words"}}
    return start({"pretrain": {"dataset": jsonl([{"text": "a b a c"}, {"text": "b a b"}])} | made}, verb="pretrain")


def perplexity_by_hand(model: str | Path, prompt: str, completion: str, ends: bool) -> tuple[float, int]:
    """The sum of the completion's log-probabilities, and how many there are."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    before, said = (tokenizer(part)["input_ids"] for part in (prompt, completion))
    tokens = torch.tensor([[*before, *said, *([tokenizer.eos_token_id] if ends else [])]])
    logits = AutoModelForCausalLM.from_pretrained(model)(input_ids=tokens).logits[0].log_softmax(-1)
    chosen = logits[:-1].gather(1, tokens[0, 1:, None])[len(before) - 1 :]
    return chosen.sum().item(), len(chosen)


def test_what_is_said_to_prompts_without_answers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("distinct1", "repetition", "mean_length", "longest_loop", "kl")
    figures = measured(run, capsys, *asked(*names))
    for model in ("before", "after"):
        assert {f"{name}{end}" for name in names for end in ("", "_low", "_high")} <= figures[model].keys()
        assert figures[model]["mean_length"] >= 0 and "reward" in figures[model]
    assert figures["before"]["kl"] == pytest.approx(0, abs=1e-6)
    assert figures["after"]["kl"] != figures["before"]["kl"]


@pytest.mark.parametrize("metric", ["perplexity", "bleu", "accuracy", "embedding_similarity"])
def test_a_metric_that_prompts_alone_do_not_allow(run: Path, capsys: pytest.CaptureFixture[str], metric: str) -> None:
    said = refused(run, capsys, *asked("distinct1", metric))
    assert f"metrics: got '{metric}', which needs " in said
    assert "this task has predictions, kl; metrics that fit: distinct1" in said
    assert "has the columns prompt)" in said


def test_logs_are_judged_and_their_prompts_answered_once(
    run: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = measured(run, capsys, "--dataset", jsonl(LOGS), *asked("perplexity", "mean_length"))
    sums = [
        perplexity_by_hand(run / "model", row["prompt"], row["completion"], row.get("terminated", True)) for row in LOGS
    ]
    total, tokens = (sum(part) for part in zip(*sums, strict=True))
    assert tokens == 3 + 1 + 4
    assert figures["after"]["perplexity"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)
    once = measured(run, capsys, "--dataset", jsonl([{"prompt": "ab"}, {"prompt": "h"}]), *asked("mean_length"))
    assert figures["after"]["mean_length"] == once["after"]["mean_length"]


def test_texts_whose_first_words_are_prompts(storyteller: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = measured(storyteller, capsys, *asked("perplexity", "mean_length", "kl"))
    assert figures["after"]["perplexity"] > 1 and figures["before"]["kl"] == pytest.approx(0, abs=1e-6)
    assert "reward" in figures["after"]


def test_texts_without_prompts_are_judged_and_not_scored(
    run: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = jsonl([{"text": "ab cd"}, {"text": "ha"}])
    assert measured(run, capsys, "--dataset", texts, *asked("perplexity"))["after"].keys() == {
        "perplexity", "perplexity_low", "perplexity_high"
    }  # fmt: skip
    assert "this task has log_probabilities; metrics that fit: perplexity" in (
        refused(run, capsys, "--dataset", texts, *asked("kl"))
    )


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        ([{"text": "ab"}, {"body": "cd"}], "perplexity", "row 2: nothing to judge; expected a text, as in other rows"),
        ([LOGS[0], {"prompt": "a"}], "perplexity", "row 2: nothing to judge; expected prompt and completion, or mess"),
        ([{"prompt": "a"}, {"text": "b"}], "mean_length", "row 2: no prompt; expected a column prompt"),
        ([{"prompt": "a"}, {"prompt": "a" * 60}], "mean_length", "row 2: column 'prompt' has 60 tokens; expected"),
        ([{"prompt": "a", "references": ["b"]}, {"prompt": "c"}], "exact_match", "row 2: no references; expected some"),
        ([{"prompt": "a", "references": "b"}], "exact_match", "row 1, references: got 'b', expected a list"),
    ],
)
def test_a_row_unlike_the_others(
    run: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str], rows: Any, metric: str, message: str
) -> None:
    said = refused(run, capsys, "--dataset", (file := jsonl(rows)), *asked(metric))
    assert f"{file} {message}" in said


def test_conversations_are_judged_and_preferences_are_not() -> None:
    assert judged([(1, {"messages": []}), (2, {"prompt": "a", "completion_ids": [1]})], "logs") == "answer"
    with pytest.raises(DataError, match="logs row 4: nothing to judge; expected a text or prompt and completion, or"):
        judged([(4, {"prompt": "a", "chosen": "b", "rejected": "c"})], "logs")


def test_a_figure_that_is_not_defined_is_null(run: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]) -> None:
    figures = measured(run, capsys, "--dataset", jsonl([{"prompt": "ab"}]), *asked("distinct3", "mean_length"))
    assert figures["after"]["distinct3_low"] is None and figures["after"]["mean_length"] >= 0


def test_labels_that_training_never_saw(start: Start, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(
        {
            "task": {"type": "classification", "names": ["bad", "good", "odd"], "template": "{text} "},
            "prompt_dataset": jsonl([{"text": "a fine film", "label": 1}, {"text": "a poor film", "label": 0}]),
            "pretrain": {
                "architecture": {"type": "encoder", "layers": 1, "width": 16, "heads": 2, "context": 16},
                "tokenizer": {"type": "words"},
            },
            "max_steps": 1,
            "offline_steps": 0,
            "per_device_train_batch_size": 2,
            "generation_batch_size": 2,
            "max_completion_length": 1,
            "eval_samples": 2,
        }
    )
    known = jsonl([{"text": "a fine film", "label": "good"}])
    assert measured(run, capsys, "--dataset", known, *asked("accuracy"))["after"]["accuracy"] in (0.0, 1.0)
    file = jsonl([{"text": "a fine film", "label": 1}, {"text": "a film", "label": 2}])
    assert f"{file} row 2: has the label 'odd', which no training row has (bad, good)" in (
        refused(run, capsys, "--dataset", file)
    )


def test_word_vectors_against_people(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = "abcdefgh"
    pairs = list(itertools.combinations(letters, 2))
    scores = np.random.default_rng(0).permutation(len(pairs)).tolist()
    rows = [f"{a}\t{b}\t{score}" for (a, b), score in zip(pairs, scores, strict=True)]
    (tmp_path / "gold.tsv").write_text("\n".join(["word1\tword2\tscore", *rows]) + "\n")
    table = np.random.default_rng(1).normal(size=(8, 3)).round(3)
    lines = [f"{letter} {' '.join(map(str, row))}" for letter, row in zip(letters, table, strict=True)]
    (tmp_path / "vectors.txt").write_text("\n".join(lines) + "\n")
    options = ["--gold", f"{tmp_path}/gold.tsv", "--vectors", f"{tmp_path}/vectors.txt"]
    figures = measured(run, capsys, *options)

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    own = load_file(run / "model" / "model.safetensors")["transformer.wte.weight"].numpy()
    for name, vectors in (("after", own[tokenizer.convert_tokens_to_ids(list(letters))]), ("vectors", table)):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = [unit[letters.index(a)] @ unit[letters.index(b)] for a, b in pairs]
        assert figures[name]["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic)
        assert figures[name]["spearman_low"] < figures[name]["spearman"] < figures[name]["spearman_high"]
        assert (figures[name]["covered"], figures[name]["pairs"]) == (28, 28)
    assert figures["before"].keys() == figures["after"].keys() and "reward" not in figures["after"]
    (tmp_path / "vectors.txt").write_text("\n".join(lines[:3]) + "\n")
    assert "gold.tsv: the vectors cover 3 of 28 pairs, expected at least 20" in refused(run, capsys, *options)
    with pytest.raises(ConfigError, match="gold: got dataset, metrics, gif or off_policy beside it"):
        EvaluateConfig(runs=["a"], gold="b", metrics=["kl"])


def test_the_perplexity_of_an_n_gram_model(counted: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]) -> None:
    file = jsonl([{"text": "a b"}, {"text": "c a"}, {"prompt": "a", "text": "b"}])
    figures = measured(counted, capsys, "--dataset", file, *asked("perplexity"))
    model, tokenizer = NGram.load(counted / "model"), AutoTokenizer.from_pretrained(counted / "model")
    texts = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in ("a b", "c a", "b")]
    # As of a network: the end of each text counts, its first token does not.
    scores = np.concatenate([model.log_probabilities(text)[1:] for text in texts])
    assert len(scores) == 2 + 2 + 1
    assert figures["after"]["perplexity"] == pytest.approx(math.exp(-scores.mean()))
    assert figures["after"]["perplexity_low"] < figures["after"]["perplexity"] < figures["after"]["perplexity_high"]
    assert measured(counted / "model", capsys, "--dataset", file)["after"] == figures["after"]


def test_an_n_gram_model_judges_the_completions_of_logs(
    counted: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl([{"prompt": "a", "completion": " b a", "reward": 1.0}])
    model, tokenizer = NGram.load(counted / "model"), AutoTokenizer.from_pretrained(counted / "model")
    scores = model.log_probabilities([*tokenizer("a b a")["input_ids"], tokenizer.eos_token_id])[1:]
    found = measured(counted, capsys, "--dataset", file)["after"]["perplexity"]
    assert len(scores) == 3 and found == pytest.approx(math.exp(-scores.mean()))


@pytest.mark.parametrize("options", [asked("bleu"), ["--gold", "gold.tsv"], ["--beta", "1"]])
def test_an_n_gram_model_has_no_other_figure(
    counted: Path, jsonl: Jsonl, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    said = refused(counted, capsys, *options)
    assert f"got {options[-1] if 'bleu' in options else options[0][2:]} for {counted}, which is an n-gram model" in said
    assert "name --dataset" in refused(counted, capsys)


def test_an_n_gram_model_does_not_write(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(counted), "--prompt", "a"]) == 2
    assert "which is an n-gram model" in capsys.readouterr().err
