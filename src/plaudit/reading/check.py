"""What a file holds: format, counts, lengths, and everything about it that would surprise somebody later."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plaudit.reading.kinds import AnyRecord, Kind, kind_of, prompt_of
from plaudit.reading.loading import conflicts, read_source
from plaudit.reading.rows import Problem
from plaudit.recipe import Source
from plaudit.records import Choice, Demonstration, Document, Judgement, Prompt

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Learned", "Lengths", "LongerWins", "Report", "check_file", "longer_wins", "render"]


class Lengths(NamedTuple):
    """How long texts are: the least, percentiles by nearest rank, and the most."""

    texts: int
    min: int
    p10: int
    p50: int
    p90: int
    p99: int
    max: int


class LongerWins(NamedTuple):
    """How often the longer answer is the better one: what a reward model must beat."""

    items: int
    """Prompts with answers that somebody ordered; see `longer_wins`."""
    share: float
    """In [0, 1]; equally long answers count one half."""


class Learned(NamedTuple):
    """What a reward model would learn from."""

    judgements: int
    """How many say which answer is better, or what one is worth."""
    says: str
    """By which loss each, and why the others are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a file holds."""

    path: str
    format: str
    """The format's name, or nothing where none was recognised."""
    kind: Kind | None
    rows: int
    records: int
    problems: tuple[Problem, ...]
    """Every row that cannot be used."""
    lengths: Mapping[str, Lengths]
    """By what is measured, such as `answer, characters`; each prompt and each group of answers counted once."""
    prompts: int
    """Distinct prompts that have words."""
    answers: Mapping[int, int]
    """Judgements by number of answers (K)."""
    verdicts: Mapping[str, int]
    """Judgements by kind of verdict."""
    annotators: int
    duplicates: int
    """Records that say word for word what an earlier one says."""
    ties: int
    """Judgements that rank two answers equally."""
    same_answers: int
    """Judgements that prefer one of two answers that are the same text (chosen equals rejected)."""
    empty_answers: int
    """Judgements with an answer that has no visible character."""
    html_entities: int
    """Records whose texts hold HTML entities such as `&amp;`; reading leaves them as they are."""
    longer_wins: LongerWins | None
    learned: Learned | None = None
    """Of judgements, where somebody asked."""

    @property
    def ok(self) -> bool:
        """Whether every row can be used, and something can be learned from judgements."""
        return not self.problems and (self.learned is None or self.learned.judgements > 0)


def check_file(
    path: Path | str,
    format: str = "auto",
    kind: Kind | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
    split: str = "train",
    count_tokens: Callable[[str], int] | None = None,
    learn: Callable[[Sequence[Judgement]], Learned] | None = None,
) -> Report:
    """Read a file or dataset to its end and say what it holds.

    Args:
        path: as in a recipe's `path`.
        format: as in a recipe's `format`.
        kind: what the rows are wanted for; nothing takes what most of them are by themselves.
        columns: as in a recipe's `columns`.
        name: as in a recipe's `name`.
        split: as in a recipe's `split`.
        count_tokens: measures lengths in tokens too.
        learn: says what a reward model would learn from judgements.

    Raises:
        RecordError: there is no such file, format or split.
    """
    source = Source(path=str(path), format=format, columns=dict(columns or {}), name=name, split=split)
    reading = read_source(source, kind)
    placed, problems = list(reading.records), list(reading.problems)
    if kind is None and placed:
        kind = Counter(kind_of(record) for _, record in placed).most_common(1)[0][0]
        strange = [(place, kind_of(record)) for place, record in placed if kind_of(record) != kind]
        problems += [Problem(place, f"row: is of {own}, where most are {kind}") for place, own in strange]
    problems += conflicts(placed)
    records = [record for _, record in placed]
    judgements = [record for record in records if isinstance(record, Judgement)]
    prompts = {prompt.id: prompt for prompt in map(prompt_of, records) if prompt and prompt.plain()}
    measures = {"characters": len} | ({"tokens": count_tokens} if count_tokens else {})
    return Report(
        path=str(path),
        format=reading.format,
        kind=kind,
        rows=reading.rows,
        records=len(records),
        problems=tuple(problems),
        lengths={
            f"{what}, {unit}": _lengths([measure(text) for text in texts])
            for what, texts in _texts(records, prompts.values()).items()
            for unit, measure in measures.items()
        },
        prompts=len(prompts),
        answers=dict(sorted(Counter(len(judgement.answers) for judgement in judgements).items())),
        verdicts=dict(Counter(judgement.verdict.kind for judgement in judgements).most_common()),
        annotators=len({judgement.annotator for judgement in judgements} - {None}),
        duplicates=len(records) - len({_said(record) for record in records}),
        ties=sum(map(_has_tie, judgements)),
        same_answers=sum(map(_prefers_itself, judgements)),
        empty_answers=sum(not all(answer.strip() for answer in judgement.answers) for judgement in judgements),
        html_entities=sum(any(map(_has_entity, _words(record))) for record in records),
        longer_wins=longer_wins(judgements),
        learned=learn(judgements) if learn is not None and judgements else None,
    )


