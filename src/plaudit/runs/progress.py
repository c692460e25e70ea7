"""Long work shows a bar with time left, on the terminal only; a log file gets a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["progress", "say"]

_console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line for the person who waits."""
    _console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """A progress bar; call what it gives with the units done and, if you like, a short note.

    Without a terminal (a log file, CI) it prints a line at most every 15 seconds.
    """
    if not sys.stderr.isatty():
        yield _plain(title, total, done)
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console, transient=False) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(units: int = 1, note: str = "") -> None:
            bar.update(task, advance=units, note=note)

        yield advance


def _plain(title: str, total: int, done: int) -> Callable[..., None]:
    begun = printed = time.monotonic()
    start = done

    def advance(units: int = 1, note: str = "") -> None:
        nonlocal done, printed
        done += units
        here = time.monotonic()
        if here - printed < 15 and done < total:
            return
        printed = here
        left = (here - begun) / max(1, done - start) * (total - done)
        say(f"{title}: {done}/{total}, {here - begun:.0f} s, {left:.0f} s left  {note}".rstrip())

    return advance
