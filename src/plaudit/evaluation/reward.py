"""How far a reward model, or any other scorer, can be trusted on files of judgements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plaudit.errors import RecordError
from plaudit.evaluation import pairs
from plaudit.evaluation.best_of_n import best_of_n_curve
from plaudit.evaluation.pairs import Scored
from plaudit.evaluation.probes import cases_of, order_swap, probe
from plaudit.evaluation.rewardbench import Row2, is_row_2, judgement_of_2, rewardbench, rewardbench_2
from plaudit.reading.files import read_rows
from plaudit.reading.formats import recognise
from plaudit.reading.loading import check_columns, conflicts, fields_of
from plaudit.reading.rows import Problem, Row, listing
from plaudit.recipe import Source
from plaudit.records import Answer, Ended, Group, Judgement, Prompt, describe
from plaudit.runs.progress import progress, say
from plaudit.scorers import Scorer, Scores
from plaudit.training.judged import joined, together

__all__ = [
    "GROUPS",
    "PROBED",
    "Judged",
    "best_of_answers",
    "examine",
    "held_out",
    "measure",
    "read_judged",
    "score_judged",
]

GROUPS = ("subset", "section", "category", "scenario", "language", "file", "annotator", "quality", "answers")
"""What accuracy is split by, where the rows say it."""

PROBED = 200
"""Prompts whose best answer is spoiled, as a rule."""

_LOOK_AT = 100  # rows by which a format is recognised
_AT_ONCE = 32  # judgements scored in one call


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judgement and what its row says besides."""

    judgement: Judgement
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short values of the row's other columns, of the prompt's `about`, and the `file`."""
    correct: int | None = None
    """How many of the answers are right, in a row of RewardBench 2."""


def read_judged(
    path: Path,
    by: Sequence[str] = GROUPS,
    *,
    columns: Mapping[str, str] | None = None,
    quality: str | None = None,
    skip_bad: bool = False,
) -> list[Judged]:
    """The judgements of a file in any known format, or in RewardBench 2's, each with the facts of its row.

    Args:
        path: a file that `plaudit.reading` knows.
        by: the columns to keep as facts, as the file calls them; `id` and `subset` are kept in any case.
        columns: the file's column for a name that a format knows.
        quality: what the judgements are about that do not say it themselves.
        skip_bad: leave out rows that cannot be read, and say how many.

    Raises:
        RecordError: rows that cannot be read, or that hold no judgement, with file, line and field.
    """
    found: list[Judged] = []
    placed: list[tuple[str, Judgement]] = []
    source = Source(path=str(path), columns=dict(columns or {}))
    check_columns(source)
    rows, problems = _rows(path)
    try:
        known_as = fields_of(source, rows)
        second = bool(rows) and all(is_row_2(fields) for fields in known_as[:_LOOK_AT])
        known = None if second or not rows else recognise(known_as[:_LOOK_AT])
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    for row, fields in zip(rows, known_as, strict=True):
        try:
            records = [judgement_of_2(fields)] if known is None else known.read(fields)
        except ValidationError as error:
            problems.append(Problem(row.place, describe(error)))
            continue
        except RecordError as error:
            problems.append(Problem(row.place, str(error)))
            continue
        for record in records:
            if not isinstance(record, Judgement):
                problems.append(Problem(row.place, f"row: a {type(record).__name__.lower()} judges nothing"))
                continue
            if quality is not None and record.quality is None:
                record = record.model_copy(update={"quality": quality})
            placed.append((row.place, record))
            facts = {"file": path.name, **_facts({**record.prompt.about, **row.value}, {*by, "id", "subset"})}
            found.append(
                Judged(judgement=record, facts=facts, correct=len(row.value["chosen"]) if known is None else None)
            )
    if problems and skip_bad:
        say(f"{path}: {len(problems)} rows cannot be read and are left out, such as {problems[0]}")
    elif problems:
        raise RecordError(f"cannot read judgements, {len(problems)} problems in {path}:\n{listing(problems)}")
    if clashes := conflicts(placed, facts=False):
        raise RecordError(f"cannot tell prompts apart, {len(clashes)} problems in {path}:\n{listing(clashes)}")
    if not found:
        raise RecordError(f"{path}: holds no judgement")
    return found


def _rows(path: Path) -> tuple[list[Row], list[Problem]]:
    rows: list[Row] = []
    problems: list[Problem] = []
    for item in read_rows(path):
        if isinstance(item, Problem):
            problems.append(item)
        elif not isinstance(item.value, Mapping):
            problems.append(Problem(item.place, f"row: needs an object (found {item.value!r:.60})"))
        else:
            rows.append(item)
    return rows, problems


def _facts(row: Mapping[str, Any], names: set[str]) -> dict[str, str]:
    values = {name: row[name] for name in names if isinstance(row.get(name), str | int | bool)}
    return {name: str(value) for name, value in values.items() if 0 < len(str(value)) <= 80}


def score_judged(scorer: Scorer, judged: Sequence[Judged]) -> tuple[list[tuple[Judged, Scored]], int]:
    """A score for each answer, and each member's where there are several; what several people judged is scored once.

    Lone scores of one prompt by one annotator are put together, as in training: each by itself orders nothing.

    Returns:
        The judgements with their scores, without those of which an answer has none, and how many these are.

    Raises:
        NumberError: a score is not finite.
    """
    judged = _gathered(judged)
    keys = [_key(item.judgement) for item in judged]
    asked = dict(zip(keys, (item.judgement for item in judged), strict=True))
    known: dict[tuple[str, ...], Scored] = {}
    distinct = list(asked)
    with progress("score", len(distinct)) as advance:
        for start in range(0, len(distinct), _AT_ONCE):
            part = distinct[start : start + _AT_ONCE]
            groups = [_as_group(asked[key]) for key in part]
            scores = scorer.score(groups)
            scores.check(groups)
            for g, key in enumerate(part):
                known[key] = _own(scores, g, asked[key])
            advance(len(part))
    scored = [
        (item, replace(known[key], judgement=item.judgement, facts=item.facts))
        for item, key in zip(judged, keys, strict=True)
    ]
    whole = [(item, own) for item, own in scored if all(map(math.isfinite, own.scores))]
    return whole, len(scored) - len(whole)


def _gathered(judged: Sequence[Judged]) -> list[Judged]:
    """With lone scores put together; of what their rows say besides, only what all of them say stays."""
    found = []
    for places in together([item.judgement for item in judged]):
        parts = [judged[place] for place in places]
        alike = set.intersection(*(set(part.facts.items()) for part in parts))
        one = joined([part.judgement for part in parts])
        found.append(Judged(judgement=one, facts=dict(alike), correct=parts[0].correct))
    return found


def _own(scores: Scores, group: int, judgement: Judgement) -> Scored:
    """The scores that a judgement is about, its quality's where the scorer gives that apart; and each member's."""
    about = judgement.quality
    if about is not None and about in scores.parts:
        members = tuple(member[group] for member in scores.member_parts.get(about, ()))
        return Scored(judgement=judgement, scores=scores.about(group, about), members=members)
    members = tuple(member[group] for member in scores.members)
    used = scores.used_PG[group] if scores.used_PG else ()
    return Scored(judgement=judgement, scores=scores.value_PG[group], members=members, used=used)


def _key(judgement: Judgement) -> tuple[str, ...]:
    return (judgement.prompt.id, judgement.prompt.plain(), judgement.quality or "", *judgement.answers)


def _as_group(judgement: Judgement) -> Group:
    answers = tuple(Answer(text=a, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for a in judgement.answers)
    return Group(prompt=judgement.prompt, context_ids=(), answers=answers)


def held_out(scorer: Scorer, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """What a scorer is worth on judgements that it has not learned from: see `measure`; nothing where there are none.

    Raises:
        NumberError: a score is not finite.
    """
    whole, _ = score_judged(scorer, [Judged(judgement=one) for one in judgements])
    return measure([scored for _, scored in whole])


def measure(scored: Sequence[Scored], by: Sequence[str] = GROUPS) -> dict[str, Any]:
    """Everything that scores of judged answers say, as plain JSON values: see `plaudit.evaluation.pairs`.

    Of an ensemble, a pair's chance is the mean of its members' chances; `used` is the accuracy of the reward that they
    give together, and thumbs go by the members' mean.

    Args:
        scored: judgements with their scores.
        by: facts to split accuracy by; one with a single value is left out.
    """
    ordered, tied = pairs.pairs_of(scored), pairs.tied_gaps(scored)
    split = {name: parts for name in by if len(parts := pairs.grouped(scored, name)) > 1}
    found = {
        "judgements": len(scored),
        **pairs.accuracy(ordered),
        "against_themselves": pairs.against_themselves(scored) or None,
        "used": pairs.used(scored),
        "disagreement": pairs.disagreement(ordered),
        "ties": pairs.with_ties(ordered, tied),
        "thumbs": pairs.thumbs(scored),
        "length": pairs.against_length(ordered),
        **pairs.calibration([pair.gap for pair in ordered]),
        "groups": split,
        "agreement": pairs.agreement(scored),
    }
    return {name: value for name, value in found.items() if value not in ({}, None)}


def examine(
    scorer: Scorer, judged: Sequence[Judged], *, by: Sequence[str] = GROUPS, probes: int = PROBED, seed: int = 0
) -> dict[str, Any]:
    """Score judgements and say how far the scores can be trusted.

    Args:
        scorer: anything that grades answers. Calibration takes its score gaps for log-odds.
        judged: what people said.
        by: facts to split accuracy by.
        probes: prompts whose best answer is spoiled, and judgements scored again in reverse; 0 leaves both out.
        seed: of the shuffled words.

    Raises:
        RecordError: no judgement is left with scores.
        NumberError: a score is not finite.
    """
    whole, failed = score_judged(scorer, judged)
    if not whole:
        raise RecordError(f"none of {len(judged)} judgements has scores for all of its answers")
    scored = [own for _, own in whole]
    found = measure(scored, by)
    if failed:
        found["failed"] = failed
    first = [(item.facts["subset"], p.gap) for item in scored if "subset" in item.facts for p in pairs.pairs_of([item])]
    second = [
        Row2(item.facts.get("id", ""), item.facts.get("subset", ""), item.correct, own.scores)
        for item, own in whole
        if item.correct is not None
    ]
    found |= {"rewardbench_2": rewardbench_2(second)} if second else {"rewardbench": rewardbench(first)}
    if probes:
        with progress("probe", 2) as advance:
            found["probes"] = probe(scorer, cases_of([item.judgement for item in scored], probes), seed=seed)
            advance(1)
            some = scored[:probes]
            found["order_swap"] = order_swap(scorer, [s.judgement for s in some], [s.scores for s in some])
            advance(1)
    return {name: value for name, value in found.items() if value != {}}


def best_of_answers(
    scorer: Scorer,
    groups: Sequence[Group],
    gold: Callable[[Prompt, str], float] | None = None,
) -> dict[str, Any]:
    """The best-of-n curve of sampled answers.

    Args:
        scorer: chooses the best.
        groups: each prompt's answers.
        gold: what an answer is worth by another scale, in a built-in world its hidden taste.

    Returns:
        `prompts`, `answers` (the fewest of a prompt), and `curve`, as `best_of_n_curve` gives it.

    Raises:
        RecordError: a prompt has fewer than two answers.
        NumberError: a score is not finite.
    """
    short = [group.prompt for group in groups if len(group.answers) < 2]
    if short or not groups:
        raise RecordError(
            f"best of n needs two or more answers to each prompt, but {len(short)} of {len(groups)} prompts have one: "
            "sample with --answers 16"
        )
    values: list[tuple[float, ...]] = []
    with progress("best of n", len(groups)) as advance:
        for start in range(0, len(groups), _AT_ONCE):
            part = groups[start : start + _AT_ONCE]
            scores = scorer.score(part)
            scores.check(part)
            values += scores.value_PG
            advance(len(part))
    worth = (
        None if gold is None else [[gold(group.prompt, answer.text) for answer in group.answers] for group in groups]
    )
    fewest = min(len(group.answers) for group in groups)
    return {"prompts": len(groups), "answers": fewest, "curve": best_of_n_curve(values, worth)}
