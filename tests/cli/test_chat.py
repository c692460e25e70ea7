"""The talk with two models: both answers, side by side, whatever characters they hold."""

from __future__ import annotations

import io

from rich.console import Console

from plaudit.cli.chat import converse


class Echo:
    """Answers with the words themselves, before in small letters and after in capitals."""

    def answer(self, text: str) -> tuple[str, str]:
        return text.lower(), text.upper()


def shown(*said: str, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    converse(Echo(), iter(said), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_both_answers_stand_side_by_side():
    top, middle, _ = shown("Hello")
    assert top.index("before") < top.index("tuned")
    assert middle.index("hello") < middle.index("HELLO")


def test_square_brackets_are_words_and_no_markup():
    assert any("[bold]x[/y]" in line for line in shown("[Bold]x[/Y]"))


def test_long_answers_wrap_in_their_column():
    lines = shown("word " * 40)
    assert all(len(line) <= 60 for line in lines)
    assert sum(line.count("word") for line in lines) == 40


def test_nothing_said_nothing_shown():
    assert shown() == []
