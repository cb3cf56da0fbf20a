"""Reading: every row with its place, and one line for what cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenq.errors import ConfigError, DataError
from tokenq.preparation.sources import Source


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def texts(*files: str, **settings: Any) -> list[str]:
    return [record.text("text") for record in Source(files, **settings).read().kept]


def test_rows_keep_their_columns_and_their_place(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", '{"text": "one", "label": 1}\n{"text": null, "label": 0}\n')
    b = written(tmp_path / "b.txt", "two\r\n\nthree")
    kept = Source([a, b]).read().kept
    assert [record.values for record in kept[:2]] == [{"text": "one", "label": 1}, {"text": "", "label": 0}]
    assert [(r.file, r.row, r.text("text")) for r in kept[2:]] == [(b, 1, "two"), (b, 2, ""), (b, 3, "three")]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
def test_a_given_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    lines = {
        "a.txt": "schön\n",
        "a.jsonl": '{"text": "schön"}\n',
        "a.csv": "text,n\nschön,1\n",
        "a.tsv": "text\nschön\n",
    }
    file = written(tmp_path / name, lines[name].encode(encoding))
    assert texts(file, encoding=encoding) == ["schön"]
    with pytest.raises(DataError, match=rf"{name} row \d: byte \d+ is not UTF-8"):
        texts(file)


def test_mixed_encodings_name_the_row_or_lose_it(tmp_path: Path) -> None:
    good, latin, marked, half = (
        b'{"text": "sch\xc3\xb6n"}', b'{"text": "sch\xf6n"}', '{"text": "sch\ufffdn"}'.encode(), b'{"text": "\\ud83d"}'
    )  # fmt: skip
    file = written(tmp_path / "a.jsonl", b"\n".join([good, latin, marked, half, good]))
    with pytest.raises(DataError, match=r"a\.jsonl row 2: byte 32 is not UTF-8"):
        texts(file)
    for bad, what in ((marked, "holds U\\+FFFD"), (half, "holds half a surrogate pair")):
        other = written(tmp_path / "b.jsonl", b"\n".join([good, bad]))
        with pytest.raises(DataError, match=rf"b\.jsonl row 2: column 'text' {what}"):
            texts(other)
    outcome = Source([file], on_bad_text="drop").read()
    assert [record.row for record in outcome.kept] == [1, 5]
    assert [(note.reason, note.record.row) for note in outcome.removed] == [("bad text", row) for row in (2, 3, 4)]


def test_translations_line_by_line(tmp_path: Path) -> None:
    written(tmp_path / "a.en", "one\ntwo\n")
    written(tmp_path / "a.de", "eins\nzwölf\n".encode("latin-1"))
    source = Source([f"{tmp_path}/a.{{en,de}}"], ["en", "de"], encoding="latin-1")
    assert [record.values for record in source.read().kept] == [
        {"en": "one", "de": "eins"},
        {"en": "two", "de": "zwölf"},
    ]


@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_translations_of_unequal_length_name_both_files(tmp_path: Path, encoding: str | None) -> None:
    written(tmp_path / "a.en", "one\ntwo\n")
    written(tmp_path / "a.de", "eins\n")
    with pytest.raises(DataError) as caught:
        Source([f"{tmp_path}/a.{{en,de}}"], ["en", "de"], encoding=encoding).read()
    assert f"{tmp_path}/a.en has 2 lines" in str(caught.value) and f"{tmp_path}/a.de has 1 lines" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "a", "label": 1}, r"rows\.jsonl row 2: no column 'text'; there is body, label; set text_column"),
        ({"text": 3}, r"rows\.jsonl row 2: column 'text' is int, expected a text"),
        ({"text": "a", "x": float("nan")}, r"rows\.jsonl row 2: column 'x' cannot be written as JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = written(tmp_path / "rows.jsonl", '{"text": "good"}\n' + json.dumps(row))
    with pytest.raises(DataError, match=message):
        texts(file)


def test_an_error_in_a_recoded_copy_names_the_real_file(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", "{oops ö}".encode("latin-1"))
    with pytest.raises(DataError, match=rf"^{file} row 1: is not valid JSON"):
        texts(file, encoding="latin-1")


def test_an_unknown_encoding(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="encoding: got 'klingon', expected a name such as"):
        texts(written(tmp_path / "a.txt", "a"), encoding="klingon")
