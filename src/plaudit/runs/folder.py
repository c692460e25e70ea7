"""The run folder: what a person can read afterwards, and what an interrupted run goes on from.

Everything that is replaced is written aside and renamed, so that a process killed at any moment leaves either the
old state or the new one. Logs are only appended to; going on from a checkpoint cuts off what came after it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from plaudit.errors import RecipeError, RunError
from plaudit.recipe import Recipe, load_recipe, recipe_from
from plaudit.runs.trackers import Tracker

__all__ = ["MADE", "Checkpoint", "Run", "read_json", "recipe_around", "reporting_full_disk", "write_json"]

MADE = (
    "summary.json",
    "lineage.json",
    "checkpoints",
    "metrics.jsonl",
    "samples.jsonl",
    "judgements.jsonl",
    "language",
    "sft",
    "reward-model",
    "policy",
    "evaluation.jsonl",
    "evaluation.json",
    "report.html",
    "tensorboard",
    "tracking-id",
    "environment.json",
    "config.yaml",
)
"""Everything that a run writes into its folder, in the order in which `fresh` deletes it."""


def write_json(path: Path, value: object) -> None:
    """Write JSON aside and rename it."""
    aside = path.with_name(path.name + ".writing")
    aside.write_text(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    aside.rename(path)


def read_json(path: Path) -> Any:
    """Read JSON back.

    Raises:
        RunError: it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


