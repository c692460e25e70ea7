"""Every word is there in both languages, with the same holes, and is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import plaudit.report
from plaudit.report.words import WORDS, Say

ROOM = Path(plaudit.report.__file__).parent
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (*ROOM.glob("*.py"), *ROOM.glob("page/*.*"))
    if path.name not in ("words.py", "trust_words.py")
)


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_have_the_same_holes(key):
    english, chinese = WORDS[key]
    assert english
    assert chinese
    assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese))


def test_every_word_that_is_asked_for_is_there():
    asked = set(re.findall(r"""(?:Say|say|english)\(\s*["']([a-z_.]+)["'][,)]""", SOURCES))
    assert asked
    assert sorted(asked - set(WORDS)) == []


def test_no_word_is_left_over():
    used = {key for key in WORDS if f'"{key}"' in SOURCES or f"'{key}'" in SOURCES}
    made = re.compile(
        r"nav\.|stage\.|verdict\.|m\.|tile\..*\.about|tile\.(gold|reward)_gain|now\.|cmp\.(sort|show|spread|judge)"
        r"|cmp\.(reward|gold|tokens|before|after)|axis\.(reward|gold|tokens)|tl\.mode|curves\.|rm\.k$|state\."
        r"|trust\.(side|probe|group|agree|bestof|better|even|worse|none|apart)"
    )
    assert sorted(key for key in set(WORDS) - used if not made.match(key)) == []


def test_holes_are_filled_once_and_may_name_another_word():
    assert Say("curves.stage", {"stage": "@stage.policy", "steps": "3"}).english() == "Policy: 3 steps"
    assert Say("curves.stage", {"stage": "{steps}", "steps": "@no.key"}).english() == "{steps}: @no.key steps"
