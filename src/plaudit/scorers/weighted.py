"""Several scorers as one: their weighted sum, each score clipped first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plaudit.records import Group
from plaudit.scorers.seam import Scorer, Scores, arranged

__all__ = ["Part", "WeightedScorer", "clipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One scorer of a sum."""

    scorer: Scorer
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    """Lowest and highest score that counts."""


def clipped(value: float, clip: tuple[float, float] | None) -> float:
    """The value, or the bound that it lies beyond; NaN stays NaN."""
    if clip is None or math.isnan(value):
        return value
    return min(max(value, clip[0]), clip[1])


class WeightedScorer:
    """`sum of weight * clip(score)` over named scorers.

    Args:
        parts: at least one, by name. Its clipped scores, before the weight, are the part of that name in what `score`
            gives; the parts of its own are `name/part`, and where it is clipped, `name/clipped` is 1 where that changed
            the score.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = dict(parts)

    def score(self, groups: Sequence[Group]) -> Scores:
        """The sum for each answer; one that any of the scorers failed on has failed, and is NaN."""
        total = [0.0 for group in groups for _ in group.answers]
        shown: dict[str, tuple[tuple[float, ...], ...]] = {}
        failed: dict[tuple[int, int], str] = {}
        for name, part in self.parts.items():
            found = part.scorer.score(groups)
            found.check(groups)
            raw = found.flat()
            values = [clipped(value, part.clip) for value in raw]
            total = [sum_ + part.weight * value for sum_, value in zip(total, values, strict=True)]
            shown[name] = arranged(values, groups)
            if part.clip is not None:
                low, high = part.clip
                shown[f"{name}/clipped"] = arranged([float(value < low or value > high) for value in raw], groups)
            shown |= {f"{name}/{inner}": values_PG for inner, values_PG in found.parts.items()}
            failed |= {place: f"{name}: {why}" for place, why in found.failed.items()}
        return Scores(value_PG=arranged(total, groups), parts=shown, failed=failed)
