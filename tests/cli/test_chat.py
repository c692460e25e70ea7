"""The talk with two models: both answers, side by side, whatever characters they hold."""

from __future__ import annotations

import io

from rich.console import Console

from plaudit.cli.chat import _lines, converse
from plaudit.errors import TextError


class Echo:
    """Answers with the words themselves, before in small letters and after in capitals; nothing to "too long"."""

    names = ("sft", "policy")

    def answer(self, text: str) -> tuple[str, str]:
        if text == "too long":
            raise TextError("prompt p has 99 tokens")
        return text.lower(), text.upper()


def shown(*said: str, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    converse(Echo(), iter(said), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_both_answers_stand_side_by_side():
    top, middle, _ = shown("Hello")
    assert top.index("before (sft)") < top.index("tuned (policy)")
    assert middle.index("hello") < middle.index("HELLO")


def test_square_brackets_are_words_and_no_markup():
    assert any("[bold]x[/y]" in line for line in shown("[Bold]x[/Y]"))


def test_long_answers_wrap_in_their_column():
    lines = shown("word " * 40)
    assert all(len(line) <= 60 for line in lines)
    assert sum(line.count("word") for line in lines) == 40


def test_the_talk_goes_on_after_a_prompt_that_cannot_be_answered():
    error, *rest = shown("too long", "Hello")
    assert error == "prompt p has 99 tokens"
    assert rest == shown("Hello")


def test_half_a_character_of_a_terminal_is_no_end(monkeypatch):
    said = iter(["a\udcff", ""])
    monkeypatch.setattr(Console, "input", lambda *_: next(said))
    assert list(_lines(Console())) == ["a?"]


def test_nothing_said_nothing_shown():
    assert shown() == []
