"""Records into a file that `load` reads back equal."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path

from plaudit.errors import RecordError
from plaudit.records import Record

__all__ = ["write_jsonl"]


def write_jsonl(path: str | Path, records: Iterable[Record]) -> int:
    """Write one record a line, gzipped if the name ends in `.gz`; the number of records written.

    The file is written aside and renamed: whoever looks sees the old file or the new one, never half of it. The same
    records give the same bytes.

    Raises:
        RecordError: a text holds half a character (a lone surrogate), which UTF-8 cannot keep.
    """
    path = Path(path)
    lines = [json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    try:
        content = "".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        number = "".join(lines)[: error.start].count("\n") + 1
        raise RecordError(f"{path}: record {number} holds half a character, {error.object[error.start]!a}") from error
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
    return len(lines)
