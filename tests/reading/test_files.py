"""Rows come with their places, and what is broken is named by line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plaudit.errors import RecordError
from plaudit.reading.files import read_rows
from plaudit.reading.rows import Problem, Row, listing

Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def read(path: Path, **options: Any) -> list[tuple[str, Any]]:
    """(place without the folder, value) of every row; a problem's value is its text."""
    found = []
    for item in read_rows(path, **options):
        place = item.place.removeprefix(f"{path.parent}/").removeprefix(path.name)
        found.append((place, item.value if isinstance(item, Row) else f"PROBLEM {item.text}"))
    return found


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.JSONL"])
def test_jsonl(put: Put, name: str):
    path = put(name, '\ufeff{"text": "书 \u2028 \U0001f642"}\r\n\n"plain"\n')
    assert read(path) == [(":1", {"text": "书 \u2028 \U0001f642"}), (":3", "plain")]


def test_a_bad_line_spoils_no_other(put: Put):
    path = put("a.jsonl", b'{"a": 1}\n{"a": \n\xff\n{"a": NaN}\n' + b"[" * 100_000 + b'\n{"a": 2}')
    rows = read(path)
    assert [rows[0], rows[-1]] == [(":1", {"a": 1}), (":6", {"a": 2})]
    assert [place for place, _ in rows[1:-1]] == [":2", ":3", ":4", ":5"]
    assert rows[1][1].startswith("PROBLEM not JSON: Expecting value at character")
    assert rows[2][1] == "PROBLEM not UTF-8 (found byte 0xff)"
    assert rows[3][1] == "PROBLEM not JSON: NaN is not JSON"
    assert rows[4][1].startswith("PROBLEM not JSON: ")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_json_list_keeps_the_line_of_each_element(put: Put, name: str):
    assert read(put(name, '[\n {"a": 1},\n\n {"a":\n 2}, "x"]\n')) == [(":2", {"a": 1}), (":4", {"a": 2}), (":5", "x")]
    assert read(put(name, "[]")) == []


def test_json_objects(put: Put):
    inside = put("a.json", json.dumps({"version": 2, "tags": ["t"], "data": [{"a": 1}, {"a": 2}]}))
    assert read(inside) == [(" row 1", {"a": 1}), (" row 2", {"a": 2})]
    inside.write_text('[{"a": 1}, {"a": 2},\n {"a": 3}]')
    assert read(inside) == [(":1", {"a": 1}), (":1 row 2", {"a": 2}), (":2", {"a": 3})]
    lines = put("b.json", '{"a": 1}\n{"a": 2}\n')
    assert read(lines) == [(":1", {"a": 1}), (":2", {"a": 2})]


@pytest.mark.parametrize(
    ("content", "place", "says"),
    [
        ('[\n{"a": 1},\n{"a" 2}]', ":3", "Expecting ':' delimiter (found 2}])"),
        ('[\n{"a": 1}\n{"a": 2}]', ":3", 'a comma or ] is needed here (found {"a": 2}])'),
        ('[{"a": 1},', ":1", "Expecting value (found the end of the file)"),
        ('[{"a": 1}', ":1", "(found the end of the file)"),
        ("[1]\n[2]", ":2", "the list has ended (found [2])"),
        ("[1, NaN]", ":1", "NaN is not JSON"),
        ('{"a": 1}', ":1", "an object with one list of objects (found an object with a)"),
        ('{"a": [{}], "b": [{}]}', ":1", "(found an object with a, b)"),
        ("7", ":1", "(found 7)"),
        (b'["\n\xe4"]', ":2", "not UTF-8 (found byte 0xe4)"),
    ],
)
def test_broken_json_is_named_by_line(put: Put, content: str | bytes, place: str, says: str):
    found, text = read(put("a.json", content))[-1]
    assert found == place
    assert says in text


def test_csv_with_fields_over_lines_and_long_ones(put: Put):
    long = "x" * 200_000  # over the csv module's own limit
    path = put("a.csv", f'label,review\n1,"two\nlines, ""quoted"""\n\n0,{long}\n0\n1,last\n')
    assert read(path) == [
        (":2", {"label": "1", "review": 'two\nlines, "quoted"'}),
        (":5", {"label": "0", "review": long}),
        (":6", "PROBLEM 2 fields are needed, label, review (found 1)"),
        (":7", {"label": "1", "review": "last"}),
    ]


