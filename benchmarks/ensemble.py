"""One reward model against the lower bound of several, where many labels are wrong: what PPO makes of them.

    python -m benchmarks.ensemble --seeds 5 --members 4 --wrong 0.3 --out runs/ensemble [--threads 1]

In the built-in world a share of the rankings is turned upside down. For every seed, the demo's road is gone twice on
the same answers and the same rankings: with one reward model, and with several from other seeds (other orders, other
heads), whose mean less `caution` standard deviations is climbed. Shown: the hidden taste after tuning, KL, the reward
models' accuracy and calibration error on held-out rankings, three in ten of all and as wrong as the others. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from plaudit.demo import demo_recipe
from plaudit.loop import run
from plaudit.recipe import Recipe, override, recipe_from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--members", type=int, default=4, help="reward models of the ensemble")
    parser.add_argument("--wrong", type=float, default=0.3, help="share of the rankings turned upside down")
    parser.add_argument("--caution", type=float, default=1.0, help="standard deviations taken off the mean")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change both recipes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/ensemble"), help="folder of the run folders")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"single": [], "ensemble": []}
    for seed in range(given.seeds):
        for name, recipe in recipes(seed, given).items():
            folder = given.out / f"{name}-{seed}"
            run(recipe, folder)
            found[name].append(figures(folder))
            print(seed, name, found[name][-1], flush=True)
    result: dict[str, Any] = {"benchmark": "ensemble", "wrong": given.wrong, "members": given.members}
    for name, rows in found.items():
        result[name] = {key: round(statistics.fmean(row[key] for row in rows), 4) for key in rows[0]}
    pairs = list(zip(found["single"], found["ensemble"], strict=True))
    result["more_gold_by_seed"] = [round(two["gold_after"] - one["gold_after"], 4) for one, two in pairs]
    result["less_calibration_error_by_seed"] = [
        round(one["calibration_error"] - two["calibration_error"], 4) for one, two in pairs
    ]
    result["hardware"] = {"cores": os.cpu_count(), "threads": given.threads}
    print(json.dumps(result))


def recipes(seed: int, given: argparse.Namespace) -> dict[str, Recipe]:
    base = demo_recipe(seed=seed, threads=given.threads).model_dump(mode="json")
    changes = [f"collect.wrong={given.wrong}", "data.held_out=0.3", *given.set]
    several = [f"reward.members={given.members}", "reward.combine=lower"]
    return {
        "single": recipe_from(override(base, changes)),
        "ensemble": recipe_from(override(base, [*changes, *several, f"reward.caution={given.caution}"])),
    }


def figures(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    reward = json.loads((folder / "reward-model" / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "gold_after": round(summary["gold_after"], 4),
        "gold_gain_sd": round(summary["gold_gain_sd"], 4),
        "kl_nats": round(summary["kl_nats"], 3),
        "accuracy": round(reward["accuracy"], 4),
        "calibration_error": round(reward["expected_calibration_error"], 4),
        "nats": round(reward["nats"], 4),
    }


if __name__ == "__main__":
    main()
