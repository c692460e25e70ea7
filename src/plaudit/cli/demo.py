"""Commands to begin with: the demo, and a recipe to write one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.guard import guarded

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(demo)
    app.command()(init)


@guarded(go_on=True)
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same machine: same bits.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller model and fewer steps, in about a minute.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start another run in place of the one there.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. [default: torch's choice]", show_default=False)
    ] = None,
) -> None:
    """See the whole road on the built-in world, in a few minutes on a laptop.

    A small language model learns to write book reviews, simulated readers rank its answers, a reward model learns
    their taste, and policy gradient moves the model toward it. A report shows what changed.
    """
    from plaudit import loop, tasks
    from plaudit.demo import demo_recipe

    loop.run(demo_recipe(seed=seed, quick=quick, threads=threads), out, fresh=fresh)
    tasks.show_summary(out)


@guarded()
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to write it.")] = Path("recipe.yaml"),
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A Transformers folder or name, in place of the built-in model.")
    ] = None,
    documents: Annotated[Path | None, typer.Option(metavar="FILE", help="Raw text to learn the language from.")] = None,
    demonstrations: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts with good answers.")] = None,
    judgements: Annotated[Path | None, typer.Option(metavar="FILE", help="Rankings, comparisons, scores.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts to answer while tuning.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a recipe that names every setting, with its meaning, and its default where that is another.

    Without options it is the recipe of the demo. Name a model and your files, and the stages that they
    allow are switched on; the others stand there as comments.
    """
    from plaudit.cli.starter import starter
    from plaudit.errors import RecipeError

    if path.exists() and not force:
        raise RecipeError(f"{path} is there already; --force writes over it")
    sources = {
        "documents": documents,
        "demonstrations": demonstrations,
        "judgements": judgements,
        "prompts": prompts,
    }
    named = {kind: str(file) for kind, file in sources.items() if file is not None}
    text = starter(model=model, sources=named, name=path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    typer.echo(f"Wrote {path}. Go on with: plaudit run {path}")
