"""Rules as scorers: `{kind: function, path: examples/rules.py:talks}`; see score_function.yaml and poems.yaml."""

from __future__ import annotations

import re

from plaudit.records import Prompt


def talks(prompt: Prompt, answer: str) -> float:
    """A point for each time that somebody speaks, 3 at most; one off for an answer that is nothing but the prompt."""
    said = min(3, answer.count('"') // 2)
    return said - float(bool(prompt.text) and answer.strip() == (prompt.text or "").strip())


def verses(prompt: Prompt, answer: str) -> float:
    """The share of a poem's lines that have five characters, or seven, whichever is more; it has four lines at least.

    诗句中五言(或七言,取多者)所占的比例;不足四句按四句算。
    """
    lines = [line for line in re.split(r"[，。？！；]", answer.strip()) if line]
    return max(sum(len(line) == size for line in lines) for size in (5, 7)) / max(4, len(lines))
