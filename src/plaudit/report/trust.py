"""The page about a reward model: what `plaudit evaluate reward` found, as one HTML file, readable offline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.report.charts import draw_best_of
from plaudit.report.frame import page
from plaudit.report.numerals import count, grade, percent, short
from plaudit.report.view import Card, Label, Rate, calibration_card, flat, read
from plaudit.report.words import WORDS, Say

__all__ = ["render_reward", "write_reward_page"]

_SENSITIVE = ("ending_repeated", "filler", "polite_opening", "polite_closing")
"""Probes that should leave a score where it is; the others should lower it."""


@dataclass(frozen=True, slots=True)
class RateList:
    """Shares under a title."""

    title: Say
    rates: tuple[Rate, ...]


def write_reward_page(found: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        found: what `evaluation.json` of `plaudit evaluate reward` holds.
        path: where to write.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(render_reward(found).encode("utf-8", errors="replace"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def render_reward(found: Mapping[str, Any]) -> str:
    """The page as text."""
    calibration = calibration_card(found.get("calibration"))
    best = _best_of(found.get("best_of_n", {}))
    bench = _bench(found)
    groups = _groups(found)
    probes = _probes(found.get("probes", {}))
    there = {"probes": probes, "groups": groups, "bestof": best, "bench": bench}
    cards = [*best, *([calibration] if calibration else [])]
    facts = [
        Say("trust.files", {"value": ", ".join(found["files"])}),
        Say("trust.judgements", {"n": count(found["judgements"])}),
    ]
    if found.get("cut_answers"):
        facts.append(Say("trust.cut", {"n": count(found["cut_answers"]), "all": count(found["answers"])}))
    return page(
        "trust.html",
        title=str(found["model"]),
        sections=["headline", "scores", *(name for name, part in there.items() if part), "values"],
        data={"charts": {card.picture.id: card.picture.hover for card in cards}, "evaluation": [], "samples": []},
        facts=facts,
        rate=percent(found["accuracy"]) if "accuracy" in found else "",
        verdict=Say(_verdict(found)),
        rates=_rates(found),
        length=_length(found.get("length", {})),
        numbers=_numbers(found),
        calibration=calibration,
        groups=groups,
        probes=probes,
        best=best,
        best_about=Say("trust.bestof.about", {name: count(found["best_of_n"][name]) for name in ("prompts", "answers")})
        if best
        else None,
        bench=bench,
        values=flat({name: value for name, value in found.items() if name != "calibration"}),
    )


def _verdict(found: Mapping[str, Any]) -> str:
    if "accuracy" not in found:
        return "trust.none"
    low, high = found["interval"]
    longer = found["length"]["longer_wins"]
    if high < 0.5:
        return "trust.worse"
    return "trust.better" if low > max(longer, 1 - longer, 0.5) else "trust.even"


def _rate(label: Label, part: Mapping[str, Any], name: str = "accuracy", colour: str = "blue", **more: Any) -> Rate:
    low, high = part.get("interval", (None, None))
    return Rate(label=label, colour=colour, at=part[name], low=low, high=high, **more)


def _rates(found: Mapping[str, Any]) -> tuple[Rate, ...]:
    rates = []
    if "accuracy" in found:
        longer = found["length"]["longer_wins"]
        rates += [
            _rate(Say("trust.accuracy"), found),
            *([_rate(Say("trust.used"), found["used"], about=Say("trust.used.about"))] if "used" in found else []),
            Rate(label=Say("rm.longer"), colour="slate", at=longer, about=Say("rm.longer.about")),
            Rate(label=Say("rm.shorter"), colour="slate", at=1 - longer),
        ]
    if "between_annotators" in found.get("agreement", {}):
        about = Say("trust.annotators.about")
        rates.append(
            _rate(Say("trust.annotators"), found["agreement"], "between_annotators", colour="gold", about=about)
        )
    if "accuracy" in found.get("thumbs", {}):
        rates.append(_rate(Say("trust.thumbs"), found["thumbs"]))
    return tuple(rates)


def _length(length: Mapping[str, Any]) -> tuple[Rate, ...]:
    rates = [
        _rate(Say(f"trust.side.{side}"), length[side])
        for side in ("longer", "shorter", "similar")
        if "accuracy" in length.get(side, {})
    ]
    if "prefers_longer" in length:
        low, high = length["prefers_longer_interval"]
        rates.append(
            Rate(
                label=Say("trust.prefers"),
                colour="orange",
                at=length["prefers_longer"],
                low=low,
                high=high,
                about=Say("trust.prefers.about"),
            )
        )
    return tuple(rates)


def _numbers(found: Mapping[str, Any]) -> list[tuple[Say, str, Say | None]]:
    """Numbers with what they mean."""
    numbers: list[tuple[Say, str, Say | None]] = []
    if "pairs" in found:
        numbers.append((Say("trust.pairs"), count(found["pairs"]), None))
    if "against_themselves" in found:
        numbers.append((Say("trust.themselves"), count(found["against_themselves"]), None))
    if "expected_calibration_error" in found:
        numbers.append((Say("rm.ece"), short(found["expected_calibration_error"]), Say("rm.ece.about")))
        numbers.append((Say("trust.nats"), short(found["nats"]), Say("trust.nats.about")))
    if "temperature" in found:
        numbers.append((Say("trust.temperature"), short(found["temperature"]), Say("trust.temperature.about")))
    for side, apart in found.get("disagreement", {}).items():
        numbers.append((Say(f"trust.apart.{side}"), short(apart), Say("trust.apart.about")))
    if "ties" in found:
        ties = found["ties"]
        values = {"ties": count(ties["ties"]), "pairs": count(ties["pairs"]), "always": percent(ties["always_tie"])}
        about = Say("trust.ties.about", values | {"threshold": short(max(0.0, ties["threshold"]))})
        numbers.append((Say("trust.ties"), percent(ties["accuracy"]), about))
    if "order_swap" in found:
        swap = found["order_swap"]
        about = Say("trust.swap.about", {"first": percent(swap["first_wins"]), "last": percent(swap["last_wins"])})
        numbers.append((Say("trust.swap"), percent(swap["consistent"]), about))
    return numbers


def _groups(found: Mapping[str, Any]) -> list[RateList]:
    lists = []
    named = dict(found.get("groups", {}))
    levels = {level: part for level, part in found.get("agreement", {}).get("levels", {}).items() if part["pairs"]}
    if levels:
        named["agreement"] = levels
    for name, parts in named.items():
        known = f"trust.group.{name}"
        title = Say(known) if known in WORDS else Say("trust.group.other", {"name": name})
        rates = tuple(_rate(_label(name, value, count(part["pairs"])), part) for value, part in parts.items())
        lists.append(RateList(title, rates))
    return lists


def _label(name: str, value: str, pairs: str) -> Label:
    if name == "agreement":
        return Say(f"trust.agree.{value}", {"pairs": pairs})
    return f"{value} ({pairs})"


def _probes(probes: Mapping[str, Any]) -> tuple[Rate, ...]:
    rates = []
    for name, part in probes.items():
        low, high = part["wins_interval"]
        label = Say(f"trust.probe.{name}", {"change": f"{'+' if part['change'] > 0 else ''}{grade(part['change'])}"})
        colour = "gold" if name in _SENSITIVE else "orange"
        rates.append(Rate(label=label, colour=colour, at=part["wins"], low=low, high=high))
    return tuple(rates)


def _best_of(best: Mapping[str, Any]) -> list[Card]:
    curve: Sequence[Mapping[str, Any]] = best.get("curve", [])
    cards = []
    for name, colour in (("score", "blue"), ("gold", "gold")):
        if not curve or name not in curve[0]:
            continue
        title = Say(f"trust.bestof.{name}")
        interval = "interval" if name == "score" else "gold_interval"
        intervals = [(row[interval][0], row[interval][1]) for row in curve]
        values = [row[name] for row in curve]
        picture = draw_best_of(title.key, [row["n"] for row in curve], values, intervals, colour)
        cards.append(Card(title=title, picture=picture, read=read(title, values), latest=short(values[-1])))
    return cards


def _bench(found: Mapping[str, Any]) -> list[tuple[str, tuple[Rate, ...], Say | None]]:
    """Title, shares, and what is missing, for each of the two benchmarks that is there."""
    lists = []
    for name, title in (("rewardbench", "RewardBench"), ("rewardbench_2", "RewardBench 2")):
        bench = found.get(name)
        if bench:
            parts: Mapping[str, float] = {**bench.get("sections", {}), **bench["subsets"]}
            rates = [Rate(label=Say("trust.bench.score"), colour="blue", at=_within(bench["score"]))]
            rates += [Rate(label=part, colour="slate", at=_within(value)) for part, value in parts.items()]
            lacks = Say("trust.bench.missing", {"n": count(len(bench["missing"]))}) if bench["missing"] else None
            lists.append((title, tuple(rates), lacks))
    return lists


def _within(share: float) -> float:
    """The score of RewardBench 2's ties may be a hundredth outside."""
    return min(1.0, max(0.0, share))
