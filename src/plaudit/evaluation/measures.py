"""Numbers about two sets of answers to the same prompts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import sacrebleu

from plaudit.errors import ShapeError

__all__ = ["Share", "bleu", "distinct_2", "gain_in_sd", "win_rate"]


class Share(NamedTuple):
    """A share of cases with its 95 % interval."""

    value: float
    interval: tuple[float, float]


def win_rate(after: Sequence[float], before: Sequence[float]) -> Share:
    """How often the first of each pair is higher, a tie counting half, with a 95 % interval over prompts.

    Raises:
        ShapeError: the two differ in length, or are empty.
    """
    if len(after) != len(before) or not after:
        raise ShapeError(f"a win rate needs as many values on both sides, found {len(after)} and {len(before)}")
    wins = [0.5 if a == b else float(a > b) for a, b in zip(after, before, strict=True)]
    rate = statistics.fmean(wins)
    error = 1.96 * math.sqrt(statistics.pvariance(wins) / len(wins))
    return Share(rate, (max(0.0, rate - error), min(1.0, rate + error)))


def gain_in_sd(after: Sequence[float], before: Sequence[float]) -> float:
    """Rise of the mean, in standard deviations of the values before; NaN where those do not vary."""
    spread = statistics.pstdev(before)
    return (statistics.fmean(after) - statistics.fmean(before)) / spread if spread else math.nan


def distinct_2(answers: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Share of different ones among all pairs of neighbouring tokens, each answer cut to its length.

    Longer texts repeat more, so two models are compared at the same length, prompt by prompt: see `matched`.
    Li et al. 2016, https://arxiv.org/abs/1510.03055.
    """
    pairs = [pair for answer, length in zip(answers, lengths, strict=True) for pair in pairwise(answer[:length])]
    return len(set(pairs)) / len(pairs) if pairs else math.nan


def bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100, by sacrebleu; by characters where most references are Chinese.

    Post 2018, https://arxiv.org/abs/1804.08771.
    """
    chinese = statistics.fmean(any("\u4e00" <= c <= "\u9fff" for c in text) for text in references) > 0.5
    return float(sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize="zh" if chinese else "13a").score)
