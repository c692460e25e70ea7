"""Records into a file that `load` reads back equal."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plaudit.errors import RecordError
from plaudit.records import Record

__all__ = ["check_lines_file", "write_bytes", "write_jsonl", "write_lines"]

OTHER_FORMATS = (".csv", ".tsv", ".parquet", ".txt")


def write_jsonl(path: str | Path, records: Iterable[Record]) -> int:
    """Write one record a line, gzipped if the name ends in `.gz`; the number of records written.

    The file is written aside and renamed: whoever looks sees the old file or the new one, never half of it. The same
    records give the same bytes.

    Raises:
        RecordError: a text holds half a character (a lone surrogate), which UTF-8 cannot keep.
    """
    return write_lines(path, (record.to_json() for record in records))


def write_lines(path: str | Path, values: Iterable[Mapping[str, Any]]) -> int:
    """`write_jsonl` of plain JSON values."""
    path = Path(path)
    lines = [json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values]
    try:
        content = "".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        number = "".join(lines)[: error.start].count("\n") + 1
        raise RecordError(f"{path}: record {number} holds half a character, {error.object[error.start]!a}") from error
    write_bytes(path, content)
    return len(lines)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside and rename it, gzipped if its name ends in `.gz`."""
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_lines_file(path: Path, *read: Path) -> None:
    """Refuse a file that lines of JSON cannot be written to, before there is work to lose.

    Args:
        path: the file to write; its folder is made.
        read: files that the work reads, which it must not write over.

    Raises:
        RecordError: it is one of those, a folder or of another format, or it cannot be written there.
    """
    if any(path.resolve() == one.resolve() for one in read):
        raise RecordError(f"{path} is the file that is read: name another to write")
    if path.is_dir():
        raise RecordError(f"{path} is a folder: name a file to write")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in OTHER_FORMATS:
        raise RecordError(
            f"{path}: what is written are JSON lines, which a {suffix} file does not hold: name it .jsonl"
        )
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror}") from error
