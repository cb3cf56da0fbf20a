"""How close a text is to its references: sentence BLEU and chrF, as sacrebleu computes them."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

from tokenq.errors import DataError
from tokenq.scoring.extra import extra

ORDER_CHRF = 6
BETA = 2

Tokenize = Literal["13a", "zh", "char"]


def sentence_bleu(prediction: str, references: Sequence[str], tokenize: Tokenize = "13a") -> float:
    """BLEU of one text in [0, 1], for use as a reward.

    sacrebleu's exponential smoothing; orders longer than the prediction are left out of the mean (`effective_order`).
    """
    _check_references(references)
    # Rounding lets a perfect text exceed 100 by a few ulps.
    return min(float(bleu(tokenize, True).sentence_score(prediction, list(references)).score) / 100, 1.0)


def sentence_chrf(prediction: str, references: Sequence[str]) -> float:
    """chrF2 of one text in [0, 1], for use as a reward."""
    _check_references(references)
    return min(float(chrf().sentence_score(prediction, list(references)).score) / 100, 1.0)


def _check_references(references: Sequence[str]) -> None:
    if isinstance(references, str) or not references:
        raise DataError(f"references: got {references!r}, expected a list of one or more strings")


@functools.cache
def bleu(tokenize: Tokenize, effective_order: bool) -> Any:
    """The scorer of sacrebleu."""
    return extra("sacrebleu").BLEU(tokenize=tokenize, effective_order=effective_order)


@functools.cache
def chrf() -> Any:
    """The scorer of sacrebleu."""
    return extra("sacrebleu").CHRF(char_order=ORDER_CHRF, beta=BETA)
