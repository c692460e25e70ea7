"""What the long benchmarks share: silence while they run, and what was measured where."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["circumstances", "quietly"]


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


def circumstances(benchmark: str, *packages: str) -> dict[str, Any]:
    """Hardware, versions and command of this process."""
    return {
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", *packages)}},
        "command": " ".join([f"python -m benchmarks.{benchmark}", *sys.argv[1:]]),
    }
