"""`plaudit data`: what a file holds, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.guard import guarded

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at data before anything is trained on it.")
    group.command()(check)
    group.callback()(lambda: None)
    app.add_typer(group, name="data")


@guarded()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file or a dataset folder.")],
    format: Annotated[str, typer.Option(help="What the rows are; `auto` recognises them.")] = "auto",
    kind: Annotated[
        str | None,
        typer.Option(help="What they are for: documents, demonstrations, judgements or prompts.", show_default=False),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN", help="Your column for a name that the format knows; may be repeated."),
    ] = None,
) -> None:
    """Say what a file holds, and name every bad line and field. The exit code is 1 if there is any."""
    raise NotImplementedError
