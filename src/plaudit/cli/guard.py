"""What every command does with an error: one clean message and an exit code, never a traceback for a user's mistake.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | something that Plaudit found wrong, such as a setting, a file or a run folder |
| 2 | a command line that cannot be read |
| 130 | stopped by Ctrl-C; the same command goes on |
"""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from plaudit.errors import PlauditError

__all__ = ["INTERRUPTED", "guarded"]

INTERRUPTED = 130

P = ParamSpec("P")
R = TypeVar("R")


def guarded(*, go_on: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function fit for the command line.

    Args:
        go_on: The command can be resumed, so Ctrl-C ends with the line that does it.
    """

    def wrap(command: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return command(*args, **kwargs)
            except PlauditError as error:
                typer.secho(f"plaudit: {error}", fg=typer.colors.RED, err=True)
                raise typer.Exit(1) from error
            except OSError as error:
                typer.secho(f"plaudit: {_said_by(error)}", fg=typer.colors.RED, err=True)
                raise typer.Exit(1) from error
            except KeyboardInterrupt as error:
                typer.echo(f"\nStopped. Go on with: {_same_command()}" if go_on else "\nStopped.", err=True)
                raise typer.Exit(INTERRUPTED) from error

        return run

    return wrap


def _said_by(error: OSError) -> str:
    """Which file the system refused, and why."""
    if error.strerror is None:  # such as shutil's, of many files
        return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _same_command() -> str:
    # --fresh would throw away what was just saved
    return shlex.join(["plaudit", *(word for word in sys.argv[1:] if word != "--fresh")])
