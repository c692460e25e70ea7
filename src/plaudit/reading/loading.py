"""Sources into records of one kind: rows, shuffled and limited, recognised, converted, mixed, and split in two."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar, get_args, overload

from pydantic import ValidationError

from plaudit.errors import RecordError, TextError
from plaudit.reading.fields import Fields
from plaudit.reading.files import Unit, read_rows
from plaudit.reading.formats import COLUMNS, Format, find_format, recognise, renamed
from plaudit.reading.kinds import AnyRecord, Kind, as_kind, prompt_of, raw_text
from plaudit.reading.rows import Problem, Row, listing
from plaudit.recipe import Source
from plaudit.records import Demonstration, Document, Judgement, Prompt, Record, Scores, describe

__all__ = ["Reading", "SplitText", "held_out", "load", "read_source"]

SplitText = Callable[[str, int], tuple[str, str]]
"""`split_text(text, n)` gives the text's first n tokens and the rest, as texts that join to the whole."""

_UNITS: Mapping[str, Unit] = {"lines": "lines", "paragraphs": "paragraphs", "whole": "whole"}
_LOOK_AT = 100  # rows by which a format is recognised

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source gave."""

    format: str
    """The format's name, or nothing where none was recognised."""
    rows: int
    """Rows that were looked at, bad ones included."""
    records: tuple[tuple[str, AnyRecord], ...]
    """Each with the place it came from."""
    problems: tuple[Problem, ...]


@overload
def load(
    sources: Sequence[Source], kind: Literal["documents"], *, seed: int, split_text: SplitText | None = None
) -> list[Document]: ...
@overload
def load(
    sources: Sequence[Source], kind: Literal["prompts"], *, seed: int, split_text: SplitText | None = None
) -> list[Prompt]: ...
@overload
def load(
    sources: Sequence[Source], kind: Literal["demonstrations"], *, seed: int, split_text: SplitText | None = None
) -> list[Demonstration]: ...
@overload
def load(
    sources: Sequence[Source], kind: Literal["judgements"], *, seed: int, split_text: SplitText | None = None
) -> list[Judgement]: ...


def load(sources: Sequence[Source], kind: Kind, *, seed: int, split_text: SplitText | None = None) -> Any:
    """The records of one kind that the sources hold.

    A source's rows are shuffled if it says so (by `seed` and its place among the sources), then limited, then read.
    Rows of another kind are converted where that loses no meaning (see `plaudit.reading.kinds.as_kind`).

    Several sources are mixed and spread evenly, so that any stretch holds each in its share:

    * all weights equal: every record of every source, once.
    * weights differ: source i gives n_i records with n_i in proportion to its weight, as many as there can be without
      taking one twice; so the source that is smallest for its weight is used whole and the others are cut. The first
      n_i in the source's order are taken; set `shuffle` to have them drawn.

    Prompts with one id are one prompt: `kind="prompts"` gives each once, the first.

    Args:
        sources: what to read, at least one.
        kind: what the records shall be.
        seed: fixes every shuffle.
        split_text: cuts a text at a number of tokens; needed by a source with `prompt_tokens`.

    Raises:
        RecordError: lists the bad rows of all sources (the first twenty), each with file, line and field.
    """
    if not sources:
        raise RecordError(f"no source to read {kind} from")
    if kind not in get_args(Kind):
        raise RecordError(f"unknown kind {kind!r}; known are {', '.join(get_args(Kind))}")
    readings = [
        read_source(source, kind, seed=seed, index=index, split_text=split_text) for index, source in enumerate(sources)
    ]
    placed = list(itertools.chain.from_iterable(reading.records for reading in readings))
    problems = [problem for reading in readings for problem in reading.problems]
    problems += conflicts(placed)
    if problems:
        rows = sum(reading.rows for reading in readings)
        raise RecordError(f"cannot read {kind}, {len(problems)} problems in {rows} rows:\n{listing(problems)}")
    parts = [[record for _, record in reading.records] for reading in readings]
    for source, part in zip(sources, parts, strict=True):
        if not part:
            raise RecordError(f"{source.path}: no row gives {kind}")
    return _distinct(_mix(parts, [source.weight for source in sources]))


