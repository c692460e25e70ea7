"""Real public data, where it is: beside the repository, or where PLAUDIT_SHARED says. It is never copied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("PLAUDIT_SHARED", _ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; PLAUDIT_SHARED names its parent")
    return folder
