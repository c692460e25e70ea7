"""Every policy-gradient algorithm on a task whose optimum is known: how much of the way to it, from samples alone.

    python -m benchmarks.algorithms --json [--seeds 10] [--only rloo ppo] [--work runs/algorithms]

The task is `plaudit.testing.make_laboratory`: three prompts, 121 answers each, rewards, reference, first weights and
sampling drawn anew for each seed. The policy, a small neural network at the reference, learns through the product's
own policy stage (`plaudit.testing.laboratory_stage`), from sampled answers alone; how far it has come is then
computed by enumeration: share = (J - J_ref) / (J* - J_ref), J = E[r] - beta KL, for beta 1, and for beta 0.3 with a
price of KL that falls from 1 (`kl.start`).

`--work` keeps what each run reached, and the same command goes on from there. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from plaudit.testing import make_laboratory
from plaudit.testing.stage import laboratory_stage
from plaudit.tuning import Policy

LEARNING = {"learning_rate": 0.02, "warmup": 0, "decay": "linear", "clip_norm": 1e9}
BETAS = (1.0, 0.3)
BAR = (0.99, 0.97)
"""Share of the way on average, and in the worst seed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An algorithm as it is run here."""

    settings: Mapping[str, Any]
    """Of the policy section, besides what all have."""
    rounds: int = 1500
    prompts: int = 48
    group: int = 8
    bars: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    """By beta, where they are not `BAR`."""

    def samples(self) -> int:
        """Answers drawn in all."""
        fresh = self.settings.get("fresh", 4) if self.settings.get("baseline") == "fresh" else 0
        return self.rounds * self.prompts * (self.group + fresh)


IN_REWARD = {"where": "reward", "estimator": "k1"}
CASES = {
    **{
        f"reinforce, {name}": Case(settings={"algorithm": "reinforce", "baseline": name, "constant": 0.5}, rounds=2500)
        for name in ("none", "constant", "running", "prompt", "greedy", "leave-one-out")
    },
    "reinforce, fresh": Case(settings={"algorithm": "reinforce", "baseline": "fresh", "fresh": 4}, rounds=1200),
    "rloo": Case(settings={"algorithm": "rloo"}),
    "grpo, KL in the reward": Case(settings={"algorithm": "grpo", "kl": IN_REWARD}, bars={0.3: (0.99, 0.95)}),
    "dr-grpo, KL in the reward": Case(settings={"algorithm": "dr-grpo", "kl": IN_REWARD}),
    "a2c": Case(settings={"algorithm": "a2c"}),
    "ppo": Case(settings={"algorithm": "ppo", "epochs": 2}),
    "reinforce++": Case(settings={"algorithm": "reinforce++"}),
    "sac": Case(
        settings={"algorithm": "sac", "optimiser": {**LEARNING, "learning_rate": 0.01}}, rounds=500, prompts=24
    ),
    "ppg": Case(settings={"algorithm": "ppg", "epochs": 2}),
    "trpo": Case(settings={"algorithm": "trpo", "epochs": 2, "trust": {"bound": 0.01}}, rounds=400),
}


def main() -> None:
    given = arguments()
    names = given.only or list(CASES)
    given.work.mkdir(parents=True, exist_ok=True)
    jobs = [(name, beta, seed) for name in names for beta in BETAS for seed in range(given.seeds)]
    begun = time.perf_counter()
    with ProcessPoolExecutor(given.jobs) as pool:
        shares = dict(zip(jobs, pool.map(one_run, jobs, [given.work] * len(jobs)), strict=True))
    result: dict[str, Any] = {"benchmark": "algorithms", "seeds": given.seeds, "algorithms": {}}
    for name in names:
        for beta in BETAS:
            mine = [shares[name, beta, seed] for seed in range(given.seeds)]
            row = verdict(CASES[name], beta, mine)
            result["algorithms"][f"{name}, beta {beta:g}"] = row
            print(
                f"{name:28} beta {beta:<4g} {row['optimum_share']:.4f}  worst {row['worst_seed']:.4f}"
                f"  {'holds' if row['holds'] else 'FALLS SHORT'}",
                flush=True,
            )
    result["hardware"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    result["versions"] = {"python": platform.python_version(), "torch": version("torch")}
    result["command"] = " ".join(["python -m benchmarks.algorithms", *sys.argv[1:]])
    result["seconds"] = round(time.perf_counter() - begun, 1)
    if given.json:
        print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=list(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=Path("runs/algorithms"), help="where each run's share is kept")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


def one_run(job: tuple[str, float, int], work: Path) -> float:
    """The share of the way that one run goes."""
    name, beta, seed = job
    case = CASES[name]
    settings = settings_of(case, beta)
    kept = work / f"{name.replace(', ', '-').replace(' ', '_')}-{beta:g}-{seed}.json"
    described = settings.model_dump(mode="json")
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before["settings"] == described:
            return float(before["share"])
    torch.set_num_threads(1)
    lab = make_laboratory(seed, beta=beta)
    begun = time.process_time()
    task = laboratory_stage(lab, settings, seed=seed)
    task.climb()
    share = lab.share(task.policy())
    found = {"settings": described, "share": share, "cpu_seconds": round(time.process_time() - begun, 1)}
    kept.write_text(json.dumps(found), encoding="utf-8")
    return share


def settings_of(case: Case, beta: float) -> Policy:
    """The policy section of a case."""
    falls = {"start": 1.0} if beta < 1 else {}
    given = {
        "steps": case.rounds,
        "prompts_per_round": case.prompts,
        "answers_per_prompt": case.group,
        "sampling": {"max_tokens": 4},
        "optimiser": LEARNING,
        **case.settings,
    }
    given["kl"] = {"beta": beta, **falls, **case.settings.get("kl", {})}
    return Policy.model_validate(given)


def verdict(case: Case, beta: float, shares: list[float]) -> dict[str, Any]:
    """How far a case came, and whether that is far enough."""
    mean_bar, worst_bar = case.bars.get(beta, BAR)
    mean, worst = statistics.fmean(shares), min(shares)
    return {
        "objective": "E[r] - beta KL",
        "optimum_share": round(mean, 4),
        "worst_seed": round(worst, 4),
        "samples": case.samples(),
        "holds": mean >= mean_bar and worst >= worst_bar,
    }


if __name__ == "__main__":
    main()
