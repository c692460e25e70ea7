"""The two pages of docs/correctness: 56 details each, and every one is held by tests that exist or says why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"English": DOCS / "correctness.md", "Chinese": DOCS / "correctness.zh.md"}
REASON = {"English": "Does not apply: ", "Chinese": "不适用："}
"""What stands before the sentence that says why a detail is none of ours."""


def entries(page: str) -> list[tuple[int, str]]:
    """Number and text of each detail, its lines joined."""
    text = PAGES[page].read_text(encoding="utf-8").partition("\n[blog]: ")[0]
    found = re.split(r"^(\d+)\. ", text, flags=re.MULTILINE)
    lines = (re.sub(r"\n +", " ", entry) for entry in found[2::2])
    return [(int(number), entry) for number, entry in zip(found[1::2], lines, strict=True)]


def held_by(text: str) -> list[tuple[str, str]]:
    """File and name of every test that an entry links to."""
    return [(file, name) for name, file in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", text)]


def sources_of(text: str) -> set[str]:
    """What an entry refers to outside of the repository, by the names at the page's end."""
    return set(re.findall(r"\[([^\]`]+)\]", text))


@pytest.mark.parametrize("page", PAGES)
def test_56_details_stand_in_their_order(page):
    assert [number for number, _ in entries(page)] == list(range(1, 57))


def test_both_pages_name_the_same_tests_sources_and_settings():
    assert len(re.findall(r"^## ", PAGES["English"].read_text(encoding="utf-8"), re.MULTILINE)) == 9
    for (number, english), (_, chinese) in zip(entries("English"), entries("Chinese"), strict=True):
        assert held_by(english) == held_by(chinese), number
        assert sources_of(english) == sources_of(chinese), number
        assert sorted(re.findall(r"`[^`]+`", english)) == sorted(re.findall(r"`[^`]+`", chinese)), number
        assert (REASON["English"] in english) is (REASON["Chinese"] in chinese), number
        assert english.count("\n## ") == chinese.count("\n## "), number  # a group ends at the same place


@pytest.mark.parametrize("page", PAGES)
def test_every_detail_has_a_test_that_exists_or_a_reason(page):
    for number, text in entries(page):
        assert held_by(text) or re.search(rf"{REASON[page]}\S", text), number
        for file, name in held_by(text):
            tree = ast.parse((DOCS.parent / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (number, file)


@pytest.mark.parametrize("page", PAGES)
def test_every_source_has_its_address(page):
    text = PAGES[page].read_text(encoding="utf-8")
    addresses = dict(re.findall(r"^\[([^\]]+)\]: (https://\S+)$", text, re.MULTILINE))
    referred = set().union(*(sources_of(entry) for _, entry in entries(page)))
    assert referred <= addresses.keys()
    assert len(set(addresses.values())) == len(addresses)
