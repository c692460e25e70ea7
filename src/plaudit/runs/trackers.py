"""Trackers: metrics to TensorBoard, Weights & Biases or trackio, besides the run folder.

Each is an optional package that is imported when a recipe asks for it. None needs a network: TensorBoard writes into
the run folder, trackio onto this machine's disk, and W&B works offline unless WANDB_MODE says otherwise
(`wandb sync` sends such a run later). The run folder stays the truth; a tracker never decides anything.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from plaudit.errors import RecipeError
from plaudit.recipe import Tracking

__all__ = ["TensorBoard", "Tracker", "Trackers", "Trackio", "WeightsAndBiases", "open_trackers"]


class Tracker(Protocol):
    """Takes the numbers of a step."""

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of one step; each stage counts its own steps."""

    def close(self) -> None:
        """Write what is not yet written. Nothing is logged afterwards."""


class Trackers:
    """Several trackers as one, or none; a context manager that closes them.

    They open at the first step that is logged, so that a run which has nothing left to do leaves no trace in them.
    """

    def __init__(self, openers: Sequence[Callable[[], Tracker]] = ()) -> None:
        self._openers = tuple(openers)
        self._open: tuple[Tracker, ...] | None = None

    def __len__(self) -> int:
        return len(self._openers)

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the metrics of one step on to all."""
        if self._open is None:
            self._open = tuple(opener() for opener in self._openers)
        for tracker in self._open:
            tracker.log(stage, step, metrics)

    def close(self) -> None:
        """Close all."""
        for tracker in self._open or ():
            tracker.close()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_trackers(tracking: Tracking, folder: Path) -> Trackers:
    """The trackers that a recipe asks for.

    Args:
        tracking: Which, and under what project.
        folder: The run folder; its name is the run's name, and its `config.yaml` goes to those that keep settings.

    Raises:
        RecipeError: A package is not installed; names the extra that brings it.
    """
    for name in tracking.to:
        _needs(name)
    return Trackers([functools.partial(_KINDS[name], tracking.project, folder) for name in tracking.to])


class TensorBoard:
    """Event files in RUN/tensorboard/STAGE, for `tensorboard --logdir RUN/tensorboard`.

    A folder for each stage, since each counts its own steps: when a stage resumes, TensorBoard can then drop the
    steps that are made again without touching another stage's.
    """

    def __init__(self, project: str, folder: Path) -> None:
        del project
        _needs("tensorboard")
        self._writer: Callable[..., Any] = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._folder = folder / "tensorboard"
        self._stages: dict[str, Any] = {}

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to the curve of each metric."""
        if stage not in self._stages:
            self._stages[stage] = self._writer(str(self._folder / stage), purge_step=step)
        for name, value in metrics.items():
            self._stages[stage].add_scalar(_full(stage, name), value, step)

    def close(self) -> None:
        """Flush and close the event files."""
        for writer in self._stages.values():
            writer.close()


class WeightsAndBiases:
    """A W&B run with the run folder's name; started again in the same folder, it goes on."""

    def __init__(self, project: str, folder: Path) -> None:
        wandb = _needs("wandb")
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=_own_id(folder),
            resume="allow",
            dir=str(folder),
            config=_settings(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        self._stages: set[str] = set()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics over the stage's own steps."""
        axis = f"{stage}/step"
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(axis)
            self._run.define_metric(f"{stage}/*", step_metric=axis)
        self._run.log({axis: step, **{_full(stage, name): value for name, value in metrics.items()}})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A trackio run named after the run folder, on this machine's disk; `trackio show` opens its page."""

    def __init__(self, project: str, folder: Path) -> None:
        trackio = _needs("trackio")
        with contextlib.redirect_stdout(io.StringIO()):  # it greets at length
            self._run = trackio.init(
                project=project,
                name=f"{folder.name}-{_own_id(folder)}",
                config=_settings(folder),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics at the stage's step."""
        self._run.log({_full(stage, name): value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


_KINDS: dict[str, Callable[[str, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def _needs(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise RecipeError(
            f"tracking.to: {package} cannot be imported ({error}); install it with `pip install 'plaudit[{package}]'`"
        ) from error


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return settings


def _full(stage: str, name: str) -> str:
    return name if "/" in name else f"{stage}/{name}"


def _own_id(folder: Path) -> str:
    # Kept in the run folder: a run that resumes is the same run, one that starts afresh is another.
    kept = folder / "tracking-id"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return kept.read_text(encoding="utf-8")
