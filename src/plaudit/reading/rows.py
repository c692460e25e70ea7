"""A row and its place, and what is said when it cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import RecordError

__all__ = ["Problem", "Row", "listing", "needs_extra"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it came: plain JSON values."""

    place: str
    """`file:line`, or `file row number` (from 1) where a file has no lines."""
    value: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be read, or a file that breaks off."""

    place: str
    text: str
    """`field: what is wrong (found ...)`."""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def listing(problems: Sequence[Problem], *, most: int = 20) -> str:
    """The problems, one a line; after `most` of them only their number."""
    lines = [f"  {problem}" for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"  ... and {len(problems) - most} more")
    return "\n".join(lines)


def needs_extra(path: str | Path, package: str) -> RecordError:
    """The error of a file that an optional package must read."""
    return RecordError(f"{path}: needs the package {package}: pip install 'plaudit[data]'")
