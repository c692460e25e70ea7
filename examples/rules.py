"""Rules as a scorer: `{kind: function, path: examples/rules.py:talks}`; see score_function.yaml."""

from __future__ import annotations

from plaudit.records import Prompt


def talks(prompt: Prompt, answer: str) -> float:
    """A point for each time that somebody speaks, 3 at most; one off for an answer that is nothing but the prompt."""
    said = min(3, answer.count('"') // 2)
    return said - float(bool(prompt.text) and answer.strip() == (prompt.text or "").strip())
