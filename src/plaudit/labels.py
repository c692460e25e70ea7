"""Judgements by machines: scorers rank or score answers, a judge model compares them; written line by line.

What is written goes beside the wanted file first. If the work is cut, the same call goes on behind the last whole line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from plaudit.errors import NumberError, RecordError, ScorerError
from plaudit.reading.writing import write_bytes
from plaudit.records import Comparison, Group, Judgement, Prompt, Ranking
from plaudit.records import Scores as ScoresVerdict
from plaudit.runs.progress import progress, say
from plaudit.scorers.judge import ChatJudge, Opinion
from plaudit.scorers.seam import Scorer

__all__ = ["Journal", "Tally", "compare_answers", "journal", "ranks_of", "score_answers", "shortened"]

_GROUPS_AT_ONCE = 32


def ranks_of(scores: Sequence[float], tolerance: float = 0.0) -> tuple[int, ...]:
    """The rank of each score, 1 for the highest; those within `tolerance` of the best of a rank share it.

    Args:
        scores: at least one, finite.
        tolerance: in units of the score, 0 or more.
    """
    ranks = [0] * len(scores)
    rank, best = 0, 0.0
    for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
        if rank == 0 or best - scores[place] > tolerance:
            rank, best = rank + 1, scores[place]
        ranks[place] = rank
    return tuple(ranks)


def shortened(score: float) -> float:
    """A score with nine significant digits, more than fp32 has: short in a file, and none so small that it is lost."""
    return float(f"{score:.9g}")


class Journal:
    """Judgements on their way into a file, each once.

    Args:
        aside: where they are until all are there.
    """

    def __init__(self, aside: Path) -> None:
        self._done: set[tuple[str, tuple[str, ...]]] = set()
        whole = 0
        if aside.exists():
            for line in aside.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):  # else it was cut in the middle
                    whole += len(line)
                    judgement = Judgement.parse(json.loads(line))
                    self._done.add((judgement.prompt.id, judgement.answers))
            os.truncate(aside, whole)
        self.lines = len(self._done)
        self._file = aside.open("ab")

    def has(self, prompt: Prompt, answers: Sequence[str]) -> bool:
        """Whether these answers were judged before."""
        return (prompt.id, tuple(answers)) in self._done

    def add(self, judgements: Iterable[Judgement]) -> None:
        """Write judgements, and see to it that they are on the disk."""
        for judgement in judgements:
            line = json.dumps(judgement.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
            self._file.write(line.encode("utf-8"))
            self._done.add((judgement.prompt.id, judgement.answers))
            self.lines += 1
        self._file.flush()

    def close(self) -> None:
        """Write no more."""
        self._file.close()


@contextmanager
def journal(out: Path, *purpose: object) -> Iterator[Journal]:
    """A journal that becomes the file `out` when all went well, in place of what was there; gzipped as its name says.

    Args:
        out: the wanted file.
        purpose: all that the judgements depend on; only work for the same purpose is gone on with.
    """
    digest = hashlib.sha256(repr(purpose).encode()).hexdigest()[:8]
    aside = out.with_name(f".{out.name}.{digest}.writing")
    out.parent.mkdir(parents=True, exist_ok=True)
    opened = Journal(aside)
    if opened.lines:
        say(f"{out}: going on behind {opened.lines} judgements of a call that was interrupted")
    try:
        yield opened
    except BaseException:
        opened.close()
        if not opened.lines:  # there is nothing to go on with
            aside.unlink()
        raise
    opened.close()
    write_bytes(out, aside.read_bytes())
    aside.unlink()


def score_answers(
    groups: Sequence[Group],
    scorer: Scorer,
    into: Journal,
    *,
    annotator: str,
    gives: Literal["ranking", "scores"] = "ranking",
    tolerance: float = 0.0,
) -> None:
    """Judge the answers of each group by a scorer.

    Args:
        groups: those with one answer are left out where a ranking is wanted.
        scorer: grades them.
        into: takes the judgements.
        annotator: who judged, for the records.
        gives: a ranking by score, or the scores themselves.
        tolerance: scores as near as this to the best of a rank share it.

    Raises:
        NumberError: a score is not finite; names the prompt.
        RecordError: no prompt has two answers, so there is nothing to rank.
    """
    least = 2 if gives == "ranking" else 1
    wanted = [group for group in groups if len(group.answers) >= least]
    if not wanted:
        raise RecordError(f"none of {len(groups)} prompts has {least} different answers: there is nothing to judge")
    left = [group for group in wanted if not into.has(group.prompt, _texts(group))]
    with progress("label", len(wanted), len(wanted) - len(left)) as advance:
        for start in range(0, len(left), _GROUPS_AT_ONCE):
            part = left[start : start + _GROUPS_AT_ONCE]
            scores = scorer.score(part)
            scores.check(part)
            if scores.failed:
                why = next(iter(scores.failed.values()))
                raise NumberError(f"the scorer failed on {len(scores.failed)} answers: {why}")
            into.add(
                Judgement(
                    prompt=group.prompt,
                    answers=_texts(group),
                    verdict=(
                        Ranking(ranks=ranks_of(values, tolerance))
                        if gives == "ranking"
                        else ScoresVerdict(scores=tuple(shortened(value) for value in values))
                    ),
                    annotator=annotator,
                )
                for group, values in zip(part, scores.value_PG, strict=True)
            )
            advance(len(part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How a judge did, in the pairs of this call."""

    pairs: int
    unsteady: int
    """Pairs on which it changed its mind with the order: ties."""
    unclear: int
    """Pairs on which a reply of its said nothing: left out."""
    example: str = ""
    """The first of these replies."""


