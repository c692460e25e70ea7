"""Built-in tasks, each with its own texts, hidden taste and simulated annotators."""

from __future__ import annotations

from plaudit.errors import RecipeError
from plaudit.worlds.reviews import ReviewWorld

__all__ = ["WORLDS", "ReviewWorld", "world"]

WORLDS = {"reviews": ReviewWorld}
"""Every built-in world by its name."""


def world(name: str) -> ReviewWorld:
    """The built-in world of that name.

    Raises:
        RecipeError: there is none; the message names those that exist.
    """
    if name not in WORLDS:
        raise RecipeError(f"no built-in world {name!r}; there is: {', '.join(WORLDS)}")
    return WORLDS[name]()
