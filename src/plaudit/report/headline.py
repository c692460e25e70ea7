"""The first screen of the report: what the run is, how far it got, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from plaudit.report.curves import STAGES, StageCurves, stage_word
from plaudit.report.folder import Row, RunFolder, number
from plaudit.report.lineage import Made
from plaudit.report.numerals import count, duration, grade, memory, percent, short, signed
from plaudit.report.view import Label, Rate, flat, name_of_stage, pair
from plaudit.report.words import Say

__all__ = ["Headline", "Share", "StageState", "Tile", "headline"]


@dataclass(frozen=True, slots=True)
class StageState:
    """How far one stage got: `done`, `open` or `wait`."""

    label: Label
    state: str
    text: Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number with what it means."""

    label: Say
    value: str
    about: Say
    unit: Say | None = None
    detail: tuple[Say, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """A stage's part of the time."""

    label: Label
    text: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The first screen."""

    done: bool
    facts: tuple[Say, ...]
    pipeline: tuple[StageState, ...]
    verdict: Say
    about: Say
    rate: str
    prompts: Say | None
    rates: tuple[Rate, ...]
    tiles: tuple[Tile, ...]
    columns: int
    """Tiles side by side on a wide screen, so that the last row is as full as can be."""
    cost: tuple[Say, ...]
    shares: tuple[Share, ...]
    others: tuple[tuple[str, str], ...]


_ITSELF = "_win_rate_of_before_against_itself"
_TOLD = frozenset(
    {
        "kl_nats",
        "prompts",
        "peak_memory_mb",
        "seconds_by_stage",
        "cpu_seconds_by_stage",
        "reward_accuracy",
        "reward_accuracy_interval",
    }
    | {
        f"{name}{end}"
        for name in ("gold", "reward")
        for end in ("_win_rate", "_win_rate_interval", "_gain_sd", _ITSELF)
    }
    | {
        f"{name}_{side}"
        for name in ("gold", "reward", "distinct_2", "parse_share", "answer_tokens", "bleu")
        for side in ("before", "after")
    }
)
"""Names of the summary that the first screen shows in words; the others stand in a table."""


def headline(folder: RunFolder, stages: Sequence[StageCurves], made: Sequence[Made]) -> Headline:
    """What a reader must know first; a run without a summary shows its latest numbers instead."""
    summary = folder.summary
    judge = next((name for name in ("gold", "reward") if number(summary.get(f"{name}_win_rate")) is not None), None)
    prompts = number(summary.get("prompts")) or len(folder.evaluation)
    tiles = _tiles(folder) or _latest(stages)
    shares = _shares(summary.get("seconds_by_stage"))
    return Headline(
        done=bool(summary),
        facts=_facts(folder),
        pipeline=_pipeline(folder, stages, made),
        verdict=_verdict(folder, judge),
        about=Say(f"verdict.{judge}.about") if judge else Say("verdict.open.about"),
        rate=percent(float(summary[f"{judge}_win_rate"])) if judge else "",
        prompts=Say("prompts", {"n": count(prompts)}) if prompts else None,
        rates=_rates(folder, judge),
        tiles=tiles,
        columns=min((4, 3, 5), key=lambda columns: -len(tiles) % columns) if len(tiles) > 5 else max(1, len(tiles)),
        cost=_cost(shares, _shares(summary.get("cpu_seconds_by_stage")), number(summary.get("peak_memory_mb"))),
        shares=_as_shares(shares),
        others=flat({name: value for name, value in summary.items() if name not in _TOLD}),
    )


def _facts(folder: RunFolder) -> tuple[Say, ...]:
    recipe = folder.recipe
    found = {
        "fact.world": _setting(recipe, "world", "name") or _text(recipe.get("world")),
        "fact.model": _setting(recipe, "model", "path"),
        "fact.algorithm": _setting(recipe, "policy", "algorithm"),
        "fact.seed": _text(recipe.get("seed")),
    }
    return tuple(Say(key, {"value": value}) for key, value in found.items() if value)


def _setting(recipe: Row, section: str, name: str) -> str:
    inner = recipe.get(section)
    return _text(inner.get(name)) if isinstance(inner, dict) else ""


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _pipeline(folder: RunFolder, stages: Sequence[StageCurves], made: Sequence[Made]) -> tuple[StageState, ...]:
    logged = {stage.stage: stage.steps for stage in stages}
    finished = {line.stage for line in made}
    if folder.evaluation:
        logged.setdefault("evaluate", 0)
    planned = {stage for stage in STAGES if isinstance(folder.recipe.get(stage), dict)} - {"evaluate"}
    if "policy" in planned:
        planned.add("evaluate")
    wanted = [stage for stage in STAGES if stage in planned or stage in logged or stage in finished]
    reached = max((index for index, stage in enumerate(wanted) if stage in logged or stage in finished), default=-1)
    found = []
    for index, stage in enumerate(wanted):
        label = name_of_stage(stage)
        if folder.summary or stage in finished or index < reached:
            found.append(StageState(label, "done", Say("state.stage.done")))
        elif index == reached:
            found.append(StageState(label, "open", _progress(folder, stage, logged.get(stage, 0))))
        else:
            found.append(StageState(label, "wait", Say("state.wait")))
    return tuple(found)


def _progress(folder: RunFolder, stage: str, step: int) -> Say:
    section = folder.recipe.get(stage)
    steps = number(section.get("steps")) if isinstance(section, dict) else None
    if not step:
        return Say("state.open")
    if steps is None:
        return Say("state.step", {"step": count(step)})
    return Say("state.step.of", {"step": count(step), "steps": count(steps)})


def _verdict(folder: RunFolder, judge: str | None) -> Say:
    if judge is None:
        return Say("verdict.open")
    rate = float(folder.summary[f"{judge}_win_rate"])
    low, high = pair(folder.summary.get(f"{judge}_win_rate_interval"))
    better = (rate if low is None else low) > 0.5
    worse = (rate if high is None else high) < 0.5
    ending = "better" if better else "worse" if worse else "even"
    return Say(f"verdict.{judge}.{ending}")


def _rates(folder: RunFolder, judge: str | None) -> tuple[Rate, ...]:
    wanted = (
        ("rate.gold", "gold_win_rate", "blue"),
        ("rate.reward", "reward_win_rate", "blue" if judge == "reward" else "teal"),
        ("rate.itself", f"{judge}{_ITSELF}", "slate"),
    )
    found = []
    for word, name, colour in wanted:
        at = number(folder.summary.get(name))
        if at is not None:
            low, high = pair(folder.summary.get(f"{name}_interval"))
            about = Say("rate.itself.about") if word == "rate.itself" else None
            found.append(Rate(label=Say(word), colour=colour, at=at, low=low, high=high, about=about))
    return tuple(found)


def _tiles(folder: RunFolder) -> tuple[Tile, ...]:
    """One tile for each number of the summary that has words, in the order in which they are read."""
    summary = folder.summary
    return (
        *_gain(summary, "gold"),
        *_gain(summary, "reward"),
        *_distance(summary),
        *_two_sides(summary, "distinct_2", "tile.distinct", short, kept=True),
        *_two_sides(summary, "parse_share", "tile.parse", percent, kept=True),
        *_two_sides(summary, "answer_tokens", "tile.length", short),
        *_two_sides(summary, "bleu", "tile.bleu", short),
        *_accuracy(folder),
    )


def _gain(summary: Row, name: str) -> Iterator[Tile]:
    value, before, after = (number(summary.get(f"{name}_{end}")) for end in ("gain_sd", "before", "after"))
    if value is not None:
        detail: tuple[Say, ...] = ()
        if before is not None and after is not None:
            detail = (Say("from", {"before": grade(before), "after": grade(after)}),)
        yield _tile(f"tile.{name}_gain", signed(value), unit="unit.sd", detail=detail)


def _distance(summary: Row) -> Iterator[Tile]:
    value = number(summary.get("kl_nats"))
    if value is not None:
        yield _tile("tile.kl", short(value), unit="unit.nats")


def _two_sides(
    summary: Row, name: str, word: str, write: Callable[[float], str], *, kept: bool = False
) -> Iterator[Tile]:
    before, after = number(summary.get(f"{name}_before")), number(summary.get(f"{name}_after"))
    if after is None:
        return
    detail = [] if before is None else [Say("was", {"value": write(before)})]
    if before and kept:
        detail.append(Say("kept", {"value": percent(after / before)}))
    yield _tile(word, write(after), detail=tuple(detail))


def _accuracy(folder: RunFolder) -> Iterator[Tile]:
    value = number(folder.summary.get("reward_accuracy"))
    if value is not None:
        low, high = pair(folder.summary.get("reward_accuracy_interval") or folder.reward_model.get("interval"))
        detail = () if low is None or high is None else (_interval(low, high),)
        yield _tile("tile.accuracy", percent(value), detail=detail)


def _tile(word: str, value: str, *, unit: str = "", detail: tuple[Say, ...] = ()) -> Tile:
    about = Say(f"{word}.about")
    return Tile(label=Say(word), value=value, about=about, unit=Say(unit) if unit else None, detail=detail)


def _interval(low: float, high: float) -> Say:
    return Say("interval", {"low": percent(low), "high": percent(high)})


def _latest(stages: Sequence[StageCurves]) -> tuple[Tile, ...]:
    """The last numbers of a policy that is still being tuned."""
    policy = next((stage for stage in stages if stage.stage == "policy"), None)
    if policy is None:
        return ()
    about = Say("now.about", {"stage": f"@{stage_word('policy')}", "step": count(policy.steps)})
    latest = {curve.word: curve.lines[0].y[-1] for curve in policy.main}
    wanted = (("m.reward", ""), ("m.gold", ""), ("m.kl", "unit.nats"), ("m.length", "cmp.tokens"))
    return tuple(
        Tile(
            label=Say(f"now.{word.removeprefix('m.')}"),
            value=short(latest[word]),
            unit=Say(unit) if unit else None,
            about=about,
        )
        for word, unit in wanted
        if word in latest
    )


def _shares(value: object) -> list[tuple[str, float]]:
    if not isinstance(value, Mapping):
        return []
    found = [(str(stage), number(seconds)) for stage, seconds in value.items()]
    return [(stage, seconds) for stage, seconds in found if seconds is not None and seconds >= 0]


def _cost(shares: Sequence[tuple[str, float]], cpu: Sequence[tuple[str, float]], peak: float | None) -> tuple[Say, ...]:
    found = []
    if shares:
        found.append(Say("time.total", {"value": duration(sum(seconds for _, seconds in shares))}))
    if cpu:
        found.append(Say("time.cpu", {"value": duration(sum(seconds for _, seconds in cpu))}))
    if peak is not None:
        found.append(Say("time.memory", {"value": memory(peak)}))
    return tuple(found)


def _as_shares(shares: Sequence[tuple[str, float]]) -> tuple[Share, ...]:
    whole = sum(seconds for _, seconds in shares)
    if whole <= 0:
        return ()
    return tuple(Share(name_of_stage(stage), duration(seconds), seconds / whole) for stage, seconds in shares)