def read_source(
    source: Source, kind: Kind | None, *, seed: int = 0, index: int = 0, split_text: SplitText | None = None
) -> Reading:
    """What one source gives, bad rows as problems; `kind=None` leaves each record the kind that it is.

    Raises:
        RecordError: there is no such file, or a setting of the source makes no sense.
    """
    _check_settings(source, kind, split_text)
    items = list(_items(source))
    rows = [item for item in items if isinstance(item, Row)]
    problems = [item for item in items if isinstance(item, Problem)]
    if source.shuffle:
        random.Random(f"{seed}/{index}").shuffle(rows)
        rows = rows[: source.limit]
    total = len(rows) + len(problems)
    try:
        fields = fields_of(source, rows)
        chosen = _format(source, fields)
    except RecordError as error:
        problems.insert(0, Problem(source.path, str(error)))
        return Reading(format="", rows=total, records=(), problems=tuple(problems))
    records: list[tuple[str, AnyRecord]] = []
    for row, field in zip(rows, fields, strict=True):
        try:
            made = [_as_wanted(record, kind, source, split_text) for record in chosen.read(field)]
        except ValidationError as error:
            problems.append(Problem(row.place, _in_your_words(describe(error), source)))
        except (RecordError, TextError) as error:
            problems.append(Problem(row.place, _in_your_words(str(error), source)))
        else:
            records += [(row.place, record) for record in made if record is not None]
    order = {item.place: number for number, item in enumerate(items)}
    problems.sort(key=lambda problem: order[problem.place])
    return Reading(format=chosen.name, rows=total, records=tuple(records), problems=tuple(problems))


def _in_your_words(problem: str, source: Source) -> str:
    """The problem with the column named as it is in the file."""
    known = re.split(r"[.:]", problem, maxsplit=1)[0]
    return source.columns.get(known, known) + problem.removeprefix(known)


def _check_settings(source: Source, kind: Kind | None, split_text: SplitText | None) -> None:
    if source.prompt_tokens is not None:
        if kind not in ("prompts", "demonstrations"):
            what = kind or "records as they are"
            raise RecordError(f"{source.path}: prompt_tokens makes prompts and demonstrations, not {what}")
        if split_text is None:
            raise RecordError(f"{source.path}: prompt_tokens needs a tokenizer: pass split_text")
    if source.format not in ("auto", *_UNITS):
        find_format(source.format)
    check_columns(source)


