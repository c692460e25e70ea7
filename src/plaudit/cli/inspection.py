"""Commands that use what a run has made: sample, score, evaluate, report, chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plaudit.cli.guard import guarded

__all__ = ["add_to"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
RunOrModel = Annotated[
    Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a folder with a Transformers model.")
]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON lines to write.")]
ModelName = Annotated[
    str | None,
    typer.Option("--stage", metavar="STAGE", help="Which model of a run. [default: the newest]", show_default=False),
]

LANGUAGE_MODELS = ("policy", "sft", "language")
REWARD_MODELS = ("reward-model",)


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for command in (sample, score, evaluate, report, chat):
        app.command()(command)


@guarded()
def sample(
    model: RunOrModel,
    prompts: Annotated[
        Path, typer.Argument(metavar="PROMPTS_FILE", exists=True, dir_okay=False, help="Prompts, in any known format.")
    ],
    out: OutFile,
    answers: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Logits are divided by it; 0 is greedy.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens with this much probability.")
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Answers decoded side by side.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answers.")] = 0,
    stage: ModelName = None,
) -> None:
    """Answer the prompts of a file."""
    from plaudit.recipe import recipe_from

    chosen = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "batch": batch}
    sampling = recipe_from({"evaluate": {"sampling": chosen}, "world": {}}, where="options").evaluate.sampling
    folder = model_in(model, *((stage,) if stage else LANGUAGE_MODELS))

    from plaudit import tasks

    count = tasks.sample_file(folder, prompts, out, sampling=sampling, answers=answers, seed=seed)
    typer.echo(f"{out}: {count} answers by {folder}")


@guarded()
def score(
    model: RunOrModel,
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Prompts with answers; what `plaudit sample` wrote will do.",
        ),
    ],
    out: OutFile,
) -> None:
    """Score the answers of a file with a reward model."""
    folder = model_in(model, *REWARD_MODELS)

    from plaudit import tasks

    count = tasks.score_file(folder, answers, out)
    typer.echo(f"{out}: {count} scores by {folder}")


@guarded(go_on=True)
def evaluate(run: Run) -> None:
    """Answer held-out prompts with the tuned model and the one before it, and show the table."""
    from plaudit.recipe import load_recipe

    recipe = load_recipe(recipe_of(run))

    from plaudit import loop, tasks

    loop.run(recipe, run, only="evaluate")
    tasks.show_summary(run)


@guarded()
def report(run: Run) -> None:
    """Write the report of a run: one HTML file, readable offline."""
    recipe_of(run)

    from plaudit.report import write_report

    typer.echo(write_report(run))


@guarded()
def chat(run: Run) -> None:
    """Talk to the tuned model and to the one before it, side by side."""
    recipe_of(run)

    from plaudit.cli.chat import talk

    talk(run)


def recipe_of(run: Path) -> Path:
    """The recipe that a run keeps.

    Raises:
        RunError: The folder is not a run.
    """
    from plaudit.errors import RunError

    recipe = run / "config.yaml"
    if not recipe.is_file():
        raise RunError(f"{run} is not a run folder: it has no config.yaml")
    return recipe


def model_in(folder: Path, *names: str) -> Path:
    """The model in a folder, which is a model itself or a run that has made one.

    Args:
        folder: A run folder or a model's.
        names: Models of a run, the best one first.

    Raises:
        RunError: There is no such model, with what was looked for.
    """
    from plaudit.errors import RunError

    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    for model in (folder, *(folder / name for name in names)):
        if (model / "config.json").is_file() or (model / "ensemble.json").is_file():
            return model
    raise RunError(f"{folder} holds no model: there is no config.json in it, nor in {', '.join(names)} below it")
