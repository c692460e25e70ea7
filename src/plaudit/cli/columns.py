"""`--column NAME=COLUMN`: what a file calls what a format knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

__all__ = ["Columns", "column_pairs"]

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="NAME=COLUMN", help="Your column for a name that the format knows; may be repeated."
    ),
]


def column_pairs(given: Sequence[str] | None) -> dict[str, str]:
    """The file's column for each name.

    Raises:
        RecordError: one is not of the form NAME=COLUMN.
    """
    from plaudit.errors import RecordError

    pairs = {}
    for pair in given or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise RecordError(f"--column takes NAME=COLUMN, such as prompt=question; found {pair!r}")
        pairs[name] = column
    return pairs
