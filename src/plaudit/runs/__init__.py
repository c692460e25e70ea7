"""The run folder and the trackers beside it."""

from plaudit.runs.folder import Checkpoint, Run, read_json, recipe_around, write_json

__all__ = ["Checkpoint", "Run", "read_json", "recipe_around", "write_json"]
