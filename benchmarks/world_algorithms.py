"""Every algorithm on the built-in world, from the same models and as many answers: hidden taste, KL, time.

    python -m benchmarks.world_algorithms --json [--seeds 5] [--only ppo rloo] [--jobs 2] [--work runs/world]

For each seed the demo's road is gone with `best-of-n`, which learns nothing. Every other algorithm then starts from
that supervised model, climbs that reward with as many sampled answers (`dpo` learns from the rankings that the reward
model learned from), and answers the same held-out prompts. Gold is the world's hidden taste, in standard deviations of
the supervised model's; `text_nats_lost` is by how much the pretraining text, fresh documents of it, has become less
likely, in nats per token. CPU seconds are those of tuning and evaluation, on one thread.

What each run found is kept under `--work`, and the same command goes on from there. The picture goes beside the
results. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measured import circumstances, framed, once

from plaudit.demo import demo_recipe
from plaudit.loop import run
from plaudit.models.load import choose_machine, load_language, load_tokenizer
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Recipe, recipe_from
from plaudit.records import Document
from plaudit.text import Words
from plaudit.training.text_stages import document_tokens, text_loss
from plaudit.worlds import world

BLUE, BAND = "#0b65b8", "#c9ced6"
PICTURE = Path(__file__).resolve().parent / "results" / "world_algorithms.png"
DOCUMENTS = 400
"""Fresh documents of the pretraining text."""
CASES: Mapping[str, Mapping[str, Any]] = {
    "reinforce": {"baseline": "running"},
    "a2c": {},
    "ppo": {},
    # the pretraining text holds it back as the KL does: with less of a price of KL it reaches PPO's reward
    "ppo-ptx": {"pretraining": 0.02, "kl": {"beta": 0.11}},
    "rloo": {},
    "grpo": {},
    "dr-grpo": {},
    "dapo": {},
    "gspo": {},
    "ppg": {},
    "sac": {"minibatch": 32},
    # a long step asks for a baseline that has nothing to learn first
    "trpo": {"baseline": "leave-one-out", "trust": {"bound": 0.02, "iterations": 5}},
    "reinforce++": {},
    "rejection": {},
    "dpo": {"kl": {"beta": 0.1}, "preference": {"epochs": 1}},
}
"""By algorithm, what is set otherwise than in the demo's policy section."""
FIRST = "best-of-n"
"""The algorithm of the run whose models the others start from."""
SHOWN = ("gold_gain_sd", "gold_win_rate", "reward_gain_sd", "kl_nats", "text_nats_lost", "cpu_seconds")


def main() -> None:
    given = arguments()
    names, seeds = given.only or [FIRST, *CASES], range(given.seeds)
    given.work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with ProcessPoolExecutor(given.jobs) as pool:
        list(pool.map(one_run, [(FIRST, seed) for seed in seeds], [given.work] * given.seeds))
        jobs = [(name, seed) for seed in seeds for name in names]
        runs = dict(zip(jobs, pool.map(one_run, jobs, [given.work] * len(jobs)), strict=True))
    result: dict[str, Any] = {"benchmark": "world_algorithms", "seeds": given.seeds, "algorithms": {}}
    for name in names:
        row = verdict([runs[name, seed] for seed in seeds])
        result["algorithms"][name] = row
        print(f"{name:12}" + "".join(f"  {key} {row[key]:7.3f}" for key in SHOWN if key in row), flush=True)
    result["all_beat_supervised"] = all(row["worst_gold_gain_sd"] > 0 for row in result["algorithms"].values())
    if given.only is None:
        draw(result["algorithms"])
    result |= circumstances("world_algorithms")
    result["seconds"] = round(time.perf_counter() - begun, 1)
    if given.json:
        print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=[FIRST, *CASES], metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=Path("runs/world"), help="folder of the run folders")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


