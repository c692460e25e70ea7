"""From rows of metrics to the curves that are drawn: which belong together, in which order, and how they are thinned.

Names of metrics are `group/name`. Known names have a place, a colour and an explanation; every other number in
the file is shown under its own name, so that nothing that a stage logs is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from plaudit.report.folder import Row, numbers

__all__ = ["STAGES", "Curve", "Line", "StageCurves", "against_distance", "curves", "stage_word", "thin"]

STAGES = ("language", "sft", "collect", "reward", "policy", "evaluate")
"""The stages in the order in which they run."""

_POINTS = 400
"""More points than this on one curve are drawn as means of equal pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series of a picture; steps that lack the number are not in it."""

    name: str
    """The metric's name in the file."""
    word: str
    """Key of its name for people, or nothing: then the metric's name is shown."""
    colour: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One picture: lines over the steps of one stage."""

    word: str
    """Key of the title and, with `.about`, of the sentence below it; nothing for an unknown metric."""
    lines: tuple[Line, ...]
    guide: float | None = None
    """A level drawn across, such as the KL that an adaptive beta steers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCurves:
    """The pictures of one stage: those that matter, and the rest."""

    stage: str
    steps: int
    """Steps done, up to the last that was logged."""
    main: tuple[Curve, ...]
    rest: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """A metric that the report has words for: its aliases, and those of a second line in the same picture."""

    word: str
    names: tuple[str, ...]
    beside: tuple[str, ...] = ()
    colour: str = "blue"


_KNOWN = (
    _Known("m.reward", ("reward", "reward_mean", "score"), colour="blue"),
    _Known("m.gold", ("gold", "gold_mean"), colour="gold"),
    _Known("m.kl", ("kl", "kl_nats", "kl_per_answer"), colour="purple"),
    _Known("m.length", ("answer_tokens", "length", "tokens", "tokens_per_answer", "answer_length"), colour="teal"),
    _Known("m.entropy", ("entropy",), colour="teal"),
    _Known("m.beta", ("beta", "kl_beta"), colour="purple"),
    _Known("m.explained", ("explained_variance",), colour="blue"),
    _Known("m.clip", ("clip_share", "clipped", "clip_fraction", "held_share"), colour="orange"),
    _Known("m.cut", ("cut_share", "cut", "unfinished_share"), colour="orange"),
    _Known(
        "m.loss", ("loss", "policy_loss"), ("held_out_loss", "validation_loss", "eval_loss", "loss_held_out"), "blue"
    ),
    _Known("m.perplexity", ("held_out_perplexity", "perplexity"), colour="teal"),
    _Known("m.accuracy", ("accuracy",), ("held_out_accuracy", "accuracy_held_out"), "blue"),
    _Known("m.margin", ("margin",), colour="teal"),
    _Known("m.value_loss", ("value_loss", "critic_loss"), colour="orange"),
    _Known("m.kl_to_old", ("kl_to_old",), colour="purple"),
    _Known("m.kl_whole", ("kl_whole",), colour="purple"),
)

_NOT_CURVES = frozenset({"step"})
_BESIDE_COLOUR = "orange"


def stage_word(stage: str) -> str:
    """Key of a stage's name for people, or nothing where there is none."""
    return f"stage.{stage}" if stage in STAGES else ""


def curves(metrics: Sequence[Row], *, kl_target: float | None = None) -> tuple[StageCurves, ...]:
    """The pictures of every stage that logged something, in the order in which stages run."""
    stages: dict[str, list[Row]] = {}
    for row in metrics:
        stages.setdefault(str(row.get("stage", "")), []).append(row)
    place = {stage: index for index, stage in enumerate(STAGES)}
    ordered = sorted(stages, key=lambda stage: place.get(stage, len(STAGES)))
    return tuple(_of_stage(stage, stages[stage], kl_target) for stage in ordered)


def _of_stage(stage: str, rows: Sequence[Row], kl_target: float | None) -> StageCurves:
    values = [numbers(row) for row in rows]
    names = [name for name in dict.fromkeys(name for row in values for name in row) if name not in _NOT_CURVES]
    base: dict[str, str] = {}
    for name in sorted(names, key=lambda name: not name.startswith(f"{stage}/")):
        base.setdefault(name.partition("/")[2] or name, name)
    left = dict.fromkeys(names)
    main = []
    for known in _KNOWN:
        first = next((base[alias] for alias in known.names if base.get(alias) in left), None)
        second = next((base[alias] for alias in known.beside if base.get(alias) in left), None)
        chosen = [name for name in (first, second) if name is not None]
        if not chosen:
            continue
        lines = tuple(
            Line(
                name=name,
                word=f"{known.word}.beside" if name != first else "training" if second else known.word,
                colour=known.colour if name == first else _BESIDE_COLOUR,
                **_points(values, name),
            )
            for name in chosen
        )
        for name in chosen:
            del left[name]
        guide = kl_target if known.word == "m.kl" else None
        main.append(Curve(word=known.word, lines=lines, guide=guide))
    rest = tuple(_unknown(stage, name, values) for name in left)
    done = int(values[-1]["step"]) + (values[0]["step"] == 0)
    return StageCurves(stage=stage, steps=done, main=tuple(main), rest=rest)


def _unknown(stage: str, name: str, values: Sequence[dict[str, float]]) -> Curve:
    line = Line(name=name, word="", colour="slate", **_points(values, name))
    return Curve(word="", lines=(line,))


def _points(values: Iterable[dict[str, float]], name: str) -> dict[str, tuple[float, ...]]:
    points = [(row["step"], row[name]) for row in values if name in row and "step" in row]
    return {"x": tuple(x for x, _ in points), "y": tuple(y for _, y in points)}


def against_distance(stage: StageCurves) -> Iterator[tuple[Curve, tuple[float, ...]]]:
    """Reward, and gold where there is one, against the square root of KL: how much is gained for each step away.

    Only steps that logged both numbers take part, and come with the curve; a KL estimate below 0 counts as 0.
    """
    by_word = {curve.word: curve.lines[0] for curve in stage.main}
    distance = by_word.get("m.kl")
    if distance is None:
        return
    root = {x: math.sqrt(max(y, 0.0)) for x, y in zip(distance.x, distance.y, strict=True)}
    for word in ("m.reward", "m.gold"):
        line = by_word.get(word)
        if line is None:
            continue
        points = [(step, root[step], y) for step, y in zip(line.x, line.y, strict=True) if step in root]
        if len(points) >= 2:
            steps, x, y = zip(*points, strict=True)
            moved = replace(line, word=word, x=x, y=y)
            yield Curve(word=f"{word}.distance", lines=(moved,)), steps


def thin(line: Line, points: int = _POINTS) -> Line:
    """At most `points` points, each the mean of an equal piece of the line at the piece's last step."""
    size = math.ceil(len(line.x) / points)
    if size <= 1:
        return line
    pieces = [line.y[start : start + size] for start in range(0, len(line.y), size)]
    ends = [min(start + size, len(line.x)) - 1 for start in range(0, len(line.x), size)]
    return replace(line, x=tuple(line.x[end] for end in ends), y=tuple(sum(piece) / len(piece) for piece in pieces))
