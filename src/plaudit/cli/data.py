"""`plaudit data`: what a file holds, and what is wrong with it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from plaudit.cli.guard import guarded

__all__ = ["add_to"]

Kind = Literal["documents", "prompts", "demonstrations", "judgements"]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at data before anything is trained on it.")
    group.command()(check)
    group.callback()(lambda: None)  # with one command alone, typer would drop its name
    app.add_typer(group, name="data")


@guarded()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a dataset folder, or a dataset's name.")],
    format: Annotated[str, typer.Option(metavar="NAME", help="What the rows are; `auto` recognises them.")] = "auto",
    kind: Annotated[Kind | None, typer.Option(help="What they are wanted for. [default: what most rows are]")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN", help="Your column for a name that the format knows; may be repeated."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which split of a Hugging Face dataset.")] = "train",
    most: Annotated[int, typer.Option(min=0, help="Bad lines to list.")] = 20,
) -> None:
    """Say what a file holds, and name every bad line and field. The exit code is 1 if there is any."""
    from rich.console import Console

    from plaudit.reading.check import check_file, render

    report = check_file(file, format, kind, _pairs(column or []), split=split)
    render(report, Console(), most=most)
    if not report.ok:
        raise typer.Exit(1)


def _pairs(given: list[str]) -> dict[str, str]:
    from plaudit.errors import RecordError

    pairs = {}
    for pair in given:
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise RecordError(f"--column takes NAME=COLUMN, such as prompt=question; found {pair!r}")
        pairs[name] = column
    return pairs
