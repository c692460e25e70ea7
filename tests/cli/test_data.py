"""`plaudit data`: check says what is there and names the bad line; label writes judgements by machines."""

from __future__ import annotations

import json
import re
from typing import Any

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


ALONE = {"prompt": "Why?", "answers": ["Because."], "verdict": {"kind": "ranking", "ranks": [1]}}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{**ALONE, "prompt": {"text": f"{n}"}} for n in range(8)], "none; 8 left out: one answer alone"),
        ([{**GOOD, "rejected": GOOD["chosen"]}] * 2, "none; 2 left out: the same answer at two ranks"),
        ([{"prompt": "p", "response 1": "a", "response 2": "b", "label": 2}], "none; 1 left out: a full tie"),
    ],
)
def test_a_file_from_which_nothing_can_be_learned(lines, rows, says):
    result = check(lines(*rows))
    assert result.exit_code == 1, result.output
    assert says in result.output
    assert "there is nothing to learn from" in result.output


def test_lone_scores_need_a_scale_and_the_answer_is_named(lines):
    result = check(lines({"prompt": "Why?", "answer": "Because.", "score": 4}))
    assert result.exit_code == 0, result.output
    assert "none yet: prompt 'Why?', answer 'Because.': its score 4 has no scale" in " ".join(result.output.split())


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


SAMPLED = [
    {"prompt": {"text": "say so", "reference": "so"}, "answer": answer, "ended": ended, "tokens": 3, "logp": -1.0}
    for answer, ended in (("so", "stopped"), ("so so so", "cut"), ("no", "stopped"), ("so", "stopped"))
]


def label(*words: object):
    environment = {"COLUMNS": "160", "TERM": "dumb"}
    return CliRunner(env=environment).invoke(app, ["data", "label", *map(str, words)])


def written(path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_was_sampled_is_ranked_by_a_scorer(lines, tmp_path):
    out = tmp_path / "new" / "j.jsonl"
    result = label(lines(*SAMPLED), "--scorer", "{kind: length, target: 8}", "--out", out)
    assert result.exit_code == 0, result.output
    (line,) = written(out)
    assert line["answers"] == ["so", "so so so", "no"]  # each once
    assert line["verdict"] == {"kind": "ranking", "ranks": [2, 1, 2]}
    assert line["annotator"] == "length"
    assert check(out).exit_code == 0


def test_several_scorers_are_added_up(lines, tmp_path):
    out = tmp_path / "j.jsonl"
    words = ["--scorer", "chrf", "--scorer", "{kind: repetition, n: 1, weight: 2}", "--gives", "scores"]
    result = label(lines(*SAMPLED), *words, "--annotator", "rules", "--out", out)
    assert result.exit_code == 0, result.output
    (line,) = written(out)
    assert line["annotator"] == "rules"
    same, again, _ = line["verdict"]["scores"]
    assert same == 1.0
    assert again < 0  # two of its three words stood there before: 2 * -2/3, and chrF is at most 1


def test_two_of_a_kind_have_names_of_their_own(lines, tmp_path):
    words = ["--scorer", "{kind: length, target: 8}", "--scorer", "{kind: length, target: 2, side: over}"]
    assert label(lines(*SAMPLED), *words, "--out", tmp_path / "j.jsonl").exit_code == 0
    assert written(tmp_path / "j.jsonl")[0]["annotator"] == "length+length-2"


def test_a_judge_model_compares(lines, tmp_path, serve):
    def reply(request: Any) -> tuple[int, Any]:
        first = re.search(r"\[Answer A\]\n(.*)\n", request["messages"][0]["content"])
        assert first is not None
        return 200, {"choices": [{"message": {"content": "[[A]]" if first[1] == "so" else "[[B]]"}}]}

    out, url = tmp_path / "j.jsonl", serve(reply)
    result = label(
        lines(GOOD | {"chosen": "so", "rejected": "no"}), "--judge", url, "--judge-model", "wise", "--out", out
    )
    assert result.exit_code == 0, result.output
    (line,) = written(out)
    assert (line["answers"], line["verdict"], line["annotator"]) == (
        ["so", "no"], {"kind": "comparison", "preferred": "first"}, "wise",
    )  # fmt: skip
    assert "1 comparisons by wise" in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--scorer, once or more, or else --judge URL together with --judge-model"),
        (["--judge", "http://127.0.0.1:9"], "together with --judge-model"),
        (["--scorer", "length", "--judge", "u", "--judge-model", "m"], "or else --judge"),
        (["--scorer", "lenght"], "did you mean length?"),
        (["--scorer", "length"], "scorers.length.target: field required"),
        (["--scorer", "{kind: [}"], "not YAML"),
        (["--scorer", "model"], "a scorer by model needs its path here"),
        (["--scorer", "bleu"], "has no reference"),
    ],
)
def test_a_label_that_cannot_be_made(lines, tmp_path, words, says):
    result = label(lines(GOOD), *words, "--out", tmp_path / "j.jsonl")
    assert result.exit_code == 1
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "j.jsonl").exists()
