"""Scorers that count what an answer shares with the prompt's reference: BLEU, chrF, ROUGE, each from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import sacrebleu

from plaudit.errors import RecipeError
from plaudit.records import Group
from plaudit.scorers.seam import Scores, arranged, pairs, reference_of
from plaudit.scorers.surface import holds_chinese, words_of

__all__ = ["OverlapScorer", "bleu", "chrf", "rouge"]

Overlap = Callable[[str, str], float]
"""What an answer and a reference share, 0 to 1."""


class OverlapScorer:
    """Scores answers by what they share with the reference of their prompt.

    Args:
        overlap: (answer, reference) to a number.
    """

    def __init__(self, overlap: Overlap) -> None:
        self.overlap = overlap

    def score(self, groups: Sequence[Group]) -> Scores:
        """From 0 to 1; an empty answer shares nothing.

        Raises:
            RecordError: a prompt has no reference; names it.
        """
        values = [self.overlap(answer.text, reference_of(prompt)) for prompt, answer in pairs(groups)]
        return Scores(value_PG=arranged(values, groups))


def bleu(tokenize: str = "auto") -> Overlap:
    """Sentence BLEU by sacrebleu, divided by 100: exponential smoothing, and no longer n-grams than fit in.

    Papineni et al. 2002, https://aclanthology.org/P02-1040; Post 2018, https://arxiv.org/abs/1804.08771.

    Args:
        tokenize: sacrebleu's name of a tokenizer; `auto` is `zh` for a reference with Chinese characters, else `13a`.
    """

    @cache
    def metric(name: str) -> Any:
        return sacrebleu.BLEU(tokenize=name, effective_order=True)

    def shared(answer: str, reference: str) -> float:
        name = tokenize if tokenize != "auto" else "zh" if holds_chinese(reference) else "13a"
        return float(metric(name).sentence_score(answer, [reference]).score) / 100

    return shared


def chrf(word_order: int = 0) -> Overlap:
    """Sentence chrF by sacrebleu, divided by 100: F2-score of n-grams of 1 to 6 characters.

    Popović 2015, https://aclanthology.org/W15-3049.

    Args:
        word_order: longest n-gram of words that is counted too; 2 is chrF++.
    """
    metric = sacrebleu.CHRF(word_order=word_order)

    def shared(answer: str, reference: str) -> float:
        return float(metric.sentence_score(answer, [reference]).score) / 100

    return shared


class _Words:
    """Tokenizes for `rouge_score`, whose own tokenizer drops every character that is not Latin."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return words_of(text)


def rouge(measure: Literal["rouge1", "rouge2", "rougeL"] = "rougeL") -> Overlap:
    """ROUGE F1-score by the package rouge-score; each Chinese character is a word; no stemming.

    Lin 2004, https://aclanthology.org/W04-1013.

    Raises:
        RecipeError: the package is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise RecipeError("a scorer by rouge needs the package rouge-score: pip install 'plaudit[rouge]'") from error
    metric = RougeScorer([measure], tokenizer=_Words())

    def shared(answer: str, reference: str) -> float:
        return float(metric.score(reference, answer)[measure].fmeasure)

    return shared
