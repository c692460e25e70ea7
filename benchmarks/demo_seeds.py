"""The demo over several seeds: how often the tuned model wins by the hidden taste, and at what cost.

    python -m benchmarks.demo_seeds --seeds 5 --out runs/demo-seeds [--threads 1] [--json]

For every seed: `plaudit demo --seed S` in a process of its own, its summary, and CPU seconds as the system counted
them. Then the means, the worst seed, and whether the supervised model is an honest opponent: its held-out perplexity
against that of one trained for twice its steps. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SHOWN = ("gold_win_rate", "gold_win_rate_of_before_against_itself", "gold_gain_sd", "kl_nats", "reward_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"), help="folder of the run folders")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run")
    parser.add_argument("--honest", action="store_true", help="also train the supervised model twice as long")
    options = parser.parse_args()
    found = [run_demo(seed, options.out / f"seed-{seed}", options.threads) for seed in range(options.seeds)]
    for seed, summary in enumerate(found):
        print(seed, {name: round(summary[name], 3) for name in SHOWN}, f"{summary['cpu_seconds']:.0f} CPU s")
    result = digest(found)
    if options.honest:
        result["perplexity_over_that_of_twice_the_steps"] = [
            honesty(seed, options.out, options.threads) for seed in range(options.seeds)
        ]
    print(json.dumps(result))


def run_demo(seed: int, folder: Path, threads: int) -> dict[str, Any]:
    """One demo in a process of its own; finished ones are read."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "plaudit", "demo", "--seed", str(seed), "--out", str(folder)]
    subprocess.run([*command, "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    summary["cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return summary


def digest(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, the worst seed, and the shares of diversity and of sound sentences that are kept."""
    wins = [summary["gold_win_rate"] for summary in found]
    return {
        "seeds": len(found),
        "gold_win_rate_mean": statistics.fmean(wins),
        "gold_win_rate_worst": min(wins),
        "gold_win_rates": wins,
        "self_win_rates": [summary["gold_win_rate_of_before_against_itself"] for summary in found],
        "gold_gain_sd_mean": statistics.fmean(summary["gold_gain_sd"] for summary in found),
        "kl_nats_mean": statistics.fmean(summary["kl_nats"] for summary in found),
        "kl_nats_largest": max(summary["kl_nats"] for summary in found),
        "distinct_2_kept_least": min(s["distinct_2_after"] / s["distinct_2_before"] for s in found),
        "parse_share_kept_least": min(s["parse_share_after"] / s["parse_share_before"] for s in found),
        "reward_accuracy_mean": statistics.fmean(summary["reward_accuracy"] for summary in found),
        "cpu_seconds_most": max(summary["cpu_seconds"] for summary in found),
        "peak_memory_mb_most": max(summary["peak_memory_mb"] for summary in found),
        "hardware": {"cores": os.cpu_count()},
    }


def honesty(seed: int, out: Path, threads: int) -> float:
    """Held-out perplexity of the demo's supervised model over that of one trained for twice its steps."""
    from plaudit.demo import demo_recipe
    from plaudit.loop import run

    recipe = demo_recipe(seed=seed, threads=threads)
    assert recipe.sft is not None
    longer = recipe.model_copy(
        update={
            "sft": recipe.sft.model_copy(update={"epochs": 2 * recipe.sft.epochs}),
            "collect": None,
            "reward": None,
            "policy": None,
        }
    )
    folder = out / f"longer-{seed}"
    run(longer, folder)
    losses = [
        json.loads((place / "sft" / "evaluation.json").read_text(encoding="utf-8"))["held_out_nats_per_token"]
        for place in (out / f"seed-{seed}", folder)
    ]
    return math.exp(losses[0] - losses[1])


if __name__ == "__main__":
    main()