def check_columns(source: Source) -> None:
    """Refuse a source's `columns` for names that no format knows.

    Raises:
        RecordError: with the nearest name that one knows.
    """
    for known in source.columns:
        if known not in COLUMNS and not known.startswith("annotator"):
            near = difflib.get_close_matches(known, COLUMNS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f"; known are {', '.join(sorted(COLUMNS))}"
            raise RecordError(f"{source.path}: columns: no format knows the name {known}{hint}")


def _items(source: Source) -> Iterator[Row | Problem]:
    """The rows in the file's order; reads no further than an unshuffled limit."""
    rows = 0
    for item in read_rows(source.path, name=source.name, split=source.split, unit=_UNITS.get(source.format, "auto")):
        if isinstance(item, Row) and not isinstance(item.value, Mapping | str):
            yield Problem(item.place, f"row: needs an object or a text (found {item.value!r:.60})")
            continue
        yield item
        rows += isinstance(item, Row)
        if rows == source.limit and not source.shuffle:
            return


def fields_of(source: Source, rows: Sequence[Row]) -> list[Fields]:
    """Each row's columns under the names that formats know; a bare text has the column `text`.

    Raises:
        RecordError: no row has a column that `columns` names.
    """
    values = [{"text": row.value} if isinstance(row.value, str) else row.value for row in rows]
    columns: set[str] = set()
    for value in values:
        if isinstance(value, Mapping):
            columns.update(value)
    for known, yours in source.columns.items():
        if columns and yours not in columns and yours.split(".")[0] not in columns:
            near = difflib.get_close_matches(yours, columns, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f"; there are {', '.join(sorted(columns))}"
            raise RecordError(f"columns: no row has {yours}, which {known} should be{hint}")
    return [Fields(renamed(value, source.columns) if isinstance(value, Mapping) else {}) for value in values]


def _format(source: Source, rows: Sequence[Fields]) -> Format:
    if not rows:
        raise RecordError("holds no row that can be read")
    if source.format in _UNITS:
        return find_format("text")
    return recognise(rows[:_LOOK_AT]) if source.format == "auto" else find_format(source.format)


def _as_wanted(record: AnyRecord, kind: Kind | None, source: Source, split_text: SplitText | None) -> AnyRecord | None:
    """The record, its raw text cut as the source says, as the kind that is wanted."""
    raw = raw_text(record)
    if raw is None and (source.end is not None or source.prompt_tokens is not None):
        raise RecordError("row: `end` and `prompt_tokens` are for raw text, but the row has a prompt of its own")
    if raw is not None and source.end is not None:
        raw = raw.removesuffix(source.end)
        record = _with_text(record, raw)
    if source.scale is not None:
        record = _on_scale(record, source.scale)
    if source.quality is not None:
        record = _about(record, source.quality)
    if raw is not None and source.prompt_tokens is not None and split_text is not None:
        asked, rest = split_text(raw, source.prompt_tokens)
        record = Prompt(text=asked, reference=rest or None)
    return record if kind is None else as_kind(record, kind)


def _on_scale(record: AnyRecord, scale: tuple[float, float]) -> AnyRecord:
    if not isinstance(record, Judgement) or not isinstance(record.verdict, Scores):
        raise RecordError("row: `scale` is for scores, but the row has none")
    return record.model_copy(update={"verdict": Scores(scores=record.verdict.scores, scale=scale)})


def _about(record: AnyRecord, quality: str) -> AnyRecord:
    if not isinstance(record, Judgement):
        raise RecordError("row: `quality` is for judgements, but the row holds none")
    return record.model_copy(update={"quality": record.quality or quality})


def _with_text(record: AnyRecord, text: str) -> AnyRecord:
    if isinstance(record, Judgement):
        return record.model_copy(update={"answers": (text,)})
    return Document(text=text)


def conflicts(placed: Iterable[tuple[str, AnyRecord]], *, facts: bool = True) -> list[Problem]:
    """Prompts that share an id but not their words or, where those count, their `facts`."""
    first: dict[str, tuple[str, Prompt]] = {}
    problems = []
    for place, record in placed:
        prompt = prompt_of(record)
        if prompt is None:
            continue
        there, known = first.setdefault(prompt.id, (place, prompt))
        other = (known.text, known.messages) != (prompt.text, prompt.messages)
        if other or (facts and known.about != prompt.about):
            problems.append(Problem(place, f"prompt.id: {prompt.id!r} is another prompt's, at {there}"))
    return problems


def _distinct(records: Iterable[AnyRecord]) -> list[AnyRecord]:
    """Each prompt once, the first; records that are not prompts all stay."""
    seen: set[str] = set()
    distinct: list[AnyRecord] = []
    for record in records:
        if not isinstance(record, Prompt):
            distinct.append(record)
        elif record.id not in seen:
            seen.add(record.id)
            distinct.append(record)
    return distinct


def _mix(parts: Sequence[Sequence[T]], weights: Sequence[float]) -> list[T]:
    """See `load`. Sorting by place in the own source spreads each source evenly."""
    takes = [len(part) for part in parts]
    if len(set(weights)) > 1:
        shares = [Fraction(str(weight)) for weight in weights]  # decimal, so that 0.1 to 0.3 is 1 to 3
        most = min(len(part) / share for part, share in zip(parts, shares, strict=True))
        takes = [int(share * most) for share in shares]
    spread = sorted(
        ((2 * place + 1) / (2 * take), source, place) for source, take in enumerate(takes) for place in range(take)
    )
    return [parts[source][place] for _, source, place in spread]


def held_out(records: Iterable[R], share: float) -> tuple[list[R], list[R]]:
    """The records to train on and those to hold out, in their order, split by prompt id.

    A prompt is held out if a hash of its id, read as a number from 0 to 1, is under `share`. So the same prompt is on
    the same side in every file, whatever comes before it, and a larger share holds out the same prompts and more. The
    share is met on average over prompts, not exactly. A document stands for itself.

    Args:
        records: documents, prompts, demonstrations or judgements.
        share: of the prompts to hold out, in [0, 1].

    Raises:
        RecordError: the share is out of range, or a record is none of these.
    """
    if not 0 <= share <= 1:
        raise RecordError(f"held_out: the share must lie in [0, 1], found {share}")
    train: list[R] = []
    held: list[R] = []
    for record in records:
        (held if _unit_hash(_unit_of(record)) < share else train).append(record)
    return train, held


def _unit_of(record: Record) -> str:
    match record:
        case Document(text=text):
            return text
        case Prompt() | Demonstration() | Judgement():
            prompt = prompt_of(record)
            return prompt.id if prompt else ""
    raise RecordError(f"held_out: a {type(record).__name__} has no prompt")


def _unit_hash(words: str) -> float:
    digest = hashlib.sha256(b"held out\0" + words.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
