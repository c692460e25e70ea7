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
    # wait for whole time slices. A loop this short costs little alone (the demo, two processors: 203 steps where there
    # were 223) and much less beside others (86 where there were 35). It must be set before torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    app()
