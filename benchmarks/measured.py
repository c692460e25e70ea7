"""What the long benchmarks share: silence while they run, and what was measured where."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["circumstances", "once", "quietly"]


@contextlib.contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """One thread, and what a run says goes into a file beside its folder."""
    torch.set_num_threads(1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        folder.with_name(f"{folder.name}.log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stderr(log),
        contextlib.redirect_stdout(log),
    ):
        yield


def once(folder: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` finds, or what it found before: it is kept in the folder."""
    kept = folder / "figures.json"
    if not kept.exists():
        with quietly(folder):
            found = measure()
        kept.write_text(json.dumps(found), encoding="utf-8")
    figures: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return figures


def circumstances(benchmark: str, *packages: str) -> dict[str, Any]:
    """Hardware, versions and command of this process."""
    return {
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", *packages)}},
        "command": " ".join([f"python -m benchmarks.{benchmark}", *sys.argv[1:]]),
    }
