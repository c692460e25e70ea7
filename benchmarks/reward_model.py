"""A reward model on nine ranked answers: TRL's RewardTrainer and ours side by side, and a plain loop of nine forwards.

    make peers
    python -m benchmarks.reward_model --json

A step is one judgement: a prompt of 64 tokens, nine answers of 64, all 36 pairs. TRL reads the pairs, we read the
ranking; same model (8.3 million weights), same texts and tokens, one thread, the same precision of matrix products.
The cost of a step is all CPU seconds of the trainer's process from one step's end to the next one's: batch, forward,
backward, clipping, AdamW, metrics. Each side has its own process, all alive at once, and they take turns of a second
or one step, so that a busy machine slows all of them; medians count, after a first turn that does not. Memory is the
process's largest resident set, libraries included. TRL runs without gradient checkpointing; its time is that of the
fastest of the settings in `TRL`, its memory the least with the 36 pairs in one batch (in pieces it needs less: see the
table).

The cost per comparison at K = 2, 4, 9 and 16 answers is drawn into `results/reward_model.png`.
Only the standard library is needed to start it: the sides run in `.peers`, which `make peers` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers" / "bin" / "python"
RESULTS = Path(__file__).resolve().parent / "results"
PAIRS = 36
TURN = 1.0
"""CPU seconds after which the next side has its turn: cheap steps follow one another, as in use."""
GROWING = {2: 36, 4: 6, 9: 1, 16: 1}
"""Answers of a judgement -> judgements in a step, 36 comparisons or more."""

OURS = {"side": "ours"}
IN_PIECES = "TRL, 6 pairs at a time"
TRL: dict[str, dict[str, Any]] = {
    "TRL": {"side": "trl"},
    "TRL, eager attention": {"side": "trl", "attention": "eager"},
    IN_PIECES: {"side": "trl", "micro": 6},
}
NINE: dict[str, dict[str, Any]] = {
    "nine forwards, one batch": {"side": "nine"},
    "nine forwards, one by one": {"side": "nine", "one_by_one": True},
}


class Cost(NamedTuple):
    """What a side's steps cost."""

    seconds: float
    """Median CPU seconds of a step."""
    memory_mb: float
    told: Mapping[str, Any]
    """What the side says of itself."""


class Side:
    """A side in its own process."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            [PEERS, "-W", "ignore", "-m", "benchmarks.reward_model_sides", json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def say(self, word: str) -> dict[str, Any]:
        """Let it go on, and wait for what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with code {self._process.wait()}; BENCH_VERBOSE=1 shows what it says")
        told: dict[str, Any] = json.loads(line)
        return told


def side_by_side(sides: Mapping[str, Mapping[str, Any]], repeats: int, *, warm: int = 1) -> dict[str, Cost]:
    """Let the sides take turns; the first turns do not count."""
    defaults = {"precision": "fp32", "matmul": "highest", "judgements": 1, "answers": 9, "steps": repeats + warm}
    running = {name: Side({**defaults, **given}) for name, given in sides.items()}
    for side in running.values():
        side.heard()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + warm):
        for name, side in running.items():
            costs: list[float] = []
            while sum(costs) < TURN:
                costs.append(side.say("step")["cpu"])
            seconds[name] += costs if turn >= warm else []
    ended = {name: side.say("stop") for name, side in running.items()}
    return {name: Cost(statistics.median(seconds[name]), ended[name]["memory_mb"], ended[name]) for name in sides}


