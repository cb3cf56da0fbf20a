"""Normalisation and filters: what is changed, what goes, and with what reason."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenq.errors import ConfigError
from tokenq.preparation.filters import Empty, Language, Length, LengthRatio
from tokenq.preparation.normalise import Normalise
from tokenq.preparation.optional import imported
from tokenq.preparation.records import Outcome, Record
from tokenq.preparation.words import count_words, words_and_spaces

Records = Callable[..., list[Record]]


def texts(outcome: Outcome, column: str = "text") -> list[str]:
    return [record.text(column) for record in outcome.kept]


def reasons(outcome: Outcome) -> dict[str, int]:
    return dict(Counter(note.reason for note in outcome.removed))


def test_words_are_characters_where_no_spaces_are_written() -> None:
    assert count_words("It's  a\tdog.") == 3
    assert count_words("我有2只dogs。") == 5  # as elsewhere, a full stop belongs to the word before it


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_words_and_spaces_are_the_text(text: str) -> None:
    assert "".join(word + space for word, space in words_and_spaces(text)) == text.lstrip()


def test_normalise_repairs_and_counts(records: Records) -> None:
    rows = records("schÃ¶n", "a\x07b", "cafe\u0301", "a  b\t c \r\n\n\n\nd", "fine", "\uff0c\u3002")
    outcome = Normalise().apply(rows, ["text"])
    assert texts(outcome) == ["schön", "ab", "café", "a b c\n\nd", "fine", "\uff0c\u3002"]
    assert [(note.reason, note.record.row) for note in outcome.changed] == [
        ("mojibake repaired", 1),
        ("control characters stripped", 2),
        ("normal form NFC", 3),
        ("control characters stripped", 4),
        ("white space collapsed", 4),
    ]
    assert not outcome.removed and outcome.kept[4] is rows[4]


def test_normalise_does_only_what_is_asked(records: Records) -> None:
    rows = records("ﬁ１  schÃ¶n\nx")
    assert texts(Normalise(mojibake=False, form="NFKC", spaces="all").apply(rows, ["text"])) == ["fi1 schÃ¶n x"]
    assert texts(Normalise(mojibake=False, form=None, spaces=None).apply(rows, ["text"])) == ["ﬁ１  schÃ¶n\nx"]


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    step = Normalise(mojibake=False)
    once = step.apply([Record({"text": text}, "data", 1)], ["text"])
    assert texts(step.apply(once.kept, ["text"])) == texts(once)


def test_empty_and_length(records: Records) -> None:
    rows = records("one two three", " \n", "one", "1234567890123456789", "")
    outcome = Empty().apply(rows, ["text"])
    assert reasons(outcome) == {"empty": 2}
    outcome = Length(min_words=1, max_characters=15, min_characters=4).apply(outcome.kept, ["text"])
    assert texts(outcome) == ["one two three"]
    assert reasons(outcome) == {"fewer than 4 characters": 1, "more than 15 characters": 1}
    assert outcome.removed[1].detail == "column 'text' has 19 characters"


def test_both_sides_of_a_translation_are_looked_at(records: Records) -> None:
    rows = records({"en": "a b", "de": ""}, {"en": "a b c d", "de": "a"}, {"en": "a b c", "de": "a"})
    kept = Empty().apply(rows, ["en", "de"]).kept
    outcome = LengthRatio(3).apply(kept, ["en", "de"])
    assert texts(outcome, "en") == ["a b c"]
    assert outcome.removed[0].detail == "4 words in 'en', 1 in 'de'"


def test_language(records: Records) -> None:
    english, german, chinese = (
        "The children were playing in the garden all afternoon.",
        "Die Kinder spielten den ganzen Nachmittag im Garten.",
        "孩子们整个下午都在花园里玩耍。",
    )
    rows = records(english, german, chinese)
    outcome = Language(["en"]).apply(rows, ["text"])
    assert texts(outcome) == [english] and reasons(outcome) == {"not in en": 2}
    assert "most probably de" in outcome.removed[0].detail
    assert texts(Language(["de", "zh"]).apply(rows, ["text"])) == [german, chinese]
    # With only two to choose from, what is not German must be English.
    assert texts(Language(["en"], candidates=["en", "de"]).apply(records("a fun ride"), ["text"])) == ["a fun ride"]
    assert texts(Language(["en"]).apply(records("a fun ride"), ["text"])) == []
    pairs = records({"en": english, "de": german}, {"en": english, "de": english})
    assert len(Language(["en"], ["de"]).apply(pairs, ["en", "de"]).kept) == 1
    assert len(Language(["en"]).apply(pairs, ["en", "de"]).kept) == 2


def test_settings_that_cannot_be(records: Records) -> None:
    for wrong, message in (
        (lambda: Length(min_words=5, max_words=3), "max_words: got 3, expected an integer >= 5"),
        (lambda: Length(min_characters=-1), "min_characters: got -1"),
        (lambda: Language([]), "languages: got none"),
        (lambda: Language(["en"], candidates=["de"]), "expected en among them"),
        (lambda: Language(probability=0.0), "probability: got 0.0"),
        (lambda: LengthRatio(0.5), "most: got 0.5"),
        (lambda: Language(["xx"]).apply(records("a"), ["text"]), "language: got xx, expected codes among af, am"),
        (lambda: imported("no_such_package", "near"), r'no_such_package.*pip install "tokenq\[data\]"'),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()
