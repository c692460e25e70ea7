"""Rows out of Hugging Face datasets: a folder from `save_to_disk`, a folder of data files, or a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plaudit.errors import RecordError
from plaudit.reading.rows import Problem, Row, needs_extra

__all__ = ["dataset_rows"]

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def dataset_rows(path: str, *, folder: bool, name: str | None, split: str) -> Iterator[Row | Problem]:
    """The rows of one split, with their numbers from 1.

    Raises:
        RecordError: there is no such dataset, configuration or split, or it cannot be read.
    """
    if not folder and not _NAME.fullmatch(path):
        raise RecordError(f"{path}: no such file or folder, and not a name that a dataset could have")
    try:
        import datasets
    except ImportError as error:
        raise needs_extra(path, "datasets") from error
    try:
        if folder and _is_saved(Path(path)):
            table = _saved(path, name, split)
        else:
            table = datasets.load_dataset(path, name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, RecordError):
            raise
        what = "cannot be read as a dataset" if folder else "no such file or folder, nor a dataset to be had"
        asked = f"split {split!r}" if name is None else f"name {name!r}, split {split!r}"
        raise RecordError(f"{path}: {what} ({asked}): {error}") from error
    part = split if name is None else f"{name}, {split}"
    return (Row(f"{path}[{part}] row {number}", dict(row)) for number, row in enumerate(table, 1))


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _saved(path: str, name: str | None, split: str) -> Any:
    import datasets

    if name is not None:
        raise RecordError(f"{path}: name {name!r} is asked for, but a dataset that was saved to disk has no names")
    found = datasets.load_from_disk(path)
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise RecordError(f"{path}: no split {split!r}; there are {', '.join(map(str, found))}")
        return found[split]
    if found.split is not None and str(found.split) != split:
        raise RecordError(f"{path}: no split {split!r}; the folder holds {str(found.split)!r} alone")
    return found
