"""Commands that use what a run has made: sample, score, evaluate, export, report, chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from plaudit.cli.columns import Columns, column_pairs
from plaudit.cli.guard import guarded

__all__ = ["add_to"]

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
RunOrModel = Annotated[
    Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run folder, or a folder with a Transformers model.")
]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON lines to write.")]
ModelName = Annotated[
    Literal["policy", "sft", "language"] | None,
    typer.Option("--stage", help="Which model of a run. [default: the newest]", show_default=False),
]
CutPrompts = Annotated[bool, typer.Option("--cut-prompts", help="Read the end of a prompt that has too many tokens.")]

LANGUAGE_MODELS = ("policy", "sft", "language")
REWARD_MODELS = ("reward-model",)


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    app.command()(sample)
    app.command()(score)
    evaluate = typer.Typer(help="Test what a run has made: its policy, or a reward model.", no_args_is_help=True)
    evaluate.command("policy")(evaluate_policy)
    evaluate.command("reward")(evaluate_reward)
    app.add_typer(evaluate, name="evaluate")
    export = typer.Typer(help="Write a model for other software.", no_args_is_help=True)
    export.command("reward")(export_reward)
    app.add_typer(export, name="export")
    app.command()(report)
    app.command()(chat)


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
    best_by: Annotated[
        Path | None,
        typer.Option(
            "--best-by",
            metavar="RUN_OR_MODEL",
            help="A reward model: keep only the answer to each prompt that it likes best.",
            show_default=False,
        ),
    ] = None,
    stage: ModelName = None,
    cut_prompts: CutPrompts = False,
) -> None:
    """Answer the prompts of a file."""
    from plaudit.recipe import recipe_from

    chosen = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "batch": batch}
    sampling = recipe_from({"evaluate": {"sampling": chosen}, "world": {}}, where="options").evaluate.sampling
    folder = model_in(model, *((stage,) if stage else LANGUAGE_MODELS))
    judge = None if best_by is None else model_in(best_by, *REWARD_MODELS)

    from plaudit import tasks

    count = tasks.sample_file(
        folder,
        prompts,
        out,
        sampling=sampling,
        answers=answers,
        seed=seed,
        best_by=judge,
        cut_prompts=cut_prompts,
    )
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
    cut_prompts: CutPrompts = False,
) -> None:
    """Score the answers of a file with a reward model."""
    folder = model_in(model, *REWARD_MODELS)

    from plaudit import tasks

    count = tasks.score_file(folder, answers, out, cut_prompts=cut_prompts)
    typer.echo(f"{out}: {count} scores by {folder}")


@guarded(go_on=True)
def evaluate_policy(run: Run) -> None:
    """Answer held-out prompts with the tuned model and the one before it, and show the table."""
    from plaudit.recipe import load_recipe

    recipe = load_recipe(recipe_of(run))

    from plaudit import loop, tasks

    loop.run(recipe, run, only="evaluate")
    tasks.show_summary(run)


@guarded()
def evaluate_reward(
    model: RunOrModel,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Judgements, in any known format."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where to write. [default: evaluation/ in the model's folder]",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="For the best-of-n curve: several answers to each prompt, as by `plaudit sample --answers 16`.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="COLUMN",
            help="Split accuracy by a column; may be given many times. [default: subset, section, category, scenario, "
            "language, file, annotator, quality, answers, where they are]",
            show_default=False,
        ),
    ] = None,
    probes: Annotated[bool, typer.Option("--probes/--no-probes", help="Score answers spoiled on purpose, too.")] = True,
    cut_prompts: CutPrompts = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that cannot be read.")] = False,
    column: Columns = None,
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the judgements are about that do not say it themselves, one of the model's qualities.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say how far a reward model can be trusted, on judgements that it was not trained on.

    Accuracy by subset, annotator and agreement; ties, calibration, length, order; answers spoiled on purpose; best of
    n; RewardBench's numbers for files of its form. Several models together are taken for the mean of their chances; the
    accuracy of their reward as it is used, and how far apart they are, stand beside it; thumbs and probes take their
    mean. Writes evaluation.json and report.html.
    """
    folder = model_in(model, *REWARD_MODELS)
    into = out or folder / "evaluation"

    from plaudit import tasks
    from plaudit.evaluation.reward import PROBED

    found = tasks.evaluate_reward(
        folder,
        files,
        into,
        answers=answers,
        by=by or (),
        probes=PROBED if probes else 0,
        cut_prompts=cut_prompts,
        skip_bad=skip_bad,
        columns=column_pairs(column),
        quality=quality,
    )
    tasks.show_reward_evaluation(found, into)


@guarded()
def export_reward(
    model: RunOrModel,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not be there.")],
    to: Annotated[Literal["transformers", "vllm"], typer.Option(help="Who shall read it.")],
) -> None:
    """Write a reward model as a plain folder, its gain folded into its weights, with a README on how to use it."""
    folder = model_in(model, *REWARD_MODELS)

    from plaudit import tasks

    offset = tasks.export(folder, out, to)
    typer.echo(f"{out}: {folder} for {to}; the reward is its score {offset:+g}")


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
