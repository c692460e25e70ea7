"""How each policy-gradient algorithm climbs on a task whose optimum is known: the pictures of docs/algorithms.

    python -m benchmarks.algorithm_curves [--only ppo rloo] [--seed 0]

The task, the settings and the share of the way are those of `benchmarks.algorithms` at beta 1, for one seed; here the
share is computed, by enumeration, at 60 moments of a run. What a run reached is kept in
`benchmarks/results/algorithm_curves.json` as soon as it ends and is not run again while its settings are the same; the
pictures are drawn from that file. `ppo-ptx` and `dpo` are not here: the task has neither documents nor judgements.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.algorithms import CASES, IN_REWARD, Case, settings_of
from benchmarks.measured import INK, framed

from plaudit.testing import make_laboratory
from plaudit.testing.stage import laboratory_stage
from plaudit.training.policy_stage import PolicyMemory

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "algorithm_curves.json"
PICTURES = ROOT / "docs" / "algorithms"
BETA = 1.0
MOMENTS = 60
MORE = {
    "dapo": Case(settings={"algorithm": "dapo"}),
    "gspo": Case(settings={"algorithm": "gspo", "kl": IN_REWARD}),
    "rejection": Case(settings={"algorithm": "rejection"}),
}
"""Cases that `benchmarks.algorithms` has no bar for."""
LINES = {
    "reinforce": {
        "leave-one-out": "reinforce, leave-one-out",
        "fresh": "reinforce, fresh",
        "running": "reinforce, running",
        "none": "reinforce, none",
    },
    "grpo": {"grpo": "grpo, KL in the reward"},
    "dr-grpo": {"dr-grpo": "dr-grpo, KL in the reward"},
    **{name: {name: name} for name in ("a2c", "ppo", "rloo", "reinforce++", "sac", "ppg", "trpo", *MORE)},
}
"""By page, the cases that its picture shows, by what the picture calls them."""
COLOURS = ("#0b65b8", "#00806a", "#8b3f9b", "#b54c07")


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    for page in given.only or LINES:
        for name in LINES[page].values():
            kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
            if kept.get(name, {}).get("settings") != described(name) or kept[name]["seed"] != given.seed:
                kept[name] = climbed(name, given.seed)
                KEPT.write_text(as_text(kept), encoding="utf-8")
            print(f"{name:28} {kept[name]['share'][-1]:.4f} after {kept[name]['samples'][-1]} answers", flush=True)
        draw(page, json.loads(KEPT.read_text(encoding="utf-8")))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(LINES), metavar="NAME", help=f"of {', '.join(LINES)}")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def case_of(name: str) -> Case:
    """The settings under a name."""
    return MORE.get(name) or CASES[name]


def described(name: str) -> dict[str, Any]:
    """What a case sets, as JSON values; where it is the same, a run need not be repeated."""
    case = case_of(name)
    changed = settings_of(case, BETA).model_dump(mode="json", exclude_unset=True)
    return {**changed, "algorithm": case.settings["algorithm"]}


def climbed(name: str, seed: int) -> dict[str, Any]:
    """One run: the answers sampled so far, and the share of the way to the optimum, at moments evenly apart."""
    case, settings = case_of(name), settings_of(case_of(name), BETA)
    lab = make_laboratory(seed, beta=BETA)
    task = laboratory_stage(lab, settings, seed=seed)
    memory = PolicyMemory(settings)
    samples, shares, begun = [0], [round(lab.share(task.policy()), 4)], time.process_time()
    for step in range(settings.steps):
        task.stage.round(step, memory)
        done = step + 1
        if done * MOMENTS // settings.steps > step * MOMENTS // settings.steps:
            samples.append(case.samples() // settings.steps * done)
            shares.append(round(lab.share(task.policy()), 4))
    return {
        "settings": described(name),
        "seed": seed,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "samples": samples,
        "share": shares,
    }


def as_text(kept: Mapping[str, Any]) -> str:
    """JSON with a line for each case and key, so that a change of one run is a change of its own lines."""
    rows = [
        f'  "{name}": {{\n' + ",\n".join(f'    "{key}": {json.dumps(value)}' for key, value in run.items()) + "\n  }"
        for name, run in kept.items()
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def draw(page: str, kept: Mapping[str, Any]) -> None:
    """The picture of one page, 640 x 320 pixels, on the axes that all of them share."""
    from matplotlib.figure import Figure

    lines: Sequence[tuple[str, Any]] = [(label, kept[name]) for label, name in LINES[page].items()]
    figure = Figure(figsize=(6.4, 3.2), dpi=100, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for (label, run), colour in zip(lines, COLOURS, strict=False):
        thousands = [count / 1000 for count in run["samples"]]
        axes.plot(thousands, run["share"], color=colour, linewidth=2, label=label)
    axes.axhline(1, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_ylim(-0.05, 1.05)
    framed(axes, "answers sampled (thousands)", "share of the way (1 = optimum)")
    if len(lines) > 1:
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)
    PICTURES.mkdir(parents=True, exist_ok=True)
    # the software's version in the file would change it with every release
    figure.savefig(PICTURES / f"{page}.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
