"""Rows out of files, each with its place, so that an error can name the line.

| file | a row is |
|---|---|
| `.jsonl` | a line; blank lines are skipped |
| `.json` | an element of the list, or of the one list of objects inside the object; one object a line is read too |
| `.csv` | a record under the header; quoted fields may span lines; every value is a text |
| `.parquet` | a row |
| `.txt` | a document: see `Unit` |
| a folder, a dataset's name | a row of that split of the Hugging Face dataset |

Each may also end in `.gz`. Texts are UTF-8, with or without a byte-order mark, and are never changed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, cast

from plaudit.errors import RecordError
from plaudit.reading.hub import dataset_rows
from plaudit.reading.rows import Problem, Row, needs_extra

__all__ = ["Unit", "read_rows"]

Unit = Literal["auto", "lines", "paragraphs", "whole"]
"""Documents of a `.txt` file: one a line, between blank lines, or the whole file. `auto` takes paragraphs
where the file has a blank line between texts, and lines where it has none."""


def read_rows(
    path: str | Path, *, name: str | None = None, split: str = "train", unit: Unit = "auto"
) -> Iterator[Row | Problem]:
    """The rows of a file, a dataset folder or a named Hugging Face dataset, in order, bad ones as problems.

    Args:
        path: a file with a suffix that is known, a folder, or a dataset's name.
        name: which configuration of a dataset; a file has none.
        split: which split of a dataset; a file has none.
        unit: what a document of a `.txt` file is.

    Raises:
        RecordError: no such file, no such split, or an unknown suffix.
    """
    file = Path(path).expanduser()
    suffix = _suffix(file)
    if file.is_dir() or (suffix not in _READERS and not file.exists()):
        return dataset_rows(str(file if file.is_dir() else path), folder=file.is_dir(), name=name, split=split)
    if not file.exists():
        raise RecordError(f"{path}: no such file")
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise RecordError(f"{path}: unknown suffix {suffix or '(none)'}; known are {known}, each also .gz")
    for what, asked in (("name", name), ("split", None if split == "train" else split)):
        if asked is not None:
            raise RecordError(f"{path}: {what} {asked!r} is asked for, but a file has no {what}s")
    return _guarded(_READERS[suffix](file, unit))


class _BrokenError(Exception):
    """The file cannot be read on from here: (place, text)."""


def _guarded(rows: Iterator[Row | Problem]) -> Iterator[Row | Problem]:
    try:
        yield from rows
    except _BrokenError as broken:
        place, text = broken.args
        yield Problem(place, text)


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _open(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines as bytes, so that a bad one spoils no other; only `\\n` ends a line, never U+2028."""
    number = 0
    with _open(path) as file:
        try:
            for number, line in enumerate(file, 1):
                yield number, line
        except _DAMAGED as error:
            raise _BrokenError(f"{path}:{number + 1}", f"the gzip data is damaged or cut off here: {error}") from error


def _bytes(path: Path) -> bytes:
    return b"".join(line for _, line in _lines(path))


def _text(path: Path) -> str:
    content = _bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _BrokenError(f"{path}:{line}", _not_utf8(error)) from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (found byte 0x{error.object[error.start]:02x})"


# JSON


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE = re.compile(r"[ \t\n\r]*")


def _read_jsonl(path: Path, _: Unit) -> Iterator[Row | Problem]:
    for number, line in _lines(path):
        place = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
            if text:
                yield Row(place, _DECODER.decode(text))
        except UnicodeDecodeError as error:
            yield Problem(place, _not_utf8(error))
        except json.JSONDecodeError as error:
            yield Problem(place, f"not JSON: {error.msg} at character {error.colno} (found {text:.60})")
        except (ValueError, RecursionError) as error:
            yield Problem(place, f"not JSON: {error}")


def _read_json(path: Path, unit: Unit) -> Iterator[Row | Problem]:
    text = _text(path)
    start = _skip_space(text, 0)
    if start == len(text):
        return
    if text[start] == "[":
        yield from _elements(path, text, start + 1)
        return
    value, end = _value(path, text, start)
    if _skip_space(text, end) < len(text):  # one object a line: JSONL under another name
        yield from _read_jsonl(path, unit)
        return
    inside = _only_list(value)
    if inside is None:
        found = f"an object with {', '.join(value)}" if isinstance(value, dict) else f"{value!r:.40}"
        raise _BrokenError(f"{path}:1", f"needs a list of rows, or an object with one list of objects (found {found})")
    yield from (Row(f"{path} row {number}", element) for number, element in enumerate(inside, 1))


