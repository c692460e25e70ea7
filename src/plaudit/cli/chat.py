"""A talk with two models at once: the tuned one, and the one before it beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from plaudit.errors import TextError

__all__ = ["Pair", "converse", "talk"]


class Pair(Protocol):
    """Two models that answer the same words."""

    names: tuple[str, str]
    """What they are called."""

    def answer(self, text: str) -> tuple[str, str]:
        """The answer of the model before tuning, and that of the tuned one."""


def talk(run: Path) -> None:
    """Talk to the models of a run in the terminal until the input ends."""
    from plaudit import tasks

    console = Console()
    with console.status("Loading the two models"):
        pair = tasks.Chat(run)
    console.print("Write a prompt and press Enter; an empty line or Ctrl-D ends the talk.", style="dim")
    converse(pair, _lines(console), console)


def converse(pair: Pair, said: Iterator[str], console: Console) -> None:
    """Show both answers to everything that is said, side by side."""
    for text in said:
        try:
            with console.status("Both are writing"):
                answers = pair.answer(text)
        except TextError as error:  # such as a prompt that is too long
            console.print(Text(str(error), style="red"))
            continue
        console.print(_side_by_side(pair.names, answers))


def _side_by_side(names: tuple[str, str], answers: tuple[str, str]) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(  # Text, since a model's square brackets are no markup
        Panel(Text(answers[0]), title=f"before ({names[0]})", title_align="left", border_style="dim"),
        Panel(Text(answers[1]), title=f"tuned ({names[1]})", title_align="left", border_style="green"),
    )
    return grid


def _lines(console: Console) -> Iterator[str]:
    while True:
        try:
            text = console.input("[bold]> [/bold]").strip()
        except EOFError:
            console.print()
            return
        if not text:
            return
        yield text.encode("utf-8", "replace").decode("utf-8")  # a terminal may hand over half a character
