"""Length and repetition: the formulas by hand, English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import ScorerError
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.scorers import LengthScorer, RepetitionScorer
from plaudit.scorers.seam import group_of_texts
from plaudit.scorers.surface import holds_chinese, nearness, repeated_share, words_of

PROMPT = Prompt(text="why", id="p")


@pytest.mark.parametrize(
    ("length", "how", "expected"),
    [
        (10, {}, 0.0),
        (0, {}, -1.0),
        (20, {}, -1.0),
        (13, {}, -0.3),
        (13, {"tolerance": 3}, 0.0),
        (14, {"tolerance": 3}, -0.1),
        (6, {"tolerance": 3}, -0.1),
        (5, {"side": "over"}, 0.0),
        (15, {"side": "over"}, -0.5),
        (5, {"side": "under"}, -0.5),
        (15, {"side": "under"}, 0.0),
    ],
)
def test_nearness_to_ten_by_hand(length, how, expected):
    assert nearness(length, 10, **how) == pytest.approx(expected)


@given(st.integers(0, 300), st.integers(1, 90), st.integers(0, 20))
def test_both_sides_are_the_two_sides_together(length, target, tolerance):
    both, over, under = (nearness(length, target, tolerance=tolerance, side=side) for side in ("both", "over", "under"))
    assert both == over + under <= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a DOG, a dog!", ["it's", "a", "dog", "a", "dog"]),
        ("我喜欢读书。", ["我", "喜", "欢", "读", "书"]),
        ("读GPT-2吧 3x", ["读", "gpt", "2", "吧", "3x"]),
        ("Größe naïve", ["größe", "naïve"]),
        ("", []),
        ("?! …", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


def test_chinese_is_seen():
    assert holds_chinese("a 书")
    assert not holds_chinese("livre, ほん")


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c a b", 2, 1 / 4),  # ab bc ca ab: four, of which three differ
        ("a a a a", 1, 3 / 4),
        ("a a a a", 3, 1 / 2),
        ("好 好 好", 2, 1 / 2),
        ("a b", 3, 0.0),  # none fits
        ("", 1, 0.0),
    ],
)
def test_the_repeated_share_by_hand(text, n, share):
    assert repeated_share(text.split(), n) == pytest.approx(share)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_saying_it_all_again_repeats_more(words, n):
    once, twice = repeated_share(words, n), repeated_share(words + words, n)
    assert 0 <= once <= twice < 1


def test_the_scorers_of_both():
    groups = [group_of_texts(PROMPT, [("好好好好好", True), ("", False)]), group_of_texts(PROMPT, [("ab ab ab", True)])]
    assert LengthScorer(5).score(groups).flat() == pytest.approx([0.0, -1.0, -0.6])
    assert RepetitionScorer(1).score(groups).flat() == pytest.approx([-0.8, 0.0, -2 / 3])


def test_tokens_are_those_that_were_sampled():
    sampled = Answer(text="abcdef", token_ids=(4, 5, 2), logps=(-1.0,) * 3, ended=Ended.STOPPED, seed=0)
    empty = Answer(text="", token_ids=(), logps=(), ended=Ended.CUT, seed=0)
    group = Group(prompt=PROMPT, context_ids=(1,), answers=(sampled, empty))
    assert LengthScorer(3, unit="tokens").score([group]).value_PG == ((0.0, -1.0),)
    with pytest.raises(ScorerError, match=r"this answer is words alone, .* from a file: 'abc'; set unit to characters"):
        LengthScorer(3, unit="tokens").score([group_of_texts(PROMPT, [("abc", True)])])
