"""Plain text files as rows."""

from pathlib import Path

import pytest

from tokenq.errors import DataError
from tokenq.replay.rows import read_rows


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def test_lines_are_texts_and_row_numbers_are_line_numbers(tmp_path: Path) -> None:
    write(tmp_path, a_txt="one\n\nthree\u2028still three\r\n")
    assert read_rows(str(tmp_path / "a.txt")) == [{"text": "one"}, {"text": ""}, {"text": "three\u2028still three"}]


def test_tabs_separate_and_quotes_are_text(tmp_path: Path) -> None:
    write(tmp_path, a_tsv='en\tzh\n"Hi.\t嗨。\n007\t零零七\n')
    assert read_rows(str(tmp_path / "a.tsv")) == [{"en": '"Hi.', "zh": "嗨。"}, {"en": "007", "zh": "零零七"}]
    write(tmp_path, b_tsv="en\tzh\na\tb\nonly one\n")
    with pytest.raises(DataError, match=r"b\.tsv row 2: has 1 values, expected 2 \(en, zh\), separated by tabs"):
        read_rows(str(tmp_path / "b.tsv"))


def test_lines_of_several_files_belong_together(tmp_path: Path) -> None:
    write(tmp_path, t_en="a man\na dog\n", t_de="ein Mann\nein Hund\n", t_fr="un homme\n")
    assert read_rows(str(tmp_path / "t.{en,de}"))[1] == {"en": "a dog", "de": "ein Hund"}
    with pytest.raises(DataError, match=r"t\.en has 2 lines, .*t\.fr has 1 lines; expected the same number"):
        read_rows(str(tmp_path / "t.{en,fr}"))
    with pytest.raises(DataError, match=r"t\.it: no such file; expected one for each of en, it"):
        read_rows(str(tmp_path / "t.{en,it}"))
