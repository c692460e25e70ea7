"""What the page shows, section by section, as plain values for the template: nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from plaudit.report.charts import Bin, Picture, draw_calibration, draw_curve, draw_distance, draw_spread
from plaudit.report.curves import Curve, StageCurves, against_distance, stage_word
from plaudit.report.folder import Row, RunFolder, number
from plaudit.report.numerals import count, duration, percent, short
from plaudit.report.words import WORDS, Say

__all__ = [
    "Card",
    "Label",
    "Rate",
    "RewardView",
    "StageView",
    "calibration_card",
    "flat",
    "name_of_stage",
    "pair",
    "read",
    "reward_view",
    "spreads",
    "stage_views",
]

Label: TypeAlias = Say | str
"""A text of the house, or a name from the run, which is shown as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A picture with what is said around it."""

    title: Label
    picture: Picture
    read: Say
    """The picture in one sentence, for those who do not see it."""
    stage: Label = ""
    """Whose picture it is, where several stages share a grid."""
    about: Say | None = None
    latest: str = ""
    legend: tuple[tuple[str, Label], ...] = ()
    """Colour and meaning of each line, where there are several."""
    guide: Say | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """The curves of one stage."""

    title: Say
    main: tuple[Card, ...]
    rest: tuple[Card, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of 1 on a line from 0 to 1, maybe with its interval."""

    label: Label
    colour: str
    at: float
    low: float | None = None
    high: float | None = None
    about: Say | None = None

    @property
    def text(self) -> str:
        """The share in percent."""
        return percent(self.at)

    @property
    def interval(self) -> Say | None:
        """The interval in words."""
        if self.low is None or self.high is None:
            return None
        return Say("interval", {"low": percent(self.low), "high": percent(self.high)})


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardView:
    """What is known of the reward model on judgements that it was not trained on."""

    rates: tuple[Rate, ...]
    facts: tuple[tuple[Say, str, Say | None], ...]
    calibration: Card | None
    by_k: tuple[tuple[str, str, str, str], ...]
    """K, accuracy, interval, pairs."""
    learned: tuple[tuple[str, str], ...]
    """Judgements to train on, by their loss, and what was learned beside the scores."""
    others: tuple[tuple[str, str], ...]


def name_of_stage(stage: str) -> Label:
    """A stage's name for people."""
    word = stage_word(stage)
    return Say(word) if word else stage


def stage_views(stages: Sequence[StageCurves]) -> tuple[StageView, ...]:
    """The policy's curves, then those of all stages before it, where each card says whose it is."""
    policy = [stage for stage in stages if stage.stage == "policy"]
    before = [stage for stage in stages if stage.stage != "policy"]
    found = [_policy_view(stage) for stage in policy]
    if before:
        main = [
            _stage_card(f"b{place}-{index}", stage, curve)
            for place, stage in enumerate(before)
            for index, curve in enumerate(stage.main)
        ]
        rest = [
            _stage_card(f"e{place}-{index}", stage, curve)
            for place, stage in enumerate(before)
            for index, curve in enumerate(stage.rest)
        ]
        title = Say("curves.before" if policy else "curves.stages")
        found.append(StageView(title=title, main=tuple(main), rest=tuple(rest)))
    return tuple(found)


def _title(stage: StageCurves) -> Say:
    word = stage_word(stage.stage)
    return Say("curves.stage", {"stage": f"@{word}" if word else stage.stage, "steps": count(stage.steps)})


def _policy_view(stage: StageCurves) -> StageView:
    """Reward against distance stands right after the curves that it is made of."""
    main = [_curve_card(f"p{index}", stage.stage, curve) for index, curve in enumerate(stage.main)]
    place = sum(curve.word in ("m.reward", "m.gold", "m.kl") for curve in stage.main)
    main[place:place] = [_distance_card(f"d{index}", *pair) for index, pair in enumerate(against_distance(stage))]
    rest = [_curve_card(f"r{index}", stage.stage, curve) for index, curve in enumerate(stage.rest)]
    return StageView(title=_title(stage), main=tuple(main), rest=tuple(rest))


def _stage_card(id: str, stage: StageCurves, curve: Curve) -> Card:
    return replace(_curve_card(id, stage.stage, curve), stage=name_of_stage(stage.stage))


def _curve_card(id: str, stage: str, curve: Curve) -> Card:
    title = Say(curve.word) if curve.word else curve.lines[0].name
    about = next((key for key in (f"{curve.word}.{stage}.about", f"{curve.word}.about") if key in WORDS), None)
    first = curve.lines[0]
    legend: tuple[tuple[str, Label], ...] = ()
    if len(curve.lines) > 1:
        legend = tuple((line.colour, Say(line.word)) for line in curve.lines)
    return Card(
        title=title,
        about=Say(about) if about else None,
        picture=draw_curve(id, curve),
        latest=short(first.y[-1]),
        read=read(title, first.y),
        legend=legend,
        guide=None if curve.guide is None else Say("curves.guide", {"value": short(curve.guide)}),
    )


def _distance_card(id: str, curve: Curve, steps: Sequence[float]) -> Card:
    title = Say(curve.word)
    return Card(
        title=title,
        about=Say(f"{curve.word}.about"),
        picture=draw_distance(id, curve, steps),
        read=read(title, curve.lines[0].y),
    )