def compare_answers(
    groups: Sequence[Group], judge: ChatJudge, into: Journal, *, annotator: str, concurrency: int = 4
) -> Tally:
    """Have a judge compare all pairs of each group's answers.

    Args:
        groups: with different answers.
        judge: is asked twice for each pair.
        into: takes the judgements.
        annotator: who judged, for the records.
        concurrency: pairs under way at once; what is written does not depend on it.

    Raises:
        ScorerError: the judge cannot be reached, its replies are no chat completions, or none holds a verdict.
        RecordError: no prompt has two answers.
    """
    pairs = [(group.prompt, pair) for group in groups for pair in combinations(_texts(group), 2)]
    if not pairs:
        raise RecordError(f"none of {len(groups)} prompts has 2 different answers: there is nothing to compare")
    left = [(prompt, pair) for prompt, pair in pairs if not into.has(prompt, pair)]
    unsteady = 0
    unclear: list[str] = []

    def ask(one: tuple[Prompt, tuple[str, str]]) -> Opinion | str:
        return judge.compare(one[0], *one[1])

    with (
        progress("judge", len(pairs), len(pairs) - len(left)) as advance,
        ThreadPoolExecutor(max_workers=concurrency) as threads,
    ):
        for (prompt, pair), opinion in zip(left, threads.map(ask, left), strict=True):
            advance(1)
            if isinstance(opinion, str):
                unclear.append(opinion)
                continue
            unsteady += not opinion.steady
            verdict = Comparison(preferred=opinion.preferred)
            into.add([Judgement(prompt=prompt, answers=pair, verdict=verdict, annotator=annotator)])
    if not into.lines:
        raise ScorerError(
            f"{judge.service.url}: no reply of {judge.model} held a verdict, such as [[A]], on any of {len(pairs)} "
            f"pairs, so that nothing is written; one of them: {unclear[0][:200]!r}"
        )
    return Tally(pairs=len(left), unsteady=unsteady, unclear=len(unclear), example="".join(unclear[:1]))


def _texts(group: Group) -> tuple[str, ...]:
    return tuple(answer.text for answer in group.answers)
