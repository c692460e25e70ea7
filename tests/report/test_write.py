"""The page: whole, alone, safe, and the same twice."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import RunError
from plaudit.report import write_report
from plaudit.report.frame import embed

VOID = {"meta", "link", "input", "br", "img", "hr"}
EVIL = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} \\u003c",
    "“quotes” 'single' \"double\" & &amp; \u2028 \u2029 \x00 \x7f \ud800",
    "中文书评，标点齐全。🎉 עברית",
]


class Page(HTMLParser):
    """Parses a page strictly: every element that opens closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0][1])

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_finished_run(made_run):
    folder = made_run(every_stage=True)
    page = read(write_report(folder))
    assert "79.2" in page.text
    assert "of the prompts are won by the tuned model against the one before it" in page.text
    assert "Before against itself" in page.text
    assert "Not in this run folder" not in page.text
    assert [e["id"] for tag, e in page.elements if tag == "section"] == [
        "headline", "curves", "reward", "compare", "samples", "lineage", "recipe",
    ]  # fmt: skip


def test_the_page_holds_the_data_as_it_is(made_run):
    folder = made_run(prompts=30)
    page = read(write_report(folder))
    assert page.data["evaluation"] == lines(folder / "evaluation.jsonl")
    assert page.data["samples"] == lines(folder / "samples.jsonl")
    rewards = [row["policy/reward"] for row in lines(folder / "metrics.jsonl") if row["stage"] == "policy"]
    assert page.data["charts"]["p0"]["lines"][0]["y"] == rewards


