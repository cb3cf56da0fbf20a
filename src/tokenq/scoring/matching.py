"""How right an answer is: exact match and token F1 (Rajpurkar et al. 2016, SQuAD), the best over the references.

How the texts are made comparable stands in `words.normalised`.
"""

from collections import Counter
from collections.abc import Sequence

from tokenq.scoring.words import normalised


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is one of the references once both are normalised, otherwise 0."""
    return float(any(normalised(prediction) == normalised(reference) for reference in references))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """The largest F1 of the bags of words of the prediction and a reference, in [0, 1].

    If one side has no word, 1 if neither has one, otherwise 0 (Rajpurkar et al. 2018, for "no answer").
    """
    return max(_f1(normalised(prediction), normalised(reference)) for reference in references)


def _f1(prediction: list[str], reference: list[str]) -> float:
    if not prediction or not reference:
        return float(prediction == reference)
    common = (Counter(prediction) & Counter(reference)).total()
    return 2 * common / (len(prediction) + len(reference))
