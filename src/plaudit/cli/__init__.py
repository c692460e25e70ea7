"""The command line: the whole road, one command for each stage, and what one does with a finished run.

Commands import what they need when they run, so that `plaudit --help` loads neither torch nor transformers.
"""

from __future__ import annotations

import os

import typer

from plaudit.cli import data, demo, inspection, stages

__all__ = ["app", "main"]

app = typer.Typer(
    name="plaudit",
    help="Reinforcement learning from human feedback: from demonstrations to a model that people prefer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for _module in (demo, stages, inspection, data):
    _module.add_to(app)


def main() -> None:
    """Run the command line; the entry point of the `plaudit` script."""
    # OpenMP's threads wait for one another in a busy loop: where another program has one of their processors, they
    # wait for whole time slices. It must stand here before torch is loaded; whoever set it themselves keeps it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