def longer_wins(judgements: Iterable[Judgement]) -> LongerWins | None:
    """How often the longer answer, in characters, is the better one; None where nothing is ordered.

    What several annotators say of the same answers to the same prompt is one item, on which more than half must agree;
    what one says twice is two items. An item's value is the share of its pairs of a best-ranked and a worst-ranked
    answer in which the best is the longer, one half where both are equally long. Items without agreement, and those
    where all answers tie, are left out.
    """
    times: Counter[tuple[str, tuple[str, ...], str | None]] = Counter()
    votes: dict[tuple[str, tuple[str, ...], int], Counter[tuple[int, ...]]] = {}
    for judgement in judgements:
        ranks = judgement.ranks()
        if ranks is not None:
            said = (judgement.prompt.id, judgement.answers, judgement.annotator)
            votes.setdefault((*said[:2], times[said]), Counter())[ranks] += 1
            times[said] += 1
    values = []
    for (_, answers, _), counts in votes.items():
        ranks, most = counts.most_common(1)[0]
        if 2 * most > counts.total() and len(set(ranks)) > 1:
            best = [len(answer) for answer, rank in zip(answers, ranks, strict=True) if rank == min(ranks)]
            worst = [len(answer) for answer, rank in zip(answers, ranks, strict=True) if rank == max(ranks)]
            pairs = list(itertools.product(best, worst))
            values.append(sum((b > w) + (b == w) / 2 for b, w in pairs) / len(pairs))
    return LongerWins(len(values), math.fsum(values) / len(values)) if values else None


def _texts(records: Sequence[AnyRecord], prompts: Iterable[Prompt]) -> dict[str, list[str]]:
    texts = {
        "text": [record.text for record in records if isinstance(record, Document)],
        "prompt": [prompt.plain() for prompt in prompts],
        "reference": [prompt.reference for prompt in prompts if prompt.reference is not None],
        "answer": [record.answer for record in records if isinstance(record, Demonstration)],
    }
    judged = {(record.prompt.id, record.answers) for record in records if isinstance(record, Judgement)}
    texts["answer"] += [answer for _, answers in sorted(judged) for answer in answers]
    return {what: found for what, found in texts.items() if found}


def _lengths(lengths: Sequence[int]) -> Lengths:
    ordered = sorted(lengths)

    def at(percent: int) -> int:
        return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]

    return Lengths(len(ordered), ordered[0], at(10), at(50), at(90), at(99), ordered[-1])


def _said(record: AnyRecord) -> str:
    """Everything a record says, without when and how it was said."""
    match record:
        case Judgement():
            return record.model_copy(update={"shown": None, "seconds": None, "at": None}).model_dump_json()
        case _:
            return record.model_dump_json()


def _has_tie(judgement: Judgement) -> bool:
    ranks = () if isinstance(judgement.verdict, Choice) else judgement.ranks() or ()
    return len(set(ranks)) < len(ranks)


def _prefers_itself(judgement: Judgement) -> bool:
    ranks = judgement.ranks() or ()
    ranked = sorted(zip(judgement.answers, ranks, strict=False))
    return any(a == b and r != s for (a, r), (b, s) in itertools.pairwise(ranked))


_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")


def _has_entity(text: str) -> bool:
    return any(html.unescape(found) != found for found in _ENTITY.findall(text))


def _words(record: AnyRecord) -> Iterator[str]:
    prompt = prompt_of(record)
    if prompt is not None:
        yield prompt.plain()
    match record:
        case Document(text=text):
            yield text
        case Demonstration(answer=answer):
            yield answer
        case Judgement(answers=answers):
            yield from answers
        case Prompt(reference=reference):
            yield reference or ""


def render(report: Report, console: Console, *, most: int = 20) -> None:
    """Print the report for a person; at most `most` bad rows are listed."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _summary(report):
        table.add_row(name, Text(value))
    console.print(Text(report.path, style="bold"))
    console.print(table)
    if report.lengths:
        lengths = Table("length", *Lengths._fields, box=None, pad_edge=False, header_style="bold")
        for what, measured in report.lengths.items():
            lengths.add_row(what, *(f"{value:,}" for value in measured))
        console.print(lengths)
    for problem in report.problems[:most]:
        console.print(Text(str(problem), style="red"), soft_wrap=True)
    if len(report.problems) > most:
        console.print(Text(f"... and {len(report.problems) - most:,} more", style="red"))
    console.print(Text(_verdict(report), style="green" if report.ok else "red"))


def _verdict(report: Report) -> str:
    if report.problems:
        found, rows = len(report.problems), report.rows
        return f"{found:,} problem{'s' * (found != 1)} in {rows:,} row{'s' * (rows != 1)}"
    return "ok" if report.ok else "every row can be read, but there is nothing to learn from"


def _summary(report: Report) -> Iterator[tuple[str, str]]:
    yield "format", report.format or "not recognised"
    yield "kind", report.kind or "unknown"
    yield "rows", f"{report.rows:,}"
    yield report.kind or "records", f"{report.records:,}"
    if report.prompts and report.kind != "prompts":
        yield "prompts", f"{report.prompts:,}"
    if report.answers:
        yield "verdicts", ", ".join(f"{count:,} {verdict}" for verdict, count in report.verdicts.items())
        yield "answers each", ", ".join(f"{k} ({count:,})" for k, count in report.answers.items())
        yield "annotators", f"{report.annotators:,}" if report.annotators else "not named"
        yield "ties", f"{report.ties:,}"
        yield "same answers", f"{report.same_answers:,}"
        yield "empty answers", f"{report.empty_answers:,}"
        if report.learned:
            yield "to learn from", report.learned.says
    yield "duplicates", f"{report.duplicates:,}"
    yield "HTML entities", f"{report.html_entities:,}"
    if report.longer_wins:
        yield "longer wins", f"{report.longer_wins.share:.3f} of {report.longer_wins.items:,}"
