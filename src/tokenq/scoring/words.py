"""What counts as a word, in languages with spaces and in those without."""

import re
import string
import unicodedata

# Han characters, kana, and the punctuation and full-width forms that go with them: each is a word of its own.
_WIDE = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    """The text cut at white space, and before and after every Chinese or Japanese character."""
    return _WORD.findall(text)


def normalised(text: str) -> list[str]:
    """Words as answers to questions are compared: lower case, without punctuation and English articles.

    Rajpurkar et al. 2016 (SQuAD), with the two changes that Lewis et al. 2020 (MLQA) make for other languages:
    punctuation is what Unicode calls so, and Chinese is cut into characters.
    """
    return words(_ARTICLE.sub(" ", without_punctuation(text.lower())))


def without_punctuation(text: str) -> str:
    """The text without what Unicode or ASCII (which has `$` and `+` there) calls punctuation."""
    return "".join(character for character in text if not _is_punctuation(character))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
