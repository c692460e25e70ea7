"""Two small pretrained models on real text: how near to the best of 64 answers algorithms come, and how far they go.

    PLAUDIT_DATA=... python -m benchmarks.real_text --json [--only stories] [--jobs 2] [--work runs/real-text]

`stories`: a story-teller climbs the reward model that `examples/stories.yaml` trains on people's book reviews. `poems`:
a poet climbs the rule of `examples/poems.yaml`, lines of five or of seven characters. On prompts that nothing was
trained on, with answers drawn at temperature 1,

    share = (r - r_ref) / (r_64 - r_ref)

r the mean reward of the tuned model, r_ref that of the reference, r_64 that of the best of its 64 answers to a prompt.

What each run found is kept under `--work`, and the same command goes on from there. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measured import circumstances, once

from plaudit.loop import run
from plaudit.loop.ground import Ground
from plaudit.recipe import Recipe, load_recipe, recipe_from
from plaudit.runs import Run

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CHOICES = 64
"""Answers of the reference to a prompt, of which the best is the mark."""
BAR, MOST_NATS = 0.8, 15.0
TASKS = ("stories", "poems")
CASES: Mapping[str, Mapping[str, Any]] = {
    "ppo": {"epochs": 2, "minibatch": 64},
    "rloo": {"steps": 200, "prompts_per_round": 16},  # as many answers; each is learned from once
    "grpo": {"epochs": 2, "minibatch": 64, "kl": {"beta": 0.1, "target": 13, "horizon": 600}},
    # its steps are short, so that it takes more of them; a price of KL that is steered would come too late, and a
    # baseline must have nothing to learn first
    "trpo": {
        "steps": 140,
        "kl": {"beta": 0.15},
        "baseline": "leave-one-out",
        "trust": {"iterations": 5},
        "optimiser": {"decay": "constant"},
    },
}
"""By algorithm, what is set otherwise than in the example's policy section."""
ON_POEMS: Mapping[str, Mapping[str, Any]] = {
    # a rule says little of one answer: more of them to a round, at the example's price, and steps that end small
    "trpo": {
        "steps": 80,
        "prompts_per_round": 64,
        "kl": {"beta": 0.05},
        "trust": {"bound": 0.03, "iterations": 5},
        "optimiser": {"decay": "linear"},
    },
}
"""And what is set otherwise again for the poems."""


def main() -> None:
    given = arguments()
    given.work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    tasks = given.only or TASKS
    jobs = [(task, name) for task in tasks for name in CASES]
    with ProcessPoolExecutor(given.jobs) as pool:
        marks = dict(zip(tasks, pool.map(mark, tasks, [given.work] * len(tasks)), strict=True))
        runs = dict(zip(jobs, pool.map(one_run, jobs, [given.work] * len(jobs)), strict=True))
    result: dict[str, Any] = {"benchmark": "real_text", "tasks": {}}
    for (task, name), found in runs.items():
        reference, best = marks[task]
        row = {
            "share": round((found["reward"] - reference) / (best - reference), 4),
            **{key: round(value, 4) for key, value in found.items()},
        }
        row["holds"] = row["share"] >= BAR and row["kl_nats"] < MOST_NATS
        table = result["tasks"].setdefault(
            task, {"reference": round(reference, 4), f"best_of_{CHOICES}": round(best, 4)}
        )
        table[name] = row
        print(f"{task:8} {name:6} share {row['share']:.3f}  KL {row['kl_nats']:.2f} nats", flush=True)
    result |= circumstances("real_text", "transformers") | {"seconds": round(time.perf_counter() - begun, 1)}
    if given.json:
        print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=TASKS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=Path("runs/real-text"), help="folder of the run folders")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


def mark(task: str, work: Path) -> tuple[float, float]:
    """The reference's mean reward, and that of the best of its answers."""
    folder, recipe = work / f"{task}-reference", recipe_of(task, "rloo", work)

    def measure() -> dict[str, float]:
        taught = example(task)
        if taught.reward is not None:  # whose scale is set on answers of the policy that is not tuned
            given = taught.model_dump(mode="json", exclude_unset=True)
            given["policy"] |= {"algorithm": "best-of-n", "kl": {}}
            run(recipe_from(given, where=task), teacher(work))
        rewards = rewards_of(recipe, folder, recipe.model.path, CHOICES)
        means = [statistics.fmean(own) for own in rewards]
        return {"mean": statistics.fmean(means), "best": statistics.fmean(max(own) for own in rewards)}

    found = once(folder, recipe, measure)
    return found["mean"], found["best"]


def one_run(job: tuple[str, str], work: Path) -> dict[str, float]:
    """The figures of one run, or those that were found before."""
    task, name = job
    folder, recipe = work / f"{task}-{name}", recipe_of(task, name, work)

    def measure() -> dict[str, float]:
        begun = time.process_time()
        summary = run(recipe, folder)
        spent = time.process_time() - begun
        rewards = rewards_of(recipe, folder, str(folder / "policy"), 8)
        reward = statistics.fmean(statistics.fmean(own) for own in rewards)
        return {"reward": reward, "kl_nats": summary["kl_nats"], "cpu_seconds": spent}

    return once(folder, recipe, measure)


def rewards_of(recipe: Recipe, folder: Path, model: str, count: int) -> list[list[float]]:
    """For each held-out prompt, the rewards of so many answers of a model."""
    opened = Run(folder, recipe)
    try:
        ground = Ground(recipe, opened)
        prompts = ground.materials.prompts()[1][: recipe.evaluate.prompts]
        sampling = recipe.evaluate.sampling
        groups = ground.sample("mark", prompts, ground.words(recipe.model.path), count, sampling, model)
        return [list(own) for own in ground.scorer().score(groups).value_PG]
    finally:
        opened.close()


def recipe_of(task: str, name: str, work: Path) -> Recipe:
    """An example's recipe with another algorithm, its reward model taken from where the reference's run trained it."""
    given = example(task).model_dump(mode="json", exclude_unset=True)
    if given.pop("reward", None) is not None:
        del given["data"]["judgements"]
        given["scorers"] = {"model": {"kind": "model", "path": str(teacher(work) / "reward-model")}}
    given["policy"] |= {"algorithm": name, **CASES[name], **(ON_POEMS.get(name, {}) if task == "poems" else {})}
    return recipe_from(given, where=f"{task}, {name}")


def example(task: str) -> Recipe:
    return load_recipe(EXAMPLES / f"{task}.yaml")


def teacher(work: Path) -> Path:
    """The run folder of the reward model."""
    return work / "stories-teacher"


if __name__ == "__main__":
    main()
