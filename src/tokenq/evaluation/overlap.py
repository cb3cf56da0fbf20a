"""Overlap with reference texts: BLEU and chrF as sacrebleu computes them, ROUGE as rouge-score does."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from tokenq.errors import DataError
from tokenq.evaluation.answers import Answers, Need, needed
from tokenq.evaluation.intervals import Score, mean_score, pooled_score
from tokenq.scoring.extra import extra
from tokenq.scoring.overlap import BETA, ORDER_CHRF, Tokenize
from tokenq.scoring.overlap import bleu as bleu_scorer
from tokenq.scoring.overlap import chrf as chrf_scorer
from tokenq.scoring.words import words

NEEDS: frozenset[Need] = frozenset({"predictions", "references"})
ORDER_BLEU = 4


@dataclass(frozen=True)
class BLEU:
    """BLEU of a corpus (Papineni et al. 2002; Post 2018), in [0, 100]."""

    tokenize: Tokenize = "13a"
    """How words are found: 13a for languages with spaces, zh for Chinese, char for single characters."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The figure and signature of sacrebleu, with an interval over texts."""
        predictions, references = _pairs(answers)
        bleu = bleu_scorer(self.tokenize, False)
        signature = _signature(bleu, predictions, references)
        # The counts of matches do not depend on how orders are averaged.
        sentence = bleu_scorer(self.tokenize, True)
        parts = [sentence.sentence_score(p, r) for p, r in zip(predictions, references, strict=True)]
        table = np.array([[part.sys_len, part.ref_len, *part.counts, *part.totals] for part in parts], dtype=float)

        def corpus(sums: Float[np.ndarray, "k"]) -> float:
            system, reference, *counts = sums.round().astype(int).tolist()
            correct, total = counts[:ORDER_BLEU], counts[ORDER_BLEU:]
            return float(bleu.compute_bleu(correct, total, system, reference, bleu.smooth_method).score)

        return pooled_score(table, corpus, seed, level, signature)


@dataclass(frozen=True)
class CHRF:
    """chrF2 of a corpus: F-score of character n-grams up to 6, recall counted double (Popović 2015), in [0, 100]."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The figure and signature of sacrebleu, with an interval over texts."""
        predictions, references = _pairs(answers)
        signature = _signature(chrf_scorer(), predictions, references)
        table = np.array([_chrf_counts(p, r) for p, r in zip(predictions, references, strict=True)], dtype=float)
        return pooled_score(table, _chrf_value, seed, level, signature)


@dataclass(frozen=True)
class ROUGE:
    """ROUGE F1 (Lin 2004) against the nearest reference, in [0, 1], averaged over texts; no stemming."""

    variant: Literal["1", "2", "L"] = "L"
    """1 or 2 for shared words or pairs of words, L for the longest common subsequence of words."""
    tokenize: Literal["rouge", "words"] = "rouge"
    """How words are found: rouge knows only a-z and 0-9, as published figures do; words cuts Chinese by character."""

    needs: ClassVar[frozenset[Need]] = NEEDS

    def score(self, answers: Answers, seed: int = 0, level: float = 0.95) -> Score:
        """The mean with its interval; a DataError for a reference in a script that `rouge` does not know."""
        predictions, references = _pairs(answers)
        name, scorer = f"rouge{self.variant}", _rouge(self.variant, self.tokenize)
        if self.tokenize == "rouge":
            _check_script(references)
        rows = zip(predictions, references, strict=True)
        return mean_score(
            np.array([scorer.score_multi(r, p)[name].fmeasure for p, r in rows], dtype=float), seed, level
        )


def _pairs(answers: Answers) -> tuple[list[str], list[list[str]]]:
    references = [list(row) for row in needed(answers.references, "references")]
    return list(needed(answers.predictions, "predictions")), references


def _signature(metric: Any, predictions: list[str], references: list[list[str]]) -> str:
    """The signature of a corpus; sacrebleu forms it while scoring, since it says how many references there were."""
    most = max(map(len, references))
    # One list per place, as sacrebleu wants it; None where a text has fewer references than another.
    places = [[row[place] if place < len(row) else None for row in references] for place in range(most)]
    metric.corpus_score(predictions, places)
    return str(metric.get_signature())


def _chrf_counts(prediction: str, references: list[str]) -> Float[np.ndarray, "18"]:
    """N-grams of the prediction, of the reference and in both, for each order, at the reference that fits best.

    sacrebleu has these numbers too, but gives nobody access to them.
    """
    grams = extra("sacrebleu").extract_char_ngrams
    ours = [grams(prediction, n) for n in range(1, ORDER_CHRF + 1)]
    candidates = []
    for reference in references:
        theirs = [grams(reference, n) for n in range(1, ORDER_CHRF + 1)]
        both = zip(ours, theirs, strict=True)
        # Where the reference is too short for an order, the prediction's n-grams of that order do not count either.
        candidates.append([(a.total() if b else 0, b.total(), (a & b).total()) for a, b in both])
    tables = np.array(candidates, dtype=float).reshape(len(references), -1)
    best: np.ndarray = tables[int(np.argmax([_chrf_value(table) for table in tables]))]
    return best


def _chrf_value(sums: Float[np.ndarray, "18"]) -> float:
    """F-score of precision and recall, each averaged over the orders that both sides have (Popović 2015, eq. 1)."""
    ours, theirs, both = sums.reshape(ORDER_CHRF, 3).T
    orders = (ours > 0) & (theirs > 0)
    if not both[orders].any():
        return 0.0
    precision = float((both[orders] / ours[orders]).mean())
    recall = float((both[orders] / theirs[orders]).mean())
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


class _Words:
    """Our words in the form that rouge-score calls."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words."""
        return words(text.lower())


@functools.cache
def _rouge(variant: str, tokenize: str) -> Any:
    scorer = extra("rouge_score.rouge_scorer").RougeScorer
    return scorer([f"rouge{variant}"], tokenizer=_Words() if tokenize == "words" else None)


def _check_script(references: list[list[str]]) -> None:
    for row, texts in enumerate(references, start=1):
        for text in texts:
            letters = [character for character in text if character.isalnum()]
            if letters and not any(character.isascii() for character in letters):
                raise DataError(
                    f"row {row}, references: got {text[:40]!r}, in which ROUGE's own words (a-z, 0-9) find nothing; "
                    "use the variant for Chinese (rouge1_zh, rouge2_zh, rougel_zh; in Python tokenize='words')"
                )
