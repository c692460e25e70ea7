"""Kill -9 `plaudit demo --quick` at random moments, run the same command again, and compare with a run left alone.

    python benchmarks/kill_nine.py --kills 10 --threads 2

One run is killed over and over: the moments are drawn over the length of the run that was left alone, and each new
process gets the time up to the next of them, on top of a random part of what a process needs to start. `--apart`
kills as many runs once each instead, which takes much longer. Both runs train their own built-in model. The last line
is JSON; the exit code is 0 if every bit agrees, times and memory left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS = ("language", "sft", "reward-model", "policy")
FILES = ("judgements.jsonl", "samples.jsonl", "evaluation.jsonl", "evaluation.json")
VOLATILE = ("seconds", "memory")
START = 'from plaudit.cli import main; import sys; sys.argv[0] = "plaudit"; main()'


def main() -> int:
    given = arguments()
    work = Path(given.folder or tempfile.mkdtemp(prefix="kill-nine-"))
    work.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    startup = seconds_of([sys.executable, "-c", "import plaudit.loop"])
    print(f"left alone, in {work / 'alone'}", flush=True)
    length = finish(work / "alone", given, limit=given.limit)
    print(f"  {length:.0f} s, of which about {startup:.0f} s to start", flush=True)

    rng = random.Random(given.seed)
    kills: list[str] = []
    wrong: list[str] = []
    runs = 0
    while len(kills) < given.kills and runs < given.kills:  # a machine that got faster may end a run too early
        folder = work / f"killed-{runs}"
        runs += 1
        left = 1 if given.apart else given.kills - len(kills)
        for delay in lives(sorted(rng.uniform(0, length) for _ in range(left)), startup, rng):
            if not killed(folder, given, delay):
                break
            kills.append(place(folder))
            print(f"  {folder.name}: killed after {delay:.1f} s: {kills[-1]}", flush=True)
        finish(folder, given, limit=given.limit)
        here = differences(work / "alone", folder)
        print(f"{folder.name}: {', '.join(here) or 'equal to the last bit'}", flush=True)
        wrong += [f"{folder.name}/{what}" for what in here]
        if not here and not given.keep:
            remove(folder)
    result = {
        "benchmark": "kill_nine",
        "ok": not wrong and len(kills) == given.kills,
        "kills": len(kills),
        "killed_at": kills,
        "runs": runs,
        "differences": wrong,
        "threads": given.threads,
        "seed": given.seed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    if not (given.keep or wrong or given.folder):
        shutil.rmtree(work)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="moments at which to kill")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the demo")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--apart", action="store_true", help="a run of its own for each kill")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that one process may take")
    parser.add_argument("--folder", help="where to work (default: a temporary folder, removed at the end)")
    parser.add_argument("--keep", action="store_true", help="keep the runs")
    return parser.parse_args()


def lives(moments: list[float], startup: float, rng: random.Random) -> list[float]:
    """Seconds that each process lives: up to the next moment, and some of what it needs to start again."""
    gaps = [here - before for before, here in zip([0.0, *moments], moments, strict=False)]
    return [gaps[0], *(gap + rng.uniform(0.2, 1.2) * startup for gap in gaps[1:])]


def start(folder: Path, given: argparse.Namespace) -> subprocess.Popen[str]:
    """The command, in a process group of its own and with a cache of its own."""
    words = ["demo", "--quick", "--out", str(folder), "--threads", str(given.threads)]
    cache = folder.with_name(f"{folder.name}-cache")
    return subprocess.Popen(
        [sys.executable, "-c", START, *words],
        env={**os.environ, "PLAUDIT_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def killed(folder: Path, given: argparse.Namespace, delay: float) -> bool:
    """Kill a process after so long; whether it was still there."""
    process = start(folder, given)
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        end(process)
    return process.returncode == -signal.SIGKILL


def finish(folder: Path, given: argparse.Namespace, *, limit: float) -> float:
    """Let a process run to its end; the seconds it took."""
    begun = time.monotonic()
    process = start(folder, given)
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        end(process)
        raise SystemExit(f"{folder} did not end within {limit} s") from None
    except BaseException:
        end(process)
        raise
    if process.returncode != 0:
        raise SystemExit(f"{folder} ended with {process.returncode}:\n{errors}")
    return time.monotonic() - begun


def seconds_of(words: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begun


def place(folder: Path) -> str:
    """How far a run has come: its stages that are done, and the last step that it logged."""
    lineage = folder / "lineage.json"
    stages = [entry["stage"] for entry in json.loads(lineage.read_text("utf-8"))] if lineage.exists() else []
    lines = (folder / "metrics.jsonl").read_text("utf-8").split("\n") if (folder / "metrics.jsonl").exists() else []
    whole = [line for line in lines if line.endswith("}")]
    last = json.loads(whole[-1]) if whole else {"stage": "no", "step": 0}
    done = f"{stages[-1]} done" if stages else "nothing done"
    return f"{done}, logged {last['stage']} step {last['step']}"


def differences(one: Path, other: Path) -> list[str]:
    """Every file that should be equal and is not."""
    found = [
        str(path.relative_to(one))
        for path in [*(one / name for name in FILES), *(p for name in MODELS for p in sorted((one / name).iterdir()))]
        if not (other / path.relative_to(one)).exists()
        or path.read_bytes() != (other / path.relative_to(one)).read_bytes()
    ]
    if lines(one / "metrics.jsonl") != lines(other / "metrics.jsonl"):
        found.append("metrics.jsonl")
    if steady(json.loads((one / "summary.json").read_text())) != steady(
        json.loads((other / "summary.json").read_text())
    ):
        found.append("summary.json")
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [steady(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def steady(values: dict[str, Any]) -> dict[str, Any]:
    """Without times and memory."""
    return {name: value for name, value in values.items() if not any(part in name for part in VOLATILE)}


def remove(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.rmtree(folder.with_name(f"{folder.name}-cache"), ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
