"""The intervals of the long studies of reward models, by hand and by what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.agreement import mean_of

from plaudit.records import Comparison, Judgement, Preferred, Prompt


def judgements_of(count):
    return [
        Judgement(prompt=Prompt(text="?", id=str(i)), answers=("a", "b"), verdict=Comparison(preferred=Preferred.FIRST))
        for i in range(count)
    ]


def test_an_interval_by_hand():
    """Judgements 1/32, seeds 1/16, both together 1/32, which stands in the two others: 1/16 in all."""
    mean, half, by_seed = mean_of(judgements_of(2), [[1, 0], [1, 1]])
    assert (mean, by_seed) == (0.75, [0.5, 1.0])
    assert half == pytest.approx(1.96 / 4)


def test_one_seed_and_seeds_that_agree_leave_the_judgements_alone():
    won = [1.0, 0.0, 1.0, 1.0]
    alone = 1.96 * math.sqrt(0.75 / 16)  # squares (1/4)^2 three times and (3/4)^2
    assert mean_of(judgements_of(4), [won])[1] == pytest.approx(alone)
    assert mean_of(judgements_of(4), [won] * 3)[1] == pytest.approx(alone)


@pytest.mark.parametrize("of_seeds", [0.0, 0.03])
def test_an_interval_covers_what_it_promises(of_seeds):
    """The true mean is 0: nineteen intervals in twenty hold it, whether or not seeds differ as a whole."""
    random, covered, trials = np.random.default_rng(0), 0, 400
    judgements = judgements_of(100)
    for _ in range(trials):
        won = random.normal(0, 0.3, 100) + random.normal(0, of_seeds, (4, 1)) + random.normal(0, 0.5, (4, 100))
        mean, half, _ = mean_of(judgements, won.tolist())
        covered += abs(mean) < half
    assert 0.92 < covered / trials < 0.98
