"""`plaudit data check`: says what is there, names the bad line, and its exit code can be relied on."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plaudit.cli import app

GOOD = {"prompt": "Why?", "chosen": "Because of the sea.", "rejected": "No."}


def check(*words: object):
    return CliRunner(env={"COLUMNS": "160", "TERM": "dumb"}).invoke(app, ["data", "check", *map(str, words)])


@pytest.fixture
def lines(tmp_path):
    def write(*rows: object):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    return write


def test_a_good_file(lines):
    result = check(lines(GOOD, {**GOOD, "prompt": "How?"}))
    assert result.exit_code == 0, result.output
    assert "judgements" in result.output
    assert "2" in result.output


def test_a_bad_line_is_named_with_its_field(lines):
    result = check(lines(GOOD, {**GOOD, "rejected": 7}, GOOD, "{not json"))
    assert result.exit_code == 1
    assert "rows.jsonl:2: rejected" in result.output
    assert "rows.jsonl:4" in result.output
    assert "Traceback" not in result.output


def test_columns_of_ones_own(lines):
    path = lines({"q": "Why?", "good": "Because.", "bad": "No."})
    assert check(path).exit_code == 1
    result = check(path, "--column", "prompt=q", "--column", "chosen=good", "--column", "rejected=bad")
    assert result.exit_code == 0, result.output


def test_a_kind_that_the_rows_cannot_give(lines):
    assert check(lines(GOOD), "--kind", "documents").exit_code == 1
    assert check(lines(GOOD), "--kind", "demonstrations").exit_code == 0


def test_a_misspelt_format_names_the_nearest(lines):
    result = check(lines(GOOD), "--format", "preferense")
    assert result.exit_code == 1
    assert "preference" in result.stderr


@pytest.mark.parametrize("pair", ["prompt", "=q", "prompt="])
def test_a_column_that_is_no_pair(lines, pair):
    result = check(lines(GOOD), "--column", pair)
    assert result.exit_code == 1
    assert f"found {pair!r}" in result.stderr


def test_a_file_that_is_not_there(tmp_path):
    result = check(tmp_path / "none.jsonl")
    assert result.exit_code == 1
    assert "none.jsonl" in result.stderr
