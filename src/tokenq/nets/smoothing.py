"""How an n-gram model shares probability between what was seen and what was not.

A strategy answers, for all n-grams of one length, what each of them gets of its own and what its context leaves to the
next shorter one: p(w | c) = own(c, w) + rest(c) * p(w | c'). For every context seen, its own shares and its rest sum
to 1. D, n1, n2, ... : a discount, and how many n-grams of the length have the count 1, 2, ...
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenq.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Grams:
    """All n-grams of one length that were seen.

    `counts` says how often each one was, >= 1, and `continuations` how many different tokens stood right before it: 0
    where nothing is known to, of the longest n-grams and of those that begin a text. `contexts` is the number of each
    one's context among `number_of_contexts`, and `vocabulary` the number V of tokens.
    """

    length: int
    vocabulary: int
    counts: Int[np.ndarray, "N"]
    continuations: Int[np.ndarray, "N"]
    contexts: Int[np.ndarray, "N"]
    number_of_contexts: int

    def chosen(self, mask: Bool[np.ndarray, "N"]) -> "Grams":
        """Only the n-grams of the mask."""
        arrays = self.counts[mask], self.continuations[mask], self.contexts[mask]
        return Grams(self.length, self.vocabulary, *arrays, self.number_of_contexts)

    def per_context(self, values: Int[np.ndarray, "N"] | Float[np.ndarray, "N"]) -> Float[np.ndarray, "C"]:
        """The sum of one value per n-gram over each context."""
        return np.bincount(self.contexts, values, self.number_of_contexts).astype(np.float64)


Shares = tuple[Float[np.ndarray, "N"], Float[np.ndarray, "C"]]
"""`own` of each n-gram, >= 0, and `rest` of each context, in (0, 1]; 1 for contexts that nothing was seen after."""


@dataclass(frozen=True)
class Additive:
    """`alpha` is added to every count: (count + alpha) / (count of the context + alpha * V).

    Only the longest context counts; after one that was never seen all tokens are equally probable. With alpha 1 the
    rule of Laplace, else of Lidstone (Manning & Schütze, Foundations of Statistical NLP, 1999, section 6.2.2).
    """

    alpha: float = 1.0
    """What is added to every count, > 0."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"alpha: got {self.alpha}, expected a finite number > 0")

    def shares(self, grams: Grams) -> Shares:
        """Shares of the n-grams that nothing longer stands for; the others pass everything on."""
        counts = np.where(grams.continuations > 0, 0, grams.counts)
        added = self.alpha * grams.vocabulary
        denominators = grams.per_context(counts) + added
        return counts / denominators[grams.contexts], added / denominators


@dataclass(frozen=True)
class KneserNey:
    """Interpolated Kneser-Ney smoothing: absolute discounts, and lower orders that count different predecessors.

    Kneser & Ney, Improved backing-off for m-gram language modeling, ICASSP 1995; interpolated as in Chen & Goodman
    1999, equation 25.
    """

    discount: float | None = None
    """Taken from every count, in (0, 1]; null: n1 / (n1 + 2 n2) in each order (Ney, Essen & Kneser 1994)."""

    def __post_init__(self) -> None:
        if self.discount is not None and not 0 < self.discount <= 1:
            raise ConfigError(f"discount: got {self.discount}, expected a number in (0, 1]")

    def shares(self, grams: Grams) -> Shares:
        """The discounted share of each n-gram in its context; the discounts of a context are its rest.

        Raises:
            DataError: The discount is to be estimated, and no n-gram of this length has the count 1.
        """
        counts = _adjusted(grams)
        discount = self._estimated(counts, grams.length) if self.discount is None else self.discount
        return _discounted(grams, counts, np.full(len(counts), discount))

    def _estimated(self, counts: Int[np.ndarray, "N"], length: int) -> float:
        n1, n2 = (np.count_nonzero(counts == count) for count in (1, 2))
        if n1 == 0:
            raise DataError(
                f"no {length}-gram has the count 1, so there is no estimate of discount; set it, say to 0.75"
            )
        return n1 / (n1 + 2 * n2)


@dataclass(frozen=True)
class ModifiedKneserNey:
    """Kneser-Ney smoothing with three discounts: of the counts 1, 2, and 3 or more.

    Chen & Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech & Language 13,
    1999, equations 23 to 26. For large vocabularies: an order where few n-grams are rare, such as single characters,
    gives no estimate.
    """

    def shares(self, grams: Grams) -> Shares:
        """The discounted share of each n-gram in its context; the discounts of a context are its rest.

        Raises:
            DataError: A count from 1 to 4 does not occur, or a discount is not in (0, its count].
        """
        counts = _adjusted(grams)
        n1, n2, n3, n4 = (np.count_nonzero(counts == count) for count in (1, 2, 3, 4))
        where = f"{n1}, {n2}, {n3}, {n4} {grams.length}-grams have the counts 1 to 4"
        if 0 in (n1, n2, n3, n4):
            raise DataError(f"{where}, expected some of each to estimate three discounts; use kneser_ney")
        y = n1 / (n1 + 2 * n2)
        discounts = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (discounts <= 0).any():
            raise DataError(f"{where}, which gives the discounts {discounts}, expected numbers > 0; use kneser_ney")
        return _discounted(grams, counts, discounts[np.minimum(counts, 3) - 1])


Smoothing = Additive | KneserNey | ModifiedKneserNey


def _adjusted(grams: Grams) -> Int[np.ndarray, "N"]:
    """Predecessors where there may be some; occurrences of the longest n-grams and of those that begin a text."""
    return np.where(grams.continuations > 0, grams.continuations, grams.counts)


def _discounted(grams: Grams, counts: Int[np.ndarray, "N"], discounts: Float[np.ndarray, "N"]) -> Shares:
    totals = grams.per_context(counts)
    rest = np.ones_like(totals)
    np.divide(grams.per_context(discounts), totals, out=rest, where=totals > 0)
    return (counts - discounts) / totals[grams.contexts], rest