def _elements(path: Path, text: str, position: int) -> Iterator[Row]:
    """The elements of a list, one by one, each at the line where it begins; by their number where they share it."""
    line, counted, number, before = 1, 0, 0, 0
    position = _skip_space(text, position)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, position = _value(path, text, position, line)
        number += 1
        yield Row(f"{path}:{line} row {number}" if line == before else f"{path}:{line}", value)
        before = line
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            line += text.count("\n", counted, position)
            found = text[position : position + 20] or "the end of the file"
            raise _BrokenError(f"{path}:{line}", f"not JSON: a comma or ] is needed here (found {found})")
    rest = _skip_space(text, position + 1)
    if rest < len(text):
        line = text.count("\n", 0, rest) + 1
        raise _BrokenError(f"{path}:{line}", f"not JSON: the list has ended (found {text[rest : rest + 20]})")


def _value(path: Path, text: str, position: int, line: int = 1) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        found = text[error.pos : error.pos + 20] or "the end of the file"
        raise _BrokenError(f"{path}:{error.lineno}", f"not JSON: {error.msg} (found {found})") from error
    except (ValueError, RecursionError) as error:
        raise _BrokenError(f"{path}:{line}", f"not JSON: {error}") from error


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _only_list(value: object) -> list[Any] | None:
    if not isinstance(value, Mapping):
        return None
    lists = [inner for inner in value.values() if isinstance(inner, list)]
    rows = [inner for inner in lists if inner and all(isinstance(row, Mapping) for row in inner)]
    return rows[0] if len(rows) == 1 else None


# CSV, Parquet, plain text


def _read_csv(path: Path, _: Unit) -> Iterator[Row | Problem]:
    text = _text(path)
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses texts over 128 KiB
    try:
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        yield from _records(path, table)
    finally:
        csv.field_size_limit(limit)


def _records(path: Path, table: Any) -> Iterator[Row | Problem]:
    header: list[str] | None = None
    line = 1
    try:
        for cells in table:
            place, line = f"{path}:{line}", table.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise _BrokenError(place, f"two columns have one name (found {', '.join(header)})")
            elif len(cells) == len(header):
                yield Row(place, dict(zip(header, cells, strict=True)))
            else:
                names = ", ".join(header)
                yield Problem(place, f"{len(header)} fields are needed, {names} (found {len(cells)})")
    except csv.Error as error:
        raise _BrokenError(f"{path}:{line}", f"not CSV from here on: {error}") from error


def _read_parquet(path: Path, _: Unit) -> Iterator[Row | Problem]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise needs_extra(path, "pyarrow") from error

    source = io.BytesIO(_bytes(path)) if path.name.lower().endswith(".gz") else path
    number = 0
    try:
        with pq.ParquetFile(source) as table:
            for batch in table.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", value)
    except (pa.ArrowException, OSError) as error:
        raise _BrokenError(f"{path} row {number + 1}", f"not Parquet: {error}") from error


def _read_txt(path: Path, unit: Unit) -> Iterator[Row | Problem]:
    lines = _text(path).replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if unit == "auto":
        first = next((number for number, line in enumerate(lines) if line.strip()), 0)
        unit = "lines" if all(line.strip() for line in lines[first:]) else "paragraphs"
    if unit == "whole":
        if lines:
            yield Row(f"{path}:1", "\n".join(lines))
    elif unit == "lines":
        yield from (Row(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
    else:
        yield from _paragraphs(path, lines)


def _paragraphs(path: Path, lines: Sequence[str]) -> Iterator[Row]:
    begun = 0
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            begun = begun or number
        elif begun:
            yield Row(f"{path}:{begun}", "\n".join(lines[begun - 1 : number - 1]))
            begun = 0


_READERS: dict[str, Callable[[Path, Unit], Iterator[Row | Problem]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
