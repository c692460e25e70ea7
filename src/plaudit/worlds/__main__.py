"""Print a few examples of the world, and how often its properties occur: `python -m plaudit.worlds [SEED]`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from plaudit.records import Demonstration
from plaudit.worlds import ReviewWorld, world
from plaudit.worlds.taste import WEIGHTS


def examples(reviews: ReviewWorld, shown: Sequence[Demonstration]) -> str:
    """Each demonstration with its gold and what it has."""
    parts = []
    for prompt, answer in ((one.prompt, one.answer) for one in shown):
        found = ", ".join(f"{name} {value:g}" for name, value in reviews.properties(prompt, answer).items())
        parts.append(f"{prompt.text}{answer}\n  [gold {reviews.gold(prompt, answer):.2f}: {found}]")
    return "\n\n".join(parts)


def rates(reviews: ReviewWorld, shown: Sequence[Demonstration]) -> str:
    """Share of demonstrations with each property; mean and standard deviation of gold."""
    found = [reviews.properties(one.prompt, one.answer) for one in shown]
    golds = [reviews.gold(one.prompt, one.answer) for one in shown]
    lines = [f"{name:<9} {statistics.fmean(values[name] > 0 for values in found):.2f}" for name in WEIGHTS]
    return "\n".join([*lines, f"gold      {statistics.fmean(golds):.2f} (sd {statistics.stdev(golds):.2f})"])


if __name__ == "__main__":
    seed = int(sys.argv[1]) if sys.argv[1:] else 0
    reviews = world("reviews")
    some, many = reviews.demonstrations(8, seed), reviews.demonstrations(1000, seed)
    sys.stdout.write(f"{examples(reviews, some)}\n\nof 1000 demonstrations:\n{rates(reviews, many)}\n")
