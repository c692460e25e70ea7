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

from plaudit.recipe import Recipe

__all__ = ["INK", "circumstances", "framed", "once", "quietly"]

INK, GRID = "#59616c", "#e2e5ea"
"""Colours of a picture's words and lines."""


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


def once(folder: Path, recipe: Recipe, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` finds, or what it found before with this recipe: it is kept in the folder."""
    kept, settings = folder / "figures.json", recipe.model_dump(mode="json")
    if not kept.exists():
        with quietly(folder):
            found = measure()
        kept.write_text(json.dumps({"found": found, "settings": settings}), encoding="utf-8")
    before = json.loads(kept.read_text(encoding="utf-8"))
    others = [name for name, value in settings.items() if before["settings"].get(name) != value]
    if others:
        raise SystemExit(f"{folder} was made with another {' and '.join(others)}: take it away to measure again")
    figures: dict[str, float] = before["found"]
    return figures


def framed(axes: Any, x: str, y: str) -> None:
    """The look that the pictures share: labels, lines across, x from 0, no frame but the one below."""
    axes.set_xlim(left=0)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def circumstances(benchmark: str, *packages: str) -> dict[str, Any]:
    """Hardware, versions and command of this process."""
    return {
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", *packages)}},
        "command": " ".join([f"python -m benchmarks.{benchmark}", *sys.argv[1:]]),
    }
