"""Filters: rows that are removed for what they are, whatever the other rows may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tokenq.errors import ConfigError
from tokenq.preparation.optional import imported
from tokenq.preparation.records import Note, Outcome, Record
from tokenq.preparation.watch import watched
from tokenq.preparation.words import count_words

Judge = Callable[[Record], tuple[str, str] | None]


@dataclass(frozen=True)
class Empty:
    """Remove rows with a text that is empty, null or nothing but white space."""

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """The rows whose text columns all hold something."""

        def judge(record: Record) -> tuple[str, str] | None:
            empty = [column for column in columns if not record.text(column).strip()]
            return ("empty", f"column '{empty[0]}'") if empty else None

        return _filtered(records, judge)


@dataclass(frozen=True)
class Length:
    """Remove texts that are too short or too long."""

    min_characters: int | None = None
    """Fewest characters, >= 0; null: any number."""
    max_characters: int | None = None
    """Most characters, >= 1; null: any number."""
    min_words: int | None = None
    """Fewest words, >= 0; each Chinese, Japanese or Thai character is one; null: any number."""
    max_words: int | None = None
    """Most words, >= 1; null: any number."""

    def __post_init__(self) -> None:
        for unit in ("characters", "words"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if low is not None and low < 0:
                raise ConfigError(f"min_{unit}: got {low}, expected an integer >= 0")
            if high is not None and high < max(1, low or 0):
                raise ConfigError(f"max_{unit}: got {high}, expected an integer >= {max(1, low or 0)}")

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """The rows whose text columns all have an allowed length."""
        limits = (
            ("characters", len, self.min_characters, self.max_characters),
            ("words", count_words, self.min_words, self.max_words),
        )

        def judge(record: Record) -> tuple[str, str] | None:
            for unit, measure, low, high in limits:
                if low is None and high is None:
                    continue
                for column in columns:
                    length = measure(record.text(column))
                    found = f"column '{column}' has {length:,} {unit}"
                    if low is not None and length < low:
                        return f"fewer than {low:,} {unit}", found
                    if high is not None and length > high:
                        return f"more than {high:,} {unit}", found
            return None

        return _filtered(records, judge)


@dataclass(frozen=True)
class Language:
    """Remove texts in other languages, as py3langid tells them (Lui and Baldwin 2012)."""

    languages: list[str] = field(default_factory=lambda: ["en"])
    """Languages that the text may be in, ISO 639-1 codes such as en, de, zh."""
    target_languages: list[str] = field(default_factory=list)
    """Languages that the translation may be in; none: it is not looked at."""
    probability: float = 0.5
    """Probability of the languages together that a text must reach, in (0, 1]; short texts rarely reach much."""
    candidates: list[str] | None = None
    """Languages that come into question at all, fewer make short texts surer; null: all that py3langid knows."""

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ConfigError(f"probability: got {self.probability}, expected a number in (0, 1]")
        if not self.languages:
            raise ConfigError("languages: got none, expected at least one code such as en")
        missing = {*self.languages, *self.target_languages} - {*(self.candidates or self.languages)}
        if self.candidates is not None and missing:
            raise ConfigError(f"candidates: got {self.candidates}, expected {', '.join(sorted(missing))} among them")

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """The rows whose text is probably in one of the languages.

        Raises:
            ConfigError: py3langid is not installed, or does not know a language.
        """
        identifier = _identifier()
        identifier.set_languages(None)
        unknown = {*self.languages, *self.target_languages, *(self.candidates or ())} - set(identifier.labels)
        if unknown:
            known = ", ".join(identifier.labels)
            raise ConfigError(f"language: got {', '.join(sorted(unknown))}, expected codes among {known}")
        identifier.set_languages(self.candidates)
        wanted = [(column, languages) for column, languages in self._wanted(columns) if languages]

        def judge(record: Record) -> tuple[str, str] | None:
            for column, languages in wanted:
                ranked = identifier.rank(record.text(column))
                reached = sum(p for language, p in ranked if language in languages)
                if reached < self.probability:
                    best, p = ranked[0]
                    name = " or ".join(languages)
                    return f"not in {name}", f"column '{column}': {name} {reached:.2f}, most probably {best} {p:.2f}"
            return None

        return _filtered(records, judge)

    def _wanted(self, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
        return list(zip(columns, (self.languages, self.target_languages), strict=False))


@dataclass(frozen=True)
class LengthRatio:
    """Remove translations whose two sides differ too much in length, mostly lines that do not belong together."""

    most: float = 3.0
    """Words of the longer side per word of the shorter one, >= 1; a Chinese character counts as a word."""

    def __post_init__(self) -> None:
        if not 1 <= self.most < float("inf"):
            raise ConfigError(f"most: got {self.most}, expected a finite number >= 1")

    def apply(self, records: Sequence[Record], columns: Sequence[str]) -> Outcome:
        """The rows whose two text columns are of similar length."""
        first, second = columns

        def judge(record: Record) -> tuple[str, str] | None:
            a, b = count_words(record.text(first)), count_words(record.text(second))
            if max(a, b) <= self.most * min(a, b):
                return None
            return f"length ratio above {self.most:g}", f"{a} words in '{first}', {b} in '{second}'"

        return _filtered(records, judge)


@cache
def _identifier() -> Any:
    # A second to load. It keeps the candidates it was last given: whoever asks for it must set them.
    langid = imported("py3langid.langid", "language")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _filtered(records: Sequence[Record], judge: Judge) -> Outcome:
    outcome = Outcome([])
    for record in watched(records, "filtering"):
        verdict = judge(record)
        if verdict is None:
            outcome.kept.append(record)
        else:
            outcome.removed.append(Note(verdict[0], record, verdict[1]))
    return outcome
