"""Commands that read a recipe: the whole road, and one stage of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.guard import guarded
from plaudit.cli.help import with_settings

__all__ = ["add_to"]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file; `plaudit init` writes one.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The run folder. [default: runs/ and the recipe's name, and the stage if it is one alone]",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting of the recipe; may be given many times."),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start another run in place of the one that is there.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command(cls=with_settings(), help=_WHOLE)(_command("run", None))
    for stage, does in _STAGES.items():
        read = (stage, "scorers", "environment") if stage == "policy" else (stage,)
        app.command(cls=with_settings(*read), help=does)(_command(stage, stage))


_WHOLE = """Go the whole road of a recipe, on your model and data.

Every stage whose section is in the recipe runs, in the order below. Start the same command again after an
interruption and the run goes on where it stopped; a finished run only shows its summary.
"""
_ORDER = ("language", "sft", "collect", "reward", "policy")
_STAGES = {
    "language": "Train a language model on raw text: the recipe's `language` stage alone, starting from `model.path`.",
    "sft": "Fine-tune on demonstrations: the recipe's `sft` stage alone, starting from `model.path`.",
    "reward": "Train a reward model on judgements: the recipe's `reward` stage alone, starting from `reward.start`.",
    "policy": "Tune the policy: the recipe's `policy` stage alone, from `model.path`, against `scorers`.",
}


def _command(name: str, only: str | None) -> Callable[..., None]:
    @guarded(go_on=True)
    def command(recipe: RecipeFile, out: Out = None, changes: Changes = None, fresh: Fresh = False) -> None:
        from plaudit.recipe import load_recipe

        # before torch loads, so that a wrong setting is known at once; a stage alone is a recipe without the others
        absent = [f"{stage}=null" for stage in _ORDER if only not in (None, stage)]
        settings = load_recipe(recipe, [*absent, *(changes or [])])

        from plaudit import loop, tasks

        folder = out or Path("runs") / (recipe.stem if only is None else f"{recipe.stem}-{only}")
        loop.run(settings, folder, fresh=fresh, only=only)
        if only is None:
            tasks.show_summary(folder)
        else:
            typer.echo(f"{folder}: the {only} stage is done")

    command.__name__ = name
    return command
