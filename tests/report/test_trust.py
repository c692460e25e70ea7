"""The page about a reward model: whole, safe, in two languages, with what was found and nothing else."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from plaudit.evaluation.reward import best_of_answers, examine, read_judged
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.report.trust import render_reward, write_reward_page
from plaudit.report.words import WORDS
from plaudit.scorers import FunctionScorer

EVIL = "</script><img src=x onerror=alert(1)>"
LENGTH = FunctionScorer(lambda prompt, answer: float(len(answer)))


def found_in(tmp_path, *rows, **more):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = examine(LENGTH, read_judged(path))
    return {"model": "rm", "files": [path.name], "answers": 4, "cut_answers": 0, **found, **more}


def row(n, who, subset, said=1):
    base = {"instruction": f"Say {n}.", "response1": f"It is {n}. Yes.", "response2": "No." * (n % 3 + 1)}
    return base | {"subset": subset, **{name: said if name == "annotator1" else 2 for name in who}}


@pytest.fixture
def everything(tmp_path):
    three = ("annotator1", "annotator2", "annotator3")
    rows = [row(n, three, "alpacaeval-easy" if n % 2 else EVIL, said=n % 3) for n in range(9)]
    answers = tuple(Answer(text="x" * k, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for k in range(1, 5))
    best = best_of_answers(
        LENGTH, [Group(prompt=Prompt(text="p"), context_ids=(), answers=answers)], lambda prompt, answer: 1.0
    )
    return found_in(tmp_path, *rows, best_of_n=best, cut_answers=2)


def parts(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return re.findall(r'<section id="(\w+)">', page), json.loads(data)


def test_every_part_is_there(everything):
    page = render_reward(everything)
    sections, data = parts(page)
    assert sections == ["headline", "scores", "probes", "groups", "bestof", "bench", "values"]
    assert re.findall(r'<a href="#(\w+)"><span data-t="nav', page) == sections
    assert set(data["charts"]) == {"calibration", "trust-bestof-score", "trust-bestof-gold"}
    assert set(re.findall(r'data-chart="([\w-]+)"', page)) == set(data["charts"])
    for key in re.findall(r'data-t="([\w.]+)"', page):
        assert key in WORDS
    assert "By agreement of the annotators" in page
    assert "22 subsets of the published set" in page
    assert "2 of 4 answers read only in part" in page
    assert render_reward(everything) == page


def test_what_was_not_measured_is_not_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "aa", "rejected": "b"}) + "\n")
    found = {"model": "rm", "files": ["rows.jsonl"], **examine(LENGTH, read_judged(path), probes=0)}
    sections, data = parts(render_reward(found))
    assert sections == ["headline", "scores", "values"]
    assert list(data["charts"]) == ["calibration"]


def test_only_thumbs(tmp_path):
    rows = [{"prompt": "p", "completion": "a" * n, "label": n > 2} for n in range(1, 5)]
    page = render_reward(found_in(tmp_path, *rows))
    assert "No judgement orders two answers." in page
    assert "Thumb up above thumb down" in page


def test_names_from_files_are_text(everything):
    page = render_reward(everything | {"model": EVIL, "files": [EVIL]})
    assert EVIL not in page
    assert "&lt;/script&gt;&lt;img" in page


def test_nothing_is_loaded_from_elsewhere(everything):
    page = render_reward(everything)
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    for svg in re.findall(r"<svg viewBox.*?</svg>", page, re.S):
        ET.fromstring(svg)


@pytest.mark.parametrize(
    ("accuracy", "interval", "longer", "words"),
    [
        (0.8, [0.7, 0.9], 0.6, "more than length or chance"),
        (0.8, [0.7, 0.9], 0.75, "not clearly more"),
        (0.8, [0.7, 0.9], 0.25, "not clearly more"),  # the shorter would do as well
        (0.4, [0.3, 0.49], 0.5, "wrong way"),
        (0.5, [0.4, 0.6], 0.5, "not clearly more"),
    ],
)
def test_the_verdict(everything, accuracy, interval, longer, words):
    changed = {"accuracy": accuracy, "interval": interval, "length": everything["length"] | {"longer_wins": longer}}
    assert words in render_reward(everything | changed)


def test_it_is_written(everything, tmp_path):
    write_reward_page(everything, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == render_reward(everything)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_ensemble_is_shown_as_it_is_used_too(everything):
    assert 'data-t="trust.used"' not in render_reward(everything)
    used = {"pairs": 4, "prompts": 4, "accuracy": 0.25, "interval": [0.1, 0.5]}
    page = render_reward({**everything, "used": used, "disagreement": {"right": 0.5, "wrong": 1.5}})
    assert "Their reward together" in page
    assert "Members apart where wrong" in page
