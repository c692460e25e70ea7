"""Scorers that look at an answer's surface: how long it is, and how much it repeats itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from plaudit.errors import ScorerError
from plaudit.records import Answer, Group
from plaudit.scorers.seam import Scores, arranged, pairs

__all__ = ["LengthScorer", "RepetitionScorer", "holds_chinese", "nearness", "repeated_share", "words_of"]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+(?:['’][^\W{_HAN}]+)*")


def holds_chinese(text: str) -> bool:
    """Whether any character is a Chinese one."""
    return re.search(f"[{_HAN}]", text) is not None


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, punctuation left out; each Chinese character is a word."""
    return _WORD.findall(text.lower())


def nearness(length: int, target: int, *, tolerance: int = 0, side: Literal["both", "over", "under"] = "both") -> float:
    """How near a length is to a target: 0 there, lower by 1 for each `target` units away from it.

        -max(0, distance - tolerance) / target

    Args:
        length: 0 or more.
        target: 1 or more.
        tolerance: units away that cost nothing.
        side: the distances that cost: all, only of what is longer, or only of what is shorter.
    """
    away = {"both": abs(length - target), "over": length - target, "under": target - length}[side]
    return -max(0, away - tolerance) / target


def repeated_share(words: Sequence[str], n: int) -> float:
    """The share of n-grams that stood in the text before, in [0, 1): 0 where fewer than two n-grams fit.

    One minus distinct-n (Li et al. 2016, https://arxiv.org/abs/1510.03055).
    """
    grams = list(zip(*(islice(words, start, None) for start in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class LengthScorer:
    """Scores answers by `nearness` to a length.

    Args:
        target: the length that costs nothing.
        unit: `characters`, or `tokens` of whoever sampled the answer, its end token included.
        tolerance: see `nearness`.
        side: see `nearness`.
    """

    def __init__(
        self,
        target: int,
        *,
        unit: Literal["tokens", "characters"] = "characters",
        tolerance: int = 0,
        side: Literal["both", "over", "under"] = "both",
    ) -> None:
        self.target = target
        self.unit = unit
        self.tolerance = tolerance
        self.side = side

    def score(self, groups: Sequence[Group]) -> Scores:
        """From 0 down; at an empty answer -1 + tolerance / target where `side` counts it.

        Raises:
            ScorerError: tokens are asked for, but an answer is words alone.
        """
        values = [
            nearness(self._length(answer), self.target, tolerance=self.tolerance, side=self.side)
            for _, answer in pairs(groups)
        ]
        return Scores(value_PG=arranged(values, groups))

    def _length(self, answer: Answer) -> int:
        if self.unit == "characters":
            return len(answer.text)
        if answer.text and not answer.token_ids:
            raise ScorerError(
                "length in tokens counts a policy's own tokens while it is tuned; this answer is words alone, as "
                f"all are that come from a file: {answer.text[:60]!r}; set unit to characters"
            )
        return len(answer.token_ids)


class RepetitionScorer:
    """Minus the `repeated_share` of an answer's n-grams of words.

    Args:
        n: words in an n-gram.
    """

    def __init__(self, n: int = 3) -> None:
        self.n = n

    def score(self, groups: Sequence[Group]) -> Scores:
        """From 0 (nothing is repeated) toward -1."""
        values = [-repeated_share(words_of(answer.text), self.n) for _, answer in pairs(groups)]
        return Scores(value_PG=arranged(values, groups))
