"""Where the built-in model is kept between runs: the user's cache folder, or PLAUDIT_CACHE."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch

from plaudit import __version__
from plaudit.models.load import Machine
from plaudit.recipe import Recipe
from plaudit.worlds import world

__all__ = ["builtin_folder", "cache_folder", "keep_builtin", "take_builtin"]


def cache_folder() -> Path:
    """`PLAUDIT_CACHE`, or the platform's cache folder."""
    given = os.environ.get("PLAUDIT_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "plaudit"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "plaudit"


def builtin_folder(recipe: Recipe, machine: Machine) -> Path:
    """The built-in model's place: one for each way of training it, so that taking it changes no bit."""
    assert recipe.language is not None
    assert recipe.world is not None
    what = {
        "version": __version__,
        "torch": torch.__version__,
        "optimiser": "AdamW, fused",
        "machine": machine.describe(),
        "threads": torch.get_num_threads(),
        "micro_tokens": recipe.micro_tokens,
        "world": recipe.world.name,
        "texts": world(recipe.world.name).corpus(100, 0),  # another grammar writes others
        "documents": recipe.world.documents,
        "language": recipe.language.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / f"{recipe.world.name}-{digest}"


def keep_builtin(model: Path, place: Path) -> None:
    """Copy a trained model to its place, aside and then renamed; a cache that cannot be written is no error."""
    aside = place.with_name(f"{place.name}.{os.getpid()}.writing")
    try:
        shutil.copytree(model, aside)
        aside.rename(place)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)


def take_builtin(place: Path, target: Path) -> None:
    """Copy a kept model into a run, aside and then renamed."""
    aside = target.with_name(f"{target.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(place, aside)
    aside.rename(target)
