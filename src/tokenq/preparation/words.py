"""What counts as a word, in scripts with spaces and without.

A word is a run of characters between white space; in scripts that put no spaces between words (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) every character counts as one. So shingles of words are shingles of characters there.
"""

import re
import unicodedata

# Kana, CJK ideographs with extensions and compatibility forms, and the scripts of South-East Asia without spaces.
_UNSPACED = (
    r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    r"\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_WORD_AND_SPACE = re.compile(rf"([{_UNSPACED}]|[^\s{_UNSPACED}]+)(\s*)")
_BARE_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def count_words(text: str) -> int:
    """Number of words; a Chinese character is one."""
    return len(_WORD.findall(text))


def words_and_spaces(text: str) -> list[tuple[str, str]]:
    """Each word with the white space that follows it; joined they are the text without white space in front."""
    return _WORD_AND_SPACE.findall(text)


def plain_key(text: str) -> str:
    """What is left of a text when case, white space and compatibility forms (NFKC) do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str, size: int) -> frozenset[str]:
    """The set of all runs of `size` neighbouring words, without case and punctuation (Broder 1997, section 2).

    A text with fewer words is one shingle, and so is one without any, such as a line of punctuation.
    """
    key = plain_key(text)
    words = _BARE_WORD.findall(key)
    if not words:
        return frozenset({key})
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))
