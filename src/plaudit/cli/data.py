"""`plaudit data`: what a file holds, what is wrong with it, and judgements of its answers by machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from plaudit.cli.columns import Columns, column_pairs
from plaudit.cli.guard import guarded
from plaudit.cli.help import with_settings
from plaudit.scoring import Scoring

if TYPE_CHECKING:
    from plaudit.reading.check import Learned
    from plaudit.records import Judgement

__all__ = ["add_to"]

Gives = Literal["ranking", "scores"]
Kind = Literal["documents", "prompts", "demonstrations", "judgements"]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    group = typer.Typer(no_args_is_help=True, help="Look at data before anything is trained on it, and label it.")
    group.command()(check)
    group.command(cls=with_settings("scorers"))(label)
    app.add_typer(group, name="data")


@guarded()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a dataset folder, or a dataset's name.")],
    format: Annotated[str, typer.Option(metavar="NAME", help="What the rows are; `auto` recognises them.")] = "auto",
    kind: Annotated[Kind | None, typer.Option(help="What they are wanted for. [default: what most rows are]")] = None,
    column: Columns = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which configuration of a Hugging Face dataset.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which split of a Hugging Face dataset.")] = "train",
    most: Annotated[int, typer.Option(min=0, help="Bad lines to list.")] = 20,
) -> None:
    """Say what a file holds, and name every bad line and field.

    The exit code is 1 if there is any, or if a reward model could learn from none of its judgements.
    """
    from rich.console import Console

    from plaudit.reading.check import check_file, render

    report = check_file(file, format, kind, column_pairs(column), name=name, split=split, learn=_learned)
    render(report, Console(), most=most)
    if not report.ok:
        raise typer.Exit(1)


def _learned(judgements: Sequence[Judgement]) -> Learned:
    """What a reward section with its defaults learns; scores without a scale get theirs in the recipe."""
    from plaudit.errors import RecordError
    from plaudit.reading.check import Learned
    from plaudit.recipe import Reward
    from plaudit.training.judged import said_by

    try:
        found, mix = said_by(judgements, Reward())
    except RecordError as error:
        return Learned(len(judgements), f"none yet: {error}")
    return Learned(len(found), mix.describe())


@guarded(go_on=True)
def label(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Prompts with answers; what `plaudit sample` wrote will do.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Judgements to write, as JSON lines.")],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORER",
            help="As in a recipe, such as '{kind: length, target: 80}', or its kind alone; several are added up.",
        ),
    ] = None,
    gives: Annotated[Gives, typer.Option(help="A ranking by score, or the scores themselves.")] = "ranking",
    tolerance: Annotated[float, typer.Option(min=0, help="Scores as near as this share a rank.")] = 0.0,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A judge model's OpenAI-compatible address, such as http://127.0.0.1:8000/v1."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(metavar="NAME", help="The judge's name there.")] = None,
    token_from: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the judge's token.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until a reply of the judge is whole.")] = 120.0,
    annotator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who judged. [default: the scorers' kinds, or the judge's name]"),
    ] = None,
) -> None:
    """Judge the answers of a file, by scorers or by a judge model that is asked in both orders."""
    from plaudit.errors import RecipeError

    if bool(scorer) == (judge is not None) or (judge is None) != (judge_model is None):
        raise RecipeError("label takes --scorer, once or more, or else --judge URL together with --judge-model NAME")
    if scorer:
        scorers = _scorers(scorer)

        from plaudit import tasks

        count = tasks.label_file(file, out, scorers, gives=gives, tolerance=tolerance, annotator=annotator)
        typer.echo(f"{out}: {count} judgements by {annotator or '+'.join(scorers)}")
        return

    from plaudit import tasks
    from plaudit.scorers.judge import ChatJudge, chat_address
    from plaudit.scorers.service import Service, bearer

    service = Service(chat_address(judge or ""), timeout=timeout, token=bearer(token_from))
    count, how = tasks.judge_file(file, out, ChatJudge(service, judge_model or ""), annotator=annotator)
    such = f", such as {how.example[:80]!r}" if how.unclear else ""
    typer.echo(
        f"{out}: {count} comparisons by {annotator or judge_model}; of {how.pairs} made now, {how.unsteady} are ties "
        f"because the order changed its mind, and {how.unclear} are left out because a reply held no verdict{such}"
    )


def _scorers(given: list[str]) -> dict[str, Scoring]:
    """The scorers of the command line, each under its kind; a second one of a kind gets a number."""
    import yaml

    from plaudit.errors import RecipeError
    from plaudit.recipe import read_yaml, recipe_from

    named: dict[str, object] = {}
    for text in given:
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--scorer {text}: not YAML: {error}") from error
        value = {"kind": value} if isinstance(value, str) else value
        kind = str(value.get("kind", "scorer")) if isinstance(value, dict) else "scorer"
        count = sum(name.partition("-")[0] == kind for name in named) + 1
        named[kind if count == 1 else f"{kind}-{count}"] = value
    return recipe_from({"world": {}, "scorers": named}, where="--scorer").scorers
