"""Reading a run folder: nothing that a file holds stops a report."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import RunError
from plaudit.report.folder import FILES, Note, number, numbers, read_folder


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match=r"nowhere: no such run folder"):
        read_folder(tmp_path / "nowhere")


def test_an_empty_folder_lacks_every_file(tmp_path):
    found = read_folder(tmp_path)
    assert found.absent == FILES
    assert (found.summary, found.metrics, found.evaluation, found.notes) == ({}, (), (), ())


def test_a_torn_last_line_is_left_out_and_noted(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 0, "sft/loss": 2}\n{"stage": "sft", "st')
    found = read_folder(tmp_path)
    assert found.metrics == ({"stage": "sft", "step": 0, "sft/loss": 2},)
    assert found.notes == (Note("metrics.jsonl", 2, "not JSON: Unterminated string starting at at column 18"),)


def test_what_no_float_can_hold_becomes_nothing(tmp_path):
    row = '{"a": NaN, "b": [Infinity, -Infinity, 1e999, 1.5], "c": {"d": 1' + "0" * 400 + '}, "e": true}'
    (tmp_path / "samples.jsonl").write_text(row)
    assert read_folder(tmp_path).samples == ({"a": None, "b": [None, None, None, 1.5], "c": {"d": None}, "e": True},)


def test_a_resumed_step_counts_once_and_the_later_line_wins(tmp_path):
    lines = [
        {"stage": "policy", "step": 1, "policy/kl": 1.0},
        {"stage": "policy", "step": 0, "policy/kl": 0.0},
        {"stage": "policy", "step": 1, "policy/kl": 2.0},
        {"stage": "policy", "policy/kl": 9.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [(row["step"], row["policy/kl"]) for row in read_folder(tmp_path).metrics] == [(0, 0.0), (1, 2.0)]


def test_a_file_of_another_shape_is_noted(tmp_path):
    (tmp_path / "summary.json").write_text("[1]")
    (tmp_path / "lineage.json").write_text('{"artifact": "policy"}')
    (tmp_path / "evaluation.jsonl").write_text("3\n")
    (tmp_path / "config.yaml").write_text("a: [")
    notes = {note.file: note.why for note in read_folder(tmp_path).notes}
    assert notes["summary.json"] == "expected an object, found a list"
    assert notes["lineage.json"] == "expected a list, found a dict"
    assert notes["evaluation.jsonl"] == "expected an object, found a int"
    assert "config.yaml" in notes


def test_a_folder_in_the_place_of_a_file_is_noted(tmp_path):
    (tmp_path / "summary.json").mkdir()
    assert [note.file for note in read_folder(tmp_path).notes] == ["summary.json"]


def test_a_byte_order_mark_and_wrong_bytes_are_survived(tmp_path):
    (tmp_path / "summary.json").write_bytes(b'\xef\xbb\xbf{"kl_nats": 3}')
    (tmp_path / "samples.jsonl").write_bytes(b'{"answer": "caf\xe9"}\n')
    found = read_folder(tmp_path)
    assert found.summary == {"kl_nats": 3}
    assert found.samples == ({"answer": "caf\N{REPLACEMENT CHARACTER}"},)


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_reader(data):
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_bytes(data)
        assert read_folder(Path(folder)).absent == ()


@pytest.mark.parametrize("value", [None, True, "3", [3], math.nan, math.inf, 10**400])
def test_what_is_no_number(value):
    assert number(value) is None


def test_numbers_of_a_row():
    assert numbers({"step": 3, "stage": "sft", "sft/loss": 0.5, "bad": math.nan, "flag": True}) == {
        "step": 3.0,
        "sft/loss": 0.5,
    }


def test_a_run_that_trains_no_reward_model_lacks_none(tmp_path):
    (tmp_path / "config.yaml").write_text("reward: null\n")
    assert "reward-model/evaluation.json" not in read_folder(tmp_path).absent
    (tmp_path / "config.yaml").write_text("reward: {epochs: 1}\n")
    assert "reward-model/evaluation.json" in read_folder(tmp_path).absent
