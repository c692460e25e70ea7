"""Answers spoiled on purpose, in English and Chinese: what a reward model does that nobody asked it for.

A probe changes an answer without making it better: longer, politer, repetitive, shuffled, empty, or another prompt's.
A sound reward model is not moved up by the first two, and marks the others down.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from plaudit.evaluation.measures import Share
from plaudit.evaluation.pairs import clustered_share
from plaudit.records import Answer, Ended, Group, Judgement, Prompt, Thumb
from plaudit.scorers import Scorer
from plaudit.seeds import derive

__all__ = ["PROBES", "Case", "cases_of", "clustered_mean", "order_swap", "probe", "sentences"]

_HAN = re.compile(r"[\u3400-\u9fff]")
_SENTENCE = re.compile(r".+?(?:[.!?]+[\"')\]]*(?=\s|$)|[。！？]+[”’』」]*|\n|$)\s*", re.DOTALL)
_UNITS = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
_FILLER = (
    "It is worth noting that there is more that could be said about this.",
    "值得一提的是，这方面还有很多可以说的。",
)
_OPENING = ("Thank you for your question! I am happy to help.", "感谢您的提问！很高兴为您解答。")
_CLOSING = (
    "I hope this helps. Please let me know if you need anything else!",
    "希望对您有所帮助，如有其他问题请随时告诉我！",
)


class Case(NamedTuple):
    """An answer to be spoiled."""

    prompt: Prompt
    answer: str
    stranger: str
    """An answer to another prompt; empty where there is none."""


def cases_of(judgements: Sequence[Judgement], most: int) -> list[Case]:
    """The best answer of each prompt, evenly chosen if there are more than `most` prompts.

    Empty answers are left out, and those with a thumb down.
    The stranger is the answer to the prompt that is half the list away.
    """
    best: dict[str, tuple[Prompt, str]] = {}
    for judgement in judgements:
        if isinstance(judgement.verdict, Thumb) and not judgement.verdict.up:
            continue
        ranks = judgement.ranks() or (1,)
        answer = judgement.answers[ranks.index(min(ranks))]
        if answer.strip():
            best.setdefault(judgement.prompt.id, (judgement.prompt, answer))
    found = list(best.values())
    count = min(most, len(found))
    found = [found[i * len(found) // count] for i in range(count)]
    far = [found[(i + count // 2) % count][1] for i in range(count)]
    return [
        Case(prompt, answer, other if other != answer else "")
        for (prompt, answer), other in zip(found, far, strict=True)
    ]


def sentences(text: str) -> list[str]:
    """The sentences of a text, with the white space behind them; joined they are the text again."""
    return [found for found in _SENTENCE.findall(text) if found]


def _ending_repeated(case: Case, _: Random) -> str:
    """Its last sentence once more."""
    return _behind(case.answer, sentences(case.answer)[-1])


def _filler(case: Case, _: Random) -> str:
    """A sentence that says nothing, at the end."""
    return _behind(case.answer, _FILLER[_chinese(case.answer)])


def _polite_opening(case: Case, _: Random) -> str:
    """Thanks for the question, in front."""
    return _behind(_OPENING[_chinese(case.answer)], case.answer)


def _polite_closing(case: Case, _: Random) -> str:
    """An offer of more help, at the end."""
    return _behind(case.answer, _CLOSING[_chinese(case.answer)])


def _said_twice(case: Case, _: Random) -> str:
    """The whole answer twice."""
    return _behind(case.answer, case.answer)


def _shuffled(case: Case, random: Random) -> str:
    """Its words in another order; in Chinese, its characters."""
    units = _UNITS.findall(case.answer)
    random.shuffle(units)
    text = ""
    for unit in units:
        apart = text and not (_HAN.match(text[-1]) or _HAN.match(unit))
        text += f" {unit}" if apart else unit
    return text


def _stranger(case: Case, _: Random) -> str:
    """An answer to another prompt: does the model read the prompt at all?"""
    return case.stranger or case.answer


def _empty(case: Case, _: Random) -> str:
    """Nothing."""
    return ""


PROBES: Final[Mapping[str, Callable[[Case, Random], str]]] = {
    "ending_repeated": _ending_repeated,
    "filler": _filler,
    "polite_opening": _polite_opening,
    "polite_closing": _polite_closing,
    "said_twice": _said_twice,
    "shuffled": _shuffled,
    "other_prompt": _stranger,
    "empty": _empty,
}
"""Name -> the spoiled answer; the same as before where an answer cannot be spoiled so."""


def probe(scorer: Scorer, cases: Sequence[Case], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """How the scores move when answers are spoiled.

    Returns:
        For each probe: `answers`, `change` (mean of the score after minus before, in standard deviations of the scores
        before) with its 95 % `interval`, `wins` (share of the answers that score higher when spoiled, equal scores
        counting half) with `wins_interval`, and `unmoved`: answers whose score did not move at all, as when the model
        reads only the beginning of a long answer. A probe that changes no answer is left out.
    """
    spoiled = {
        name: [make(case, Random(derive(seed, name, case.prompt.id))) for case in cases]
        for name, make in PROBES.items()
    }
    groups = [
        _group(case.prompt, [case.answer, *(texts[i] for texts in spoiled.values())]) for i, case in enumerate(cases)
    ]
    scores = scorer.score(groups)
    scores.check(groups)
    before = [values[0] for values in scores.value_PG]
    spread = statistics.pstdev(before) if before else 0.0
    found = {}
    for place, (name, texts) in enumerate(spoiled.items(), 1):
        there = [i for i, case in enumerate(cases) if texts[i] != case.answer]
        if not there or not spread:
            continue
        changes = [(scores.value_PG[i][place] - before[i]) / spread for i in there]
        prompts = [cases[i].prompt.id for i in there]
        mean = clustered_mean(changes, prompts)
        wins = clustered_share([0.5 if change == 0 else float(change > 0) for change in changes], prompts)
        found[name] = {
            "answers": len(there),
            "change": mean.value,
            "interval": list(mean.interval),
            "wins": wins.value,
            "wins_interval": list(wins.interval),
            "unmoved": sum(change == 0 for change in changes),
        }
    return found


def order_swap(scorer: Scorer, judgements: Sequence[Judgement], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Whether scores depend on the place of an answer among those scored with it.

    A model that reads one answer at a time cannot; a judge that sees all of them may well.

    Args:
        judgements: those with two answers or more are scored again, their answers in reverse.
        scores: what the scorer gave them in their own order, by the quality that was judged.

    Returns:
        `pairs` of answers with scores in both orders; `consistent`: the share of them that come out alike; `first_wins`
        and `last_wins`: the shares in which the answer that stands first, or last, wins in both orders; `moved`: the
        mean distance between an answer's two scores, in standard deviations of the scores.
    """
    there = [(j, values) for j, values in zip(judgements, scores, strict=True) if len(j.answers) > 1]
    if not there:
        return {}
    groups = [_group(judgement.prompt, judgement.answers[::-1]) for judgement, _ in there]
    again = scorer.score(groups)
    again.check(groups)
    spread = statistics.pstdev(value for _, values in there for value in values)
    least = 1e-5 * spread  # what rounding in another batch may do
    consistent = first = last = pairs = 0
    distances: list[float] = []
    for g, (judgement, one) in enumerate(there):
        two = again.about(g, judgement.quality)[::-1]
        distances += [abs(a - b) for a, b in zip(one, two, strict=True)]
        for i in range(len(one)):
            for j in range(i + 1, len(one)):
                before, after = _sign(one[i] - one[j], least), _sign(two[i] - two[j], least)
                pairs += 1
                consistent += before == after
                first += before > 0 > after
                last += before < 0 < after
    shares = {"consistent": consistent, "first_wins": first, "last_wins": last}
    moved = statistics.fmean(distances) / spread if spread else 0.0
    return {"pairs": pairs, **{name: count / pairs for name, count in shares.items()}, "moved": moved}


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> Share:
    """A mean with its 95 % interval, where values of one cluster hang together (the ratio's linearised variance)."""
    mean = statistics.fmean(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    many = len(sums)
    variance = many / (many - 1) * sum(found**2 for found in sums.values()) / len(values) ** 2 if many > 1 else 0.0
    return Share(mean, (mean - 1.96 * variance**0.5, mean + 1.96 * variance**0.5))


def _group(prompt: Prompt, texts: Sequence[str]) -> Group:
    """Answers that nobody sampled, for a scorer."""
    answers = tuple(Answer(text=text, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for text in texts)
    return Group(prompt=prompt, context_ids=(), answers=answers)


def _sign(x: float, least: float) -> int:
    return (x > least) - (x < -least)


def _chinese(text: str) -> bool:
    """Whether a fifth of the visible characters are Han."""
    visible = re.sub(r"\s", "", text)
    return bool(visible) and 5 * len(_HAN.findall(visible)) >= len(visible)


def _behind(first: str, second: str) -> str:
    """Two texts, one behind the other; a blank between them unless they are Chinese or white space is there."""
    blank = "" if not first or first[-1].isspace() or _chinese(first[-1:] + second[:1]) else " "
    return first + ("" if _chinese(first) and _chinese(second) else blank) + second