def test_broken_csv(put: Put):
    assert read(put("a.csv", 'a,b\n1,2\n1,"open\n')) == [
        (":2", {"a": "1", "b": "2"}),
        (":3", "PROBLEM not CSV from here on: unexpected end of data"),
    ]
    assert read(put("a.csv", "a,a\n1,2\n")) == [(":1", "PROBLEM two columns have one name (found a, a)")]
    assert read(put("a.csv", "")) == []


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet(tmp_path: Path, put: Put, name: str):
    rows = [{"prompt": "p", "answers": ["a", "书"]}, {"prompt": "q", "answers": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "raw")
    path = put(name, (tmp_path / "raw").read_bytes())
    assert read(path) == [(" row 1", rows[0]), (" row 2", rows[1])]


def test_broken_parquet(put: Put):
    ((place, text),) = read(put("a.parquet", "no"))
    assert place == " row 1"
    assert text.startswith("PROBLEM not Parquet: ")


def test_text_by_lines_paragraphs_or_whole(put: Put):
    lines, blank = put("a.txt", "\none\ntwo\r\n\n"), put("b.txt.gz", "one\ntwo\n\n \nthree\n")
    assert read(lines) == [(":2", "one"), (":3", "two")]
    assert read(lines, unit="paragraphs") == [(":2", "one\ntwo")]
    assert read(blank) == [(":1", "one\ntwo"), (":5", "three")]
    assert read(blank, unit="lines") == [(":1", "one"), (":2", "two"), (":5", "three")]
    assert read(blank, unit="whole") == [(":1", "one\ntwo\n\n \nthree")]
    assert read(put("c.txt", " \n")) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".txt", ".parquet"])
def test_gzip_that_breaks_off_is_a_problem_not_a_crash(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-20])
    last = list(read_rows(path))[-1]
    assert isinstance(last, Problem)
    assert last.text.startswith("the gzip data is damaged or cut off here: ")
    path.write_bytes(b"not gzip")
    assert "Not a gzipped file" in next(iter(read_rows(path))).text  # type: ignore[union-attr]


def test_what_cannot_be_opened(put: Put, tmp_path: Path):
    with pytest.raises(RecordError, match=r"gone\.jsonl: no such file"):
        read_rows(tmp_path / "gone.jsonl")
    with pytest.raises(RecordError, match=r"unknown suffix \.xls; known are \.json, \.jsonl, \.csv, \.parquet, \.txt"):
        read_rows(put("a.xls", "x"))
    with pytest.raises(RecordError, match="split 'test' is asked for, but a file has no splits"):
        read_rows(put("a.jsonl", "{}"), split="test")
    with pytest.raises(RecordError, match="name 'main' is asked for, but a file has no names"):
        read_rows(put("a.jsonl", "{}"), name="main")
    with pytest.raises(RecordError, match="not a name that a dataset could have"):
        read_rows(tmp_path / "gone")


def test_listing_is_short():
    problems = [Problem(f"a:{line}", "b: bad") for line in range(1, 25)]
    assert listing(problems, most=2) == "  a:1: b: bad\n  a:2: b: bad\n  ... and 22 more"
    assert listing(problems[:2], most=2) == "  a:1: b: bad\n  a:2: b: bad"


ROWS = [{"text": "one"}, {"text": "两"}]


def test_a_saved_dataset(tmp_path: Path):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "one") == [("[train] row 1", ROWS[0]), ("[train] row 2", ROWS[1])]
    assert read(tmp_path / "two", split="test") == [("[test] row 1", ROWS[1])]
    with pytest.raises(RecordError, match="no split 'dev'; there are train, test"):
        read_rows(tmp_path / "two", split="dev")
    with pytest.raises(RecordError, match="name 'main' is asked for, but a dataset that was saved to disk has no"):
        read_rows(tmp_path / "one", name="main")


def test_a_folder_of_data_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read(folder) == [("[train] row 1", ROWS[0]), ("[train] row 2", ROWS[1])]
    with pytest.raises(RecordError, match=r"cannot be read as a dataset \(split 'dev'\)"):
        read_rows(folder, split="dev")


def test_a_dataset_of_several_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    cards = [f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("first", "second")]
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(cards) + "---\n")
    for name, row in zip(("first", "second"), ROWS, strict=True):
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert read(folder, name="second") == [("[second, train] row 1", ROWS[1])]
    with pytest.raises(RecordError, match=r"(?s)cannot be read as a dataset \(split 'train'\): Config name is missing"):
        read_rows(folder)
    with pytest.raises(RecordError, match=r"\(name 'third', split 'train'\).*first"):
        read_rows(folder, name="third")


def test_a_named_dataset(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(path: str, name: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((path, name, split))
        return ROWS

    with pytest.raises(RecordError, match=r"nobody/nothing: no such file or folder, nor a dataset to be had"):
        read_rows("nobody/nothing")  # tests are offline
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_rows("someone/texts", split="test"))[1] == Row("someone/texts[test] row 2", ROWS[1])
    assert next(iter(read_rows("someone/texts", name="zh"))) == Row("someone/texts[zh, train] row 1", ROWS[0])
    assert asked == [("someone/texts", None, "test"), ("someone/texts", "zh", "train")]


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("folder", "datasets")])
def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.parquet").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match=rf"needs the package {package}: pip install 'plaudit\[data\]'"):
        list(read_rows(tmp_path / name))


def test_reading_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'numpy', 'rich'}"
    code = f"import plaudit.reading.check, sys; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
