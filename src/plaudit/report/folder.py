"""Read a run folder as far as it can be read: an interrupted run has files that are missing or torn.

Nothing here fails because of what a file holds. What is not there is named in `RunFolder.absent`, what could
not be read in `RunFolder.notes`, and both are shown in the report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from plaudit.errors import RunError

__all__ = ["FILES", "Note", "Row", "RunFolder", "number", "numbers", "read_folder"]

Row: TypeAlias = dict[str, Any]
"""One JSON object; NaN and the infinities have become None."""

FILES = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "samples.jsonl",
    "evaluation.jsonl",
    "reward-model/evaluation.json",
    "lineage.json",
    "summary.json",
)
"""What the report reads, by name inside the run folder."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that could not be read: a file, the line (0: the whole file), and why."""

    file: str
    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """What a run folder holds; an absent file reads as an empty one."""

    path: Path
    recipe: Row
    recipe_text: str
    environment: Row
    metrics: tuple[Row, ...]
    samples: tuple[Row, ...]
    evaluation: tuple[Row, ...]
    reward_model: Row
    lineage: tuple[Row, ...]
    summary: Row
    absent: tuple[str, ...]
    notes: tuple[Note, ...]

    @property
    def trains_reward(self) -> bool:
        """Whether there is a reward model to speak of: the recipe trains one, or says nothing, or one is there."""
        return bool(self.reward_model) or _trains_reward(self.recipe)


def _trains_reward(recipe: Row) -> bool:
    return recipe.get("reward", recipe) is not None


def read_folder(path: Path) -> RunFolder:
    """Read every file of the contract that is there.

    Raises:
        RunError: there is no such folder.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder")
    reader = _Reader(path)
    recipe_text = reader.text("config.yaml")
    environment = reader.table("environment.json")
    metrics = reader.lines("metrics.jsonl")
    samples = reader.lines("samples.jsonl")
    evaluation = reader.lines("evaluation.jsonl")
    reward_model = reader.table("reward-model/evaluation.json")
    lineage = reader.rows("lineage.json")
    summary = reader.table("summary.json")
    recipe = reader.yaml("config.yaml", recipe_text)
    return RunFolder(
        path=path,
        recipe=recipe,
        recipe_text=recipe_text,
        environment=environment,
        metrics=_last_of_each_step(metrics),
        samples=samples,
        evaluation=evaluation,
        reward_model=reward_model,
        lineage=lineage,
        summary=summary,
        absent=tuple(
            name for name in reader.absent if _trains_reward(recipe) or name != "reward-model/evaluation.json"
        ),
        notes=tuple(reader.notes),
    )


def number(value: object) -> float | None:
    """`value` as a finite float, or None where it is something else; a bool is something else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, by name."""
    found = {name: number(value) for name, value in row.items()}
    return {name: value for name, value in found.items() if value is not None}


def _last_of_each_step(metrics: tuple[Row, ...]) -> tuple[Row, ...]:
    """A resumed run may repeat steps: the later line is the one that counts. Rows come in order of stage, then step."""
    latest: dict[tuple[str, float], Row] = {}
    stages: dict[str, int] = {}
    for row in metrics:
        step = number(row.get("step"))
        if step is None:
            continue
        stage = str(row.get("stage", ""))
        stages.setdefault(stage, len(stages))
        held = latest.get((stage, step), {})
        latest[stage, step] = {**held, **row}
    return tuple(row for _, row in sorted(latest.items(), key=lambda item: (stages[item[0][0]], item[0][1])))


class _Reader:
    """Reads files of one folder and keeps what went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.absent: list[str] = []
        self.notes: list[Note] = []

    def text(self, name: str) -> str:
        """The file's text, or nothing."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self.absent.append(name)
            return ""
        except OSError as error:
            self.notes.append(Note(name, 0, error.strerror or type(error).__name__))
            return ""
        return data.decode("utf-8", errors="replace").removeprefix("\ufeff")

    def table(self, name: str) -> Row:
        """A JSON file that holds an object."""
        value = self._json(name)
        if value is None or isinstance(value, dict):
            return value or {}
        self.notes.append(Note(name, 0, f"expected an object, found a {type(value).__name__}"))
        return {}

    def rows(self, name: str) -> tuple[Row, ...]:
        """A JSON file that holds a list of objects."""
        value = self._json(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.notes.append(Note(name, 0, f"expected a list, found a {type(value).__name__}"))
            return ()
        return tuple(row for row in value if isinstance(row, dict))

    def lines(self, name: str) -> tuple[Row, ...]:
        """A file with one JSON object a line; a line that is none is left out and noted."""
        found: list[Row] = []
        for index, line in enumerate(self.text(name).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = _parse(line)
            except (ValueError, RecursionError) as error:
                self.notes.append(Note(name, index, _reason(error)))
                continue
            if isinstance(row, dict):
                found.append(row)
            else:
                self.notes.append(Note(name, index, f"expected an object, found a {type(row).__name__}"))
        return tuple(found)

    def yaml(self, name: str, text: str) -> Row:
        """The text of a YAML file as an object."""
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.notes.append(Note(name, 0, _reason(error)))
            return {}
        return value if isinstance(value, dict) else {}

    def _json(self, name: str) -> Any:
        text = self.text(name)
        if not text.strip():
            return None
        try:
            return _parse(text)
        except (ValueError, RecursionError) as error:
            self.notes.append(Note(name, 0, _reason(error)))
            return None


def _parse(text: str) -> Any:
    return _finite(json.loads(text, parse_constant=lambda _: None))


def _finite(value: Any) -> Any:
    """`value` with each number that no float can hold, such as 1e999, made None."""
    if isinstance(value, int | float):
        return value if isinstance(value, bool) or number(value) is not None else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return str(error).split("\n")[0] or type(error).__name__