def one_run(job: tuple[str, int], work: Path) -> dict[str, float]:
    """The figures of one run, or those that were found before."""
    name, seed = job
    first, folder = work / f"{FIRST}-{seed}", work / f"{name}-{seed}"
    recipe = recipe_of(name, seed, first)

    def measure() -> dict[str, float]:
        begun = time.process_time()
        summary = run(recipe, folder)
        spent = time.process_time() - begun  # the first one's is that of the whole road
        after, before = (text_nats(path) for path in (folder / "policy", first / "sft"))
        found = {key: summary[key] for key in SHOWN if key in summary}
        return {**found, "cpu_seconds": spent, "text_nats_lost": after - before}

    return once(folder, recipe, measure)


def recipe_of(name: str, seed: int, before: Path) -> Recipe:
    """An algorithm's recipe: the demo's, from the models that are in a run folder."""
    demo = demo_recipe(seed=seed, threads=1).model_dump(mode="json", exclude_unset=True)
    if name == FIRST:
        return recipe_from({**demo, "policy": {**demo["policy"], "algorithm": name}}, where=name)
    by_judgements = name == "dpo"
    kept = ("seed", "precision", "threads", "world", "text", "evaluate", *(["collect"] if by_judgements else []))
    scorers = {} if by_judgements else {"scorers": {"model": {"kind": "model", "path": str(before / "reward-model")}}}
    return recipe_from(
        {
            **{section: demo[section] for section in kept},
            "model": {"path": str(before / "sft")},
            **scorers,
            "policy": {**demo["policy"], "algorithm": name, **CASES[name]},
        },
        where=name,
    )


def text_nats(model: Path) -> float:
    """Nats per token of the pretraining text under a model."""
    recipe = demo_recipe(threads=1)
    machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
    words = Words(load_tokenizer(str(model)), recipe.text, context=None)
    documents = [Document(text=text) for text in world("reviews").corpus(DOCUMENTS, seed=1)]
    assert recipe.language is not None
    texts = document_tokens(documents, words, recipe.language.max_tokens)
    return text_loss(LanguageNetwork(load_language(str(model), machine)), texts, machine, recipe.micro_tokens)


def verdict(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means over the seeds, and the worst of them."""
    keys = [key for key in SHOWN if key in runs[0]]  # where nothing is scored, there is no reward to gain
    gains = [round(one["gold_gain_sd"], 4) for one in runs]
    lost = [round(one["text_nats_lost"], 4) for one in runs]
    return {
        **{key: round(statistics.fmean(one[key] for one in runs), 4) for key in keys},
        "worst_gold_gain_sd": min(gains),
        "gold_gain_sd_by_seed": gains,
        "text_nats_lost_by_seed": lost,
    }


def draw(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each algorithm, the best by gold on top: gold with its seeds, KL, time."""
    from matplotlib.figure import Figure

    names = sorted(rows, key=lambda name: rows[name]["gold_gain_sd"])
    figure = Figure(figsize=(7.2, 4.6), dpi=100, layout="constrained", facecolor="white")
    gold, kl, time_ = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    for y, name in enumerate(names):
        seeds = rows[name]["gold_gain_sd_by_seed"]
        gold.plot([min(seeds), max(seeds)], [y, y], color=BAND, linewidth=3, zorder=1)
        gold.plot(rows[name]["gold_gain_sd"], y, "o", color=BLUE, markersize=6, zorder=2)
        kl.barh(y, rows[name]["kl_nats"], height=0.5, color=BLUE)
        time_.barh(y, rows[name]["cpu_seconds"], height=0.5, color=BLUE)
    gold.set_yticks(range(len(names)), names)
    for axes, x in ((gold, "gain in gold (sd), worst to best seed"), (kl, "KL (nats per answer)"), (time_, "CPU (s)")):
        framed(axes, x, "")
    figure.savefig(PICTURE, metadata={"Software": None})


if __name__ == "__main__":
    main()
