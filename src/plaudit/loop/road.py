"""The whole road: language model, demonstrations, judgements, reward model, policy, evaluation, report.

Each stage reads what the one before it left in the run folder and leaves a folder of its own there; nothing is
handed over in memory. So a run that was stopped goes on where it was, with the same bits.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from plaudit.errors import RecipeError, RunError
from plaudit.evaluation.compare import compare
from plaudit.loop.ahead import look_ahead, waits_for_tokens
from plaudit.loop.ground import STAGES, Ground
from plaudit.loop.policy import policy_stage
from plaudit.loop.reward import reward_stage
from plaudit.loop.texts import collect_stage, language_stage, sft_stage
from plaudit.recipe import Recipe, recipe_from
from plaudit.report import write_report
from plaudit.runs import Run, write_json
from plaudit.runs.progress import say
from plaudit.runs.trackers import open_trackers
from plaudit.summary import summarise

__all__ = ["STAGES", "run"]

WORK: Mapping[str, Callable[[Ground], None]] = {
    "language": language_stage,
    "sft": sft_stage,
    "collect": collect_stage,
    "reward": reward_stage,
    "policy": policy_stage,
}
"""What does each of `STAGES`, in their order."""


def run(recipe: Recipe, folder: Path, *, fresh: bool = False, only: str | None = None) -> dict[str, Any]:
    """Go the road that a recipe describes, from wherever the folder's run stopped.

    Args:
        recipe: what to do.
        folder: the run folder.
        fresh: drop the run that is there and start another.
        only: the one stage to do, out of `STAGES`; or `evaluate`, to compare the run's models again.

    Returns:
        The summary, as it stands in `summary.json`. A finished run is not touched: its summary is returned.

    Raises:
        PlauditError: anything that is wrong with recipe, data or models, before work is lost.
        KeyboardInterrupt: somebody pressed Ctrl-C; the same call goes on from there.
    """
    if only not in (None, "evaluate", *STAGES):
        raise RecipeError(f"there is no stage {only!r}; there are {', '.join(STAGES)} and evaluate")
    if only is not None and only != "evaluate":
        recipe = _alone(recipe, only)
    if only == "evaluate" and (fresh or not (folder / "config.yaml").exists()):
        raise RunError(f"{folder}: evaluate needs a run that is there, and does not start another")
    if fresh and (folder / "config.yaml").exists():
        _look_from_nothing(recipe)
    opened = Run(folder, recipe, trackers=[open_trackers(recipe.tracking, folder)], fresh=fresh)
    try:
        done = opened.summary()
        if only == "evaluate":
            return _evaluate_again(Ground(recipe, opened))
        if done is not None:
            say(f"{folder} is finished; --fresh starts another run there")
            if not (folder / "report.html").exists():  # it was stopped right before
                write_report(folder)
            return done
        return _go(Ground(recipe, opened))
    finally:
        opened.close()


def _look_from_nothing(recipe: Recipe) -> None:
    """Find what would stop a run, while the one that it is to replace is still there."""
    with tempfile.TemporaryDirectory() as aside:
        trial = Run(Path(aside), recipe)
        try:
            look_ahead(Ground(recipe, trial))
        finally:
            trial.close()


def _alone(recipe: Recipe, only: str) -> Recipe:
    """The recipe with one stage.

    Raises:
        RecipeError: the recipe does not have that stage, or it needs another one's work.
    """
    if getattr(recipe, only) is None:
        raise RecipeError(f"the {only} stage alone: the recipe has no {only} section")
    kept = recipe.model_dump(mode="json", exclude={stage for stage in STAGES if stage != only})
    return recipe_from(kept, where=f"the {only} stage alone")


def _go(ground: Ground) -> dict[str, Any]:
    """All stages that the recipe names, evaluation, report."""
    say(f"computing on {ground.machine.describe()}, {torch.get_num_threads()} threads")
    look_ahead(ground)
    ground.run.keep_environment(
        device=ground.machine.device.type,
        precision="bf16" if ground.machine.bf16 else "fp32",
        threads=torch.get_num_threads(),
        seed=ground.recipe.seed,
    )
    for stage, work in WORK.items():
        if getattr(ground.recipe, stage) is not None and not ground.run.finished(stage):
            unread = waits_for_tokens(ground)
            work(ground)
            if unread and not waits_for_tokens(ground):
                look_ahead(ground)
    if not ground.run.finished("evaluate"):
        _evaluate(ground)
    return _close(ground)


def _evaluate_again(ground: Ground) -> dict[str, Any]:
    """Compare the run's models anew, and write summary and report from it."""
    missing = [stage for stage in ground.stages() if not ground.run.finished(stage)]
    if missing:
        raise RunError(f"{ground.folder} is not finished ({', '.join(missing)} to do): run its recipe first")
    if not ground.evaluates():
        raise RunError(f"{ground.folder} has nothing to compare: that takes a policy or sft stage, and prompts")
    look_ahead(ground)
    ground.run.forget("evaluate")
    _evaluate(ground)
    return _close(ground)


def _evaluate(ground: Ground) -> None:
    recipe = ground.recipe
    if not ground.evaluates():
        return
    after = ground.folder / ("policy" if recipe.policy is not None else "sft")
    before = ground.tuned() if after.name == "policy" else ground.start()
    with ground.stage("evaluate", "evaluation.jsonl", [ground.named(before), after.name]):
        compare(
            ground.folder,
            before=ground.language_model(before),
            after=ground.language_model(str(after)),
            words=ground.words(before),
            machine=ground.machine,
            prompts=ground.materials.prompts()[1][: recipe.evaluate.prompts],
            environment=ground.environment(),
            turns=ground.turns,
            world=ground.materials.world,
            recipe=recipe,
        )


def _close(ground: Ground) -> dict[str, Any]:
    shutil.rmtree(ground.folder / "checkpoints", ignore_errors=True)
    summary = summarise(ground.folder)
    write_json(ground.folder / "summary.json", summary)
    write_report(ground.folder)
    return summary