class Checkpoint:
    """A saved moment of a stage: its folder, the step to go on with, and small state as JSON values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        saved = read_json(folder / "state.json")
        self.step: int = saved["step"]
        self.seconds: float = saved["seconds"]
        self.state: dict[str, Any] = saved["state"]


class Run:
    """One run folder, opened by one process at a time.

    Args:
        folder: where the run is kept; made if it is not there.
        recipe: what is to be run.
        trackers: where metrics go besides `metrics.jsonl`.
        fresh: drop the run that is there, and nothing else that stands in the folder.

    Raises:
        RunError: the folder belongs to another recipe or to something that is no run, or another process works in it.
    """

    def __init__(self, folder: Path, recipe: Recipe, trackers: Sequence[Tracker] = (), *, fresh: bool = False) -> None:
        self.folder = folder
        self.trackers = tuple(trackers)
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file: a run needs a folder")
        self._refuse_strangers()
        with reporting_full_disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            try:
                if fresh:
                    self._empty()
                self._keep_recipe(recipe)
            except BaseException:
                self._unlock()
                raise

    def _refuse_strangers(self) -> None:
        """A folder that no run has made keeps what stands in it, even under a name that a run would write."""
        if not self.folder.exists():
            return
        path = self.folder / "config.yaml"
        if not path.exists():
            there = [name for name in MADE if (self.folder / name).exists()]
            if there:
                raise RunError(
                    f"{self.folder} is not a run folder (it has no config.yaml), but holds {', '.join(there)}, which a "
                    "run would write over: choose another --out"
                )
        elif not _is_recipe(path):
            raise RunError(f"{path} is not the recipe of a run: choose another --out")

    def _empty(self) -> None:
        """Delete what a run makes, the recipe last: until then the folder is that of an unfinished run."""
        for name in MADE:
            for path in (self.folder / name, *self.folder.glob(f"{name}.writing"), *self.folder.glob(f".{name}.*")):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Hold an advisory lock for as long as the process lives; the system lets go of it whatever happens."""
        try:
            import fcntl  # not on Windows, where two processes are not kept apart
        except ImportError:
            return
        self._held = (self.folder / ".lock").open("a", encoding="utf-8")  # "w" would touch a finished run
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another process is working in {self.folder}: wait for it, or choose another --out"
            ) from error

    def close(self) -> None:
        """Let go of the folder and end the trackers."""
        for tracker in self.trackers:
            tracker.close()
        self._unlock()

    def _unlock(self) -> None:
        if hasattr(self, "_held"):
            self._held.close()

    def _keep_recipe(self, recipe: Recipe) -> None:
        path = self.folder / "config.yaml"
        now = recipe.model_dump(mode="json")
        if not path.exists():
            aside = path.with_name("config.yaml.writing")
            aside.write_text(yaml.safe_dump(now, sort_keys=False, allow_unicode=True), encoding="utf-8")
            aside.rename(path)
            return
        before = _as_now(yaml.safe_load(path.read_text(encoding="utf-8")))
        changed = list(_differences(before, now))
        if changed and not any((self.folder / name).exists() for name in ("lineage.json", "metrics.jsonl")):
            path.unlink()  # it failed before anything was done: nothing is lost by another recipe
            (self.folder / "environment.json").unlink(missing_ok=True)
            self._keep_recipe(recipe)
        elif changed:
            raise RunError(
                f"{self.folder} was started with another recipe: {'; '.join(changed)}. "
                "Run that one, choose another --out, or start over with --fresh"
            )

    def keep_environment(self, **facts: object) -> None:
        """Write `environment.json` once: versions, hardware, and what the caller knows."""
        path = self.folder / "environment.json"
        if path.exists():
            return
        packages = ("plaudit", "torch", "transformers", "tokenizers", "peft", "numpy", "safetensors")
        write_json(
            path,
            {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "processor": _processor(),
                "cores": os.cpu_count(),
                "packages": {name: _version(name) for name in packages},
                **facts,
            },
        )

    # --- logs -------------------------------------------------------------------------------------------------

    def log(self, stage: str, step: int, metrics: Mapping[str, float], *, seconds: float) -> None:
        """Append one step's metrics; one that is not a finite number is left out, because JSON has no word for it."""
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        line = {"stage": stage, "step": step, "seconds": round(seconds, 4), **metrics}
        self._append("metrics.jsonl", [line])
        for tracker in self.trackers:
            tracker.log(stage, step, metrics)

    def keep_samples(self, stage: str, step: int, samples: Sequence[Mapping[str, object]]) -> None:
        """Append answers for people to read."""
        self._append("samples.jsonl", [{"stage": stage, "step": step, **sample} for sample in samples])

    def _append(self, name: str, lines: Sequence[Mapping[str, object]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with reporting_full_disk(self.folder), (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def rewind(self, stage: str, step: int) -> None:
        """Drop what the logs say of this stage from this step on, and a last line that was cut off."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.folder / name
            if not path.exists():
                continue
            kept = []
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # no other line ends
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry["stage"] != stage or entry["step"] < step:
                    kept.append(line + "\n")
            aside = path.with_name(name + ".writing")
            aside.write_text("".join(kept), encoding="utf-8")
            aside.rename(path)

    # --- checkpoints ------------------------------------------------------------------------------------------

    def save(
        self, stage: str, step: int, write: Callable[[Path], None], state: Mapping[str, Any], *, seconds: float
    ) -> None:
        """Keep a checkpoint and drop the one before it.

        Args:
            write: puts weights and optimiser state into the folder it is given.
            state: JSON values that the stage needs to go on.
            seconds: spent in the stage so far.
        """
        place = self.folder / "checkpoints" / stage
        target, aside = place / f"{step:06d}", place / f"{step:06d}.writing"
        with reporting_full_disk(self.folder):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            write(aside)
            write_json(aside / "state.json", {"step": step, "seconds": seconds, "state": state})
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
        for old in place.iterdir():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def latest(self, stage: str) -> Checkpoint | None:
        """The checkpoint to go on from, if there is one."""
        place = self.folder / "checkpoints" / stage
        whole = sorted(path for path in place.glob("[0-9]*") if path.suffix != ".writing") if place.exists() else []
        return Checkpoint(whole[-1]) if whole else None

    # --- stages -----------------------------------------------------------------------------------------------

    def stages(self) -> list[dict[str, Any]]:
        """What came from what, so far: the lines of `lineage.json`."""
        path = self.folder / "lineage.json"
        return list(read_json(path)) if path.exists() else []

    def finished(self, stage: str) -> bool:
        """Whether the stage ended in this run."""
        return any(entry["stage"] == stage for entry in self.stages())

    def finish(self, stage: str, artifact: str, sources: Sequence[str], *, seconds: float, cpu_seconds: float) -> None:
        """Note that the stage ended and drop its checkpoints; whatever it made must be in place by now."""
        entry = {
            "artifact": artifact,
            "stage": stage,
            "from": list(sources),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
        }
        write_json(self.folder / "lineage.json", [*self.stages(), entry])
        shutil.rmtree(self.folder / "checkpoints" / stage, ignore_errors=True)

    def forget(self, stage: str) -> None:
        """Take a stage's line out of the lineage, so that it can be done again."""
        write_json(self.folder / "lineage.json", [entry for entry in self.stages() if entry["stage"] != stage])

    def summary(self) -> dict[str, Any] | None:
        """The table of a finished run, or None while it is not finished."""
        path = self.folder / "summary.json"
        return dict(read_json(path)) if path.exists() else None


@contextmanager
def reporting_full_disk(folder: Path) -> Iterator[None]:
    """Turn "no space left" into one clear error; the state before it stays as it was.

    Raises:
        RunError: the disk is full, or a quota or a limit on the size of files is reached.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _errno(str(error))
        if number == errno.EFBIG:
            raise RunError(
                f"a file in {folder} reached the size that this system allows (`ulimit -f` and the kind of disk say "
                "how much): allow more and start the same command again"
            ) from error
        if number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free
        raise RunError(
            f"the disk of {folder} is full ({free / 2**20:.0f} MiB free): make room and start the same command again"
        ) from error


def recipe_around(model: Path) -> Recipe | None:
    """The recipe of the run that a model is in, or a member of several; nothing where it is in none."""
    path = Path(os.path.abspath(model))  # links stay: what a link's own folder says counts
    for run in (path.parent, path.parent.parent):
        if (run / "config.yaml").exists() and (run / "lineage.json").exists():
            return load_recipe(run / "config.yaml")
    return None


def _errno(message: str) -> int | None:
    """The number that safetensors puts into its words: `... (os error 28)`."""
    found = re.search(r"\(os error (\d+)\)", message)
    return int(found[1]) if found else None


def _as_now(kept: dict[str, Any]) -> dict[str, Any]:
    """A kept recipe with the settings that this version has beside it, at their defaults; as it is if it has others."""
    try:
        return recipe_from(kept).model_dump(mode="json")
    except RecipeError:
        return kept


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield f"{name} was {before!r} and is {now!r}"


def _is_recipe(path: Path) -> bool:
    """Whether a run has written this file: it then holds every setting, so all that every version knows."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(given, dict) and {"seed", "model", "data", "evaluate"} <= given.keys()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