def alone(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a side says that takes no turns."""
    return Side(given).heard()


def compare(precision: str, sides: Mapping[str, Mapping[str, Any]], given: argparse.Namespace) -> dict[str, Cost]:
    """Run sides in one precision and print a line for each."""
    slow = precision == "bf16"  # a minute a step where the processor does not multiply in it
    repeats = (1 if given.quick else max(2, given.repeats // 3)) if slow else given.repeats
    shared = {"precision": precision, "matmul": given.matmul}
    costs = side_by_side({name: {**side, **shared} for name, side in sides.items()}, repeats, warm=int(not given.quick))
    tokens = [cost.told["tokens"] for cost in costs.values()]
    if any(other != tokens[0] for other in tokens):
        raise SystemExit("the sides have not read the same tokens")
    for name, cost in costs.items():
        print(
            f"{precision}  {name:26} {1000 * cost.seconds:8.0f} ms a step {PAIRS / cost.seconds:8.2f} comparisons/s "
            f"{cost.memory_mb:6.0f} MB",
            flush=True,
        )
    return costs


def growing(given: argparse.Namespace) -> dict[str, dict[int, float]]:
    """CPU milliseconds per comparison of both, by answers of a judgement."""
    found: dict[str, dict[int, float]] = {"Plaudit": {}, "TRL": {}}
    for answers, judgements in GROWING.items():
        pairs = judgements * answers * (answers - 1) // 2
        task = {"answers": answers, "judgements": judgements, "matmul": given.matmul}
        pieces = {"micro": 40} if pairs > PAIRS else {}  # 240 texts at once would take 7 GB
        costs = side_by_side({"Plaudit": {**OURS, **task}, "TRL": {**TRL["TRL"], **task, **pieces}}, 3)
        for name, cost in costs.items():
            found[name][answers] = round(1000 * cost.seconds / pairs, 2)
        print(f"K = {answers:2}: {found['Plaudit'][answers]:6.1f} ms a comparison, TRL {found['TRL'][answers]:6.1f}")
    return found


def summary(fp32: Mapping[str, Cost], bf16: Mapping[str, Cost], exact: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios: TRL's and the loop's best against ours. Memory is that of the 36 pairs in one batch."""
    rivals = {name: fp32[name] for name in TRL}
    whole = min(cost.memory_mb for name, cost in rivals.items() if name != IN_PIECES)
    ours = fp32["Plaudit"]
    return {
        "ratio_fp32": round(min(cost.seconds for cost in rivals.values()) / ours.seconds, 2),
        "ratio_bf16": round(bf16[IN_PIECES].seconds / bf16["Plaudit"].seconds, 2),
        "ratio_nine_forwards": round(min(fp32[name].seconds for name in NINE) / ours.seconds, 2),
        "memory_ratio": round(ours.memory_mb / whole, 3),
        "memory_ratio_to_pieces": round(ours.memory_mb / rivals[IN_PIECES].memory_mb, 3),
        "score_difference": exact["score_difference"],
        "gradient_difference": exact["gradient_difference"],
        "comparisons_per_second": {
            precision: {name: round(PAIRS / cost.seconds, 2) for name, cost in costs.items()}
            for precision, costs in {"fp32": fp32, "bf16": bf16}.items()
        },
        "memory_mb": {name: round(cost.memory_mb) for name, cost in fp32.items()},
    }


def hardware() -> dict[str, Any]:
    """The processor, as far as the system tells, and its instructions for matrix products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines if ":" in line}
    flags = set(told.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}
    name = told.get("model name", platform.processor() or platform.machine())
    return {"cpu": ", ".join([name, *sorted(flags)]), "cores": os.cpu_count(), "threads": 1}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--repeats", type=int, default=7, help="turns that count; a third of them in bf16")
    parser.add_argument("--matmul", default="highest", choices=["highest", "high", "medium"], help="of both sides")
    parser.add_argument("--quick", action="store_true", help="one or two turns, no picture, nothing is kept")
    given = parser.parse_args()
    if given.quick:
        given.repeats = min(given.repeats, 2)
    return given


def main() -> None:
    given = arguments()
    if not PEERS.exists():
        raise SystemExit(f"{PEERS.relative_to(ROOT)} is not there: run `make peers` first")
    fp32 = compare("fp32", {"Plaudit": OURS, **NINE, **TRL}, given)
    bf16 = compare("bf16", {"Plaudit": OURS, IN_PIECES: TRL[IN_PIECES]}, given)  # its fastest there, by 4 %
    exact = alone({"side": "check", "precision": "fp32", "matmul": given.matmul, "answers": 9})
    result = {"benchmark": "reward_model", **summary(fp32, bf16, exact), "matmul": given.matmul}
    result |= {"hardware": hardware(), "versions": exact["versions"]}
    result["command"] = " ".join(["python -m benchmarks.reward_model", *sys.argv[1:]])
    if not given.quick:
        result["milliseconds_per_comparison"] = growing(given)
        if given.matmul == "highest":
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / "reward_model.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            alone({"side": "picture", "matmul": "highest", "results": str(RESULTS)})
    print("; ".join(f"{name} {result[name]}" for name in result if "ratio" in name or "difference" in name), flush=True)
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
