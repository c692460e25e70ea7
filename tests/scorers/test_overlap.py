"""BLEU, chrF and ROUGE to the reference: by hand where that is short, in English and in Chinese."""

from __future__ import annotations

import math
import sys

import pytest

from plaudit.errors import RecipeError, RecordError
from plaudit.records import Prompt
from plaudit.scorers import OverlapScorer
from plaudit.scorers.overlap import bleu, chrf, rouge
from plaudit.scorers.seam import group_of_texts

EVERY = [bleu(), chrf(), chrf(2), rouge(), rouge("rouge1")]


@pytest.mark.parametrize("overlap", EVERY)
@pytest.mark.parametrize(("text", "other"), [("the cat sat on the mat", "dogs bark"), ("我喜欢这本书", "天气晴朗")])
def test_itself_is_one_and_nothing_is_nought(overlap, text, other):
    assert overlap(text, text) == pytest.approx(1.0)
    assert overlap("", text) == 0.0
    assert overlap(other, text) < overlap(text[: len(text) // 2], text) < 1


def test_bleu_by_hand():
    # n-grams of "a b c" in "a b d": 2 of 3, 1 of 2, then 0 of 1, which smoothing makes 1/2 of 1; none is too short
    assert bleu()("a b c", "a b d") == pytest.approx(math.exp(sum(map(math.log, (2 / 3, 1 / 2, 1 / 2))) / 3))


def test_bleu_cuts_chinese_into_characters_by_itself():
    answer, reference = "我喜欢书", "我喜欢读书"
    assert bleu()(answer, reference) == bleu("zh")(answer, reference) > bleu("13a")(answer, reference)


def test_rouge_by_hand():
    # 3 of the answer's 4 words and of the reference's 5 are one subsequence: P = 3/4, R = 3/5, F = 2PR / (P + R) = 2/3
    assert rouge()("the cat was here", "the black cat is here") == pytest.approx(2 / 3)
    assert rouge("rouge2")("the cat was", "so the cat was") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))


def test_rouge_reads_chinese():
    assert rouge()("我爱书", "我很爱书") == pytest.approx(2 * 1 * (3 / 4) / (1 + 3 / 4))


def test_chrf_by_hand():
    # only single characters fit into "ab": 1 of 2 is in "ac", 1 of 2 is found, so every F-score of them is 1/2; of
    # pairs 0 of 1 and 0 of 1. The mean over the two orders is 1/4.
    assert chrf()("ab", "ac") == pytest.approx(1 / 4)


def test_the_scorer_compares_with_the_reference_of_each_prompt():
    groups = [
        group_of_texts(Prompt(text="1", reference="one two three four"), [("one two three four", True), ("", True)]),
        group_of_texts(Prompt(text="2", reference="五六七八"), [("五六七八", False)]),
    ]
    for overlap in EVERY:
        assert OverlapScorer(overlap).score(groups).flat() == pytest.approx([1, 0, 1])


@pytest.mark.parametrize("reference", [None, ""])
def test_a_prompt_without_a_reference_is_named(reference):
    group = group_of_texts(Prompt(text="why", id="p7", reference=reference), [("so", True)])
    with pytest.raises(RecordError, match=r"prompt p7 has no reference, .*'why'"):
        OverlapScorer(chrf()).score([group])


def test_without_the_package_rouge_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(RecipeError, match=r"pip install 'plaudit\[rouge\]'"):
        rouge()
