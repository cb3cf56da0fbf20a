import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenq.errors import DataError
from tokenq.replay.rows import read_rows

ROWS = [
    {"prompt": "12", "completion": "two\nlines, and a \u2028 sign", "reward": 0.5},
    {"prompt": "ü", "completion": "好", "reward": None},
]


def _write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_every_format_reads_the_same_rows(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    table = 'prompt,completion,reward\n12,"two\nlines, and a \u2028 sign",0.5\nü,好,\n'
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    sources = [
        _write(tmp_path / "a.jsonl", lines + "\n\n"),
        _write(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode()),
        _write(tmp_path / "a.json", json.dumps(ROWS)),
        _write(tmp_path / "a.csv", table),
        str(tmp_path / "a.parquet"),
        str(tmp_path / "saved"),
        str(tmp_path / "splits"),
    ]
    for source in sources:
        assert read_rows(source) == ROWS, source


@given(rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1, max_size=5))
def test_json_lines_round_trip(tmp_path_factory, rows: list[dict[str, object]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert read_rows(_write(path, "\n".join(map(json.dumps, rows)))) == rows


def test_csv_lists_are_json_and_nan_stays_nan(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.csv", 'messages,rewards,reward\n"[{""role"": ""user""}]","[1, null]",NaN\n')
    row = read_rows(source)[0]
    assert (row["messages"], row["rewards"]) == ([{"role": "user"}], [1, None])
    assert row["reward"] != row["reward"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl row 2: is not valid JSON"),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1}\n', r"a\.jsonl row 2: is an empty line"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl row 2: is a JSON list, expected an object"),
        ("a.jsonl", b'{"a": "x"}\n{"a": "\xe9"}\n', r"a\.jsonl row 2: byte 18 is not UTF-8"),
        ("a.jsonl", "", "has no rows"),
        ("a.jsonl", "\n \n", "has no rows"),
        ("a.json", "", "has no rows"),
        ("a.json", "[]", "has no rows"),
        ("a.json", '{"a": 1}\n{"a": 2}', r"not valid JSON .*name it \.jsonl"),
        ("a.json", '{"a": 1}', "holds a JSON dict, expected a list"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.csv", "a,b\n1\n", "not valid CSV"),
        ("a.csv", b"a,b\n1,2\n1,\xff\n", r"row 3: byte 10 is not UTF-8"),
        ("a.csv", 'prompt,rewards\nx,"[1,"\n', r"row 1: column 'rewards' is not valid JSON"),
        ("a.parquet", "PAR1 but no more", "not a readable Parquet file"),
        ("a.docx", "hello", r"got the ending '\.docx', expected one of \.jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_rows(_write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_wildcards_name_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, text in (("b.txt", "three"), ("a.txt", "one\ntwo"), ("c.md", "no")):
        (tmp_path / name).write_text(text)
    assert [row["text"] for row in read_rows(f"{tmp_path}/*.txt")] == ["one", "two", "three"]
    (tmp_path / "[ab].txt").write_text("a name like a pattern")
    assert read_rows(f"{tmp_path}/[ab].txt") == [{"text": "a name like a pattern"}]
    with pytest.raises(DataError, match=r"x\*\.txt: no file has such a name"):
        read_rows(f"{tmp_path}/x*.txt")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"^nowhere\.jsonl: no such file"):
        read_rows("nowhere.jsonl")


def test_an_empty_folder_and_a_missing_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no file, folder or `datasets` id"):
        read_rows(str(tmp_path))
    datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match="has the splits test; expected a split named 'train'"):
        read_rows(str(tmp_path / "splits"))