def read(title: Label, y: Sequence[float]) -> Say:
    """A line in one sentence."""
    values = {
        "title": f"@{title.key}" if isinstance(title, Say) else title,
        "first": short(y[0]),
        "last": short(y[-1]),
        "n": count(len(y)),
        "low": short(min(y)),
        "high": short(max(y)),
    }
    return Say("chart.read", values)


def spreads(evaluation: Sequence[Row]) -> tuple[Card, ...]:
    """How grades and lengths are spread before and after, for each that at least two answers a side have."""
    found = []
    for name in ("reward", "gold", "tokens"):
        sides = [_side(evaluation, side, name) for side in ("before", "after")]
        if min(len(side) for side in sides) < 2:
            continue
        title = Say(f"cmp.spread.{name}")
        found.append(
            Card(
                title=title,
                about=Say("cmp.spread.about"),
                picture=draw_spread(name, *sides),
                read=read(title, [sum(side) / len(side) for side in sides]),
                legend=(("orange", Say("before")), ("blue", Say("after"))),
            )
        )
    return tuple(found)


def _side(evaluation: Sequence[Row], side: str, name: str) -> list[float]:
    answers = [row.get(side) for row in evaluation]
    values = [number(answer.get(name)) for answer in answers if isinstance(answer, dict)]
    return [value for value in values if value is not None]


def pair(value: object) -> tuple[float, float] | tuple[None, None]:
    """The two numbers of an interval, or twice nothing."""
    if isinstance(value, list) and len(value) == 2:
        low, high = number(value[0]), number(value[1])
        if low is not None and high is not None:
            return low, high
    return None, None


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An inner object, or an empty one."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def reward_view(folder: RunFolder) -> RewardView | None:
    """The reward model's section, or nothing where it was not evaluated."""
    found = folder.reward_model
    if not found:
        return None
    rates = []
    measured = found if "accuracy" in found else part(part(found, "thumbs"), "signed")
    accuracy, longer = number(measured.get("accuracy")), number(part(found, "length").get("longer_wins"))
    if accuracy is not None:
        low, high = pair(measured.get("interval"))
        rates.append(Rate(label=Say("rm.accuracy"), colour="blue", at=accuracy, low=low, high=high))
    if longer is not None:
        rates.append(Rate(label=Say("rm.longer"), colour="slate", at=longer, about=Say("rm.longer.about")))
        rates.append(Rate(label=Say("rm.shorter"), colour="slate", at=1 - longer))
    facts: list[tuple[Say, str, Say | None]] = []
    judged = number(found.get("judgements"))
    if judged is not None:
        facts.append((Say("rm.judgements.about"), count(judged), None))
    pairs, error = number(found.get("pairs")), number(found.get("expected_calibration_error"))
    if pairs is not None:
        facts.append((Say("rm.pairs.about"), count(pairs), None))
    if error is not None:
        facts.append((Say("rm.ece"), short(error), Say("rm.ece.about")))
    known = {
        "accuracy",
        "interval",
        "pairs",
        "judgements",
        "expected_calibration_error",
        "calibration",
        "groups",
        "learned",
    }
    return RewardView(
        rates=tuple(rates),
        facts=tuple(facts),
        calibration=calibration_card(found.get("calibration")),
        by_k=tuple(_by_k(part(found, "groups").get("answers"))),
        learned=flat(part(found, "learned")),
        others=flat({name: value for name, value in found.items() if name not in known}),
    )


def calibration_card(rows: object) -> Card | None:
    """The picture of a reliability table, or nothing where it has no rows."""
    bins = []
    for row in rows if isinstance(rows, list) else []:
        values = [number(row.get(name)) for name in ("predicted", "observed", "count")] if isinstance(row, dict) else []
        if values and values[0] is not None and values[1] is not None and (values[2] or 0) > 0:
            bins.append(Bin(values[0], values[1], values[2] or 0))
    if not bins:
        return None
    bins.sort(key=lambda found: found.predicted)
    return Card(
        title=Say("rm.calibration"),
        about=Say("rm.calibration.about"),
        picture=draw_calibration(bins),
        read=read(Say("rm.calibration"), [found.observed for found in bins]),
    )


def _by_k(value: object) -> list[tuple[str, str, str, str]]:
    if isinstance(value, list):
        value = {str(row.get("k", "")): row for row in value if isinstance(row, dict)}
    if not isinstance(value, dict):
        return []
    found = []
    for k, row in sorted(value.items(), key=lambda item: (len(item[0]), item[0])):
        inner: Mapping[str, Any] = row if isinstance(row, dict) else {"accuracy": row}
        accuracy, pairs = number(inner.get("accuracy")), number(inner.get("pairs"))
        low, high = pair(inner.get("interval"))
        if accuracy is not None:
            interval = f"{percent(low)} – {percent(high)}" if low is not None and high is not None else ""
            found.append((k, percent(accuracy), interval, "" if pairs is None else count(pairs)))
    return found


def flat(value: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Every leaf of nested objects with its full name, as text."""
    found: list[tuple[str, str]] = []
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            found += flat(inner, f"{prefix}{name}.")
        elif isinstance(inner, list):
            found.append((f"{prefix}{name}", ", ".join(_text(item) for item in inner)))
        else:
            found.append((f"{prefix}{name}", _text(inner)))
    return tuple(found)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return short(value)
    return str(value)


def seconds_text(value: float | None) -> str:
    """A duration, or a dash where none is known."""
    return "–" if value is None else duration(value)