def test_nothing_is_loaded_from_anywhere(made_run):
    text = write_report(made_run()).read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "poster", "srcset", "data", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "@import" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\(", text)


def test_the_policy_allows_the_page_s_own_script_only(made_run):
    page = read(write_report(made_run(prompts=3)))
    policy = next(e["content"] for tag, e in page.elements if e.get("http-equiv") == "Content-Security-Policy")
    attributes, script = page.scripts[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert attributes == {}
    assert not any(name.startswith("on") for _, e in page.elements for name in e)


def evil_run(folder: Path, text: str) -> Path:
    """A run whose every text is `text`."""
    side = {"text": text, "reward": 1.0, "gold": 0.5, "tokens": 3, "ended": text}
    rows: dict[str, dict[str, Any]] = {
        "evaluation.jsonl": {"prompt_id": text, "prompt": text, "reference": text, "before": side, "after": side},
        "samples.jsonl": {"stage": text, "step": 1, "prompt_id": text, "prompt": text, "answer": text, "ended": text},
        "metrics.jsonl": {"stage": text, "step": 1, text: 1.0, f"{text}/loss": 2.0},
    }
    for name, row in rows.items():
        (folder / name).write_text(json.dumps(row) + "\n" + json.dumps({**row, "step": 2}) + "\n")
    for name, value in {
        "summary.json": {"gold_win_rate": 0.6, text: text, "seconds_by_stage": {text: 3.0}},
        "environment.json": {text: {text: [text]}},
        "lineage.json": [{"artifact": text, "stage": text, "from": [text, "a"], "seconds": 1}],
    }.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "reward-model").mkdir(exist_ok=True)
    (folder / "reward-model" / "evaluation.json").write_text(json.dumps({text: text, "by_k": {text: 0.5}}))
    (folder / "config.yaml").write_bytes(f"a: {text}\n# {text}\n{text}".encode("utf-8", "surrogatepass"))
    return folder


@pytest.mark.parametrize("text", EVIL)
def test_whatever_a_run_says_is_shown_as_text(tmp_path, text):
    folder = evil_run(tmp_path, text)
    page = read(write_report(folder))
    assert len(page.scripts) == 2
    assert page.data["evaluation"] == lines(folder / "evaluation.jsonl")
    assert page.data["samples"] == lines(folder / "samples.jsonl")
    assert not [e for tag, e in page.elements if tag == "img" or "onerror" in e]
    safe = text.replace("\ud800", "?").replace("\x00", "").split()[0]
    assert safe in page.text


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_no_text_breaks_out_of_the_page(text):
    with tempfile.TemporaryDirectory() as folder:
        page = read(write_report(evil_run(Path(folder), text)))
        assert len(page.scripts) == 2
        assert page.data["evaluation"][0]["after"]["text"] == text


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_embedded_json_is_safe_and_the_same(value):
    text = embed(value)
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", text)
    assert json.loads(text) == value


def test_the_same_folder_gives_the_same_bytes(made_run):
    folder = made_run(prompts=10)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_the_report_is_written_aside_and_renamed(made_run, monkeypatch):
    folder = made_run(prompts=3)
    path = write_report(folder)
    kept = path.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    (folder / "summary.json").unlink()
    with pytest.raises(OSError, match="disk full"):
        write_report(folder)
    assert path.read_bytes() == kept
    assert [file.name for file in folder.iterdir() if "report" in file.name and file.is_file()] == ["report.html"]


def test_a_run_without_a_reward_model_has_no_section_for_one(made_run):
    folder = made_run(prompts=4)
    (folder / "reward-model" / "evaluation.json").unlink(missing_ok=True)
    (folder / "config.yaml").write_text("reward: null\npolicy: {algorithm: rloo}\n", encoding="utf-8")
    page = read(write_report(folder))
    assert "reward" not in [e["id"] for tag, e in page.elements if tag == "section"]
    assert "reward-model/evaluation.json" not in page.text


def test_a_run_on_real_data_has_no_gold(made_run):
    page = read(write_report(made_run(gold=False, prompts=20)))
    assert "86.1" in page.text
    assert "judged by reward" in page.text
    assert "Hidden taste" not in page.text


def test_an_interrupted_run_reports_too(made_run):
    folder = made_run(finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "policy", "step": 31, "pol')
    page = read(write_report(folder))
    assert "Not in this run folder: evaluation.jsonl summary.json ." in page.text
    assert "Not finished" in page.text
    assert "step 30 of 50" in page.text
    assert re.search(r"metrics\.jsonl line \d+ : not JSON", page.text)
    assert "Reward, latest" in page.text
    assert "Nothing to show yet: evaluation.jsonl is not there or empty." in page.text


def test_an_empty_folder_reports_what_is_not_there(tmp_path):
    page = read(write_report(tmp_path))
    assert page.text.count("Nothing to show yet") == 7
    assert page.data["charts"] == {}


def test_no_such_folder(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        write_report(tmp_path / "none")


def test_absent_and_odd_values_are_left_out(tmp_path):
    (tmp_path / "summary.json").write_text(
        '{"kl_nats": NaN, "gold_win_rate": null, "seconds_by_stage": [3], "peak": []}'
    )
    (tmp_path / "metrics.jsonl").write_text('{"stage": "policy", "step": 0, "policy/reward": NaN}\n')
    (tmp_path / "evaluation.jsonl").write_text(
        '{"prompt": "p", "before": null, "after": {"text": "x", "reward": "high"}}\n'
    )
    (tmp_path / "reward-model").mkdir()
    (tmp_path / "reward-model" / "evaluation.json").write_text(
        '{"pairs": 0, "interval": [1], "longer_wins": null, "calibration": [{"predicted": NaN}, 3], "by_k": [1]}'
    )
    page = read(write_report(tmp_path))
    assert "No held-out judgement orders two answers" in page.text
    assert page.data["charts"] == {}


def test_only_so_many_rows_are_held_and_the_page_says_so(made_run, monkeypatch):
    monkeypatch.setattr("plaudit.report.write._ROWS", 20)
    folder = made_run(prompts=50)
    page = read(write_report(folder))
    ids = [row["prompt_id"] for row in lines(folder / "evaluation.jsonl")]
    assert [row["prompt_id"] for row in page.data["evaluation"]] == [ids[i * 50 // 20] for i in range(20)]
    assert "Shown: 20 of 50 prompts" in page.text


def test_the_page_can_be_read_aloud(made_run):
    page = read(write_report(made_run(prompts=10)))
    ids = Counter(e["id"] for _, e in page.elements if "id" in e)
    assert max(ids.values()) == 1
    assert Counter(tag for tag, _ in page.elements)["h1"] == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(e.get("scope") in ("col", "row") for tag, e in page.elements if tag == "th")
    plots = [e for _, e in page.elements if e.get("class") == "plot"]
    assert plots
    assert all(e.get("role") == "img" and e.get("aria-label") and e.get("tabindex") == "0" for e in plots)


def test_every_place_with_words_can_change_its_language(made_run):
    page = read(write_report(made_run(prompts=10)))
    words = page.data["words"]
    keys = [e["data-t"] for _, e in page.elements if "data-t" in e] + [
        e["data-tk"] for _, e in page.elements if "data-tk" in e
    ]
    assert len(keys) > 100
    assert set(keys) <= set(words)


def test_the_report_loads_neither_torch_nor_transformers():
    code = "import sys, plaudit.report; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
