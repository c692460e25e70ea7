"""The hidden taste by hand, and what it must not be: a toy."""

from __future__ import annotations

import statistics
from itertools import combinations
from random import Random

import pytest

from plaudit.errors import RecordError
from plaudit.records import Prompt
from plaudit.worlds import ReviewWorld
from plaudit.worlds.taste import BROKEN, GRAMMARS, SPREAD, WEIGHTS, gold, parse_share, parses, properties

WORLD = ReviewWorld()
ENGLISH = Prompt(
    text="?",
    about={"language": "en", "title": "Silver Harbour", "author": "Ada Hale", "hero": "Tom", "genre": "mystery"},
)
CHINESE = Prompt(
    text="？",
    about={"language": "zh", "title": "银色港湾", "author": "林若水", "hero": "小满", "genre": "悬疑小说"},
)
PROMPTS = WORLD.prompts(400, seed=1)
ANSWERS = [WORLD.answers(prompt, 4, seed=0) for prompt in PROMPTS]
FOUND = [[properties(prompt, answer) for answer in answers] for prompt, answers in zip(PROMPTS, ANSWERS, strict=True)]
GOLD = [[gold(prompt, answer) for answer in answers] for prompt, answers in zip(PROMPTS, ANSWERS, strict=True)]
PAIRS = [(i, a, b) for i in range(len(PROMPTS)) for a, b in combinations(range(4), 2) if GOLD[i][a] != GOLD[i][b]]


def table(
    book: float, balanced: float, specific: float, advice: float, varied: float, brief: float
) -> dict[str, float]:
    return {
        "book": book, "balanced": balanced, "specific": specific, "advice": advice, "varied": varied, "brief": brief,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            '"Silver Harbour" is clever but slow. I remember how young Tom leaves home. It is for students.',
            (1, 1, 1, 1, 1, 1),
        ),
        ("The plot is clever. It is a mystery.", (0, 0, 0, 0, 1, 1)),
        ("The plot is clever. The plot is slow.", (0, 1, 0, 0, 0, 1)),  # praise and blame apart, of one part twice
        ("The plot is dull. It is a dull book.", (0, 0, 0, 0, 0, 1)),  # one word of blame twice
        ("This memoir by Ada Hale is funny. It is for parents.", (0.5, 0, 0, 1, 1, 1)),  # only the author
        ('"Silver Garden" is clever. It is a mystery.', (-1, 0, 0, 0, 1, 1)),  # another title
        ('"Silver Harbour" is clever. It begins when young Leo leaves home.', (-1, 0, 0, 0, 1, 1)),  # another hero
        ("This memoir by Ada Bell is funny. It is a mystery.", (-1, 0, 0, 0, 1, 1)),  # another author
        ("The plot is clever.", (0, 0, 0, 0, 0, -1)),  # one sentence is neither varied nor brief
        ("The plot is clever. The plot is clever.", (0, 0, 0, 0, -1, -1)),  # and so is one said twice
        ("The plot is clever. It is for parents. I loved the ending. My copy came from Rome.", (0, 0, 0, 1, 1, 0.5)),
        ("The plot is dull. It is dull. Read it slowly.", (0, 0, 0, 0, 0, -1)),  # the broken ones do not count
        ("", (0, 0, 0, 0, 0, -1)),
    ],
)
def test_properties_by_hand(answer: str, found: tuple[float, ...]):
    assert properties(ENGLISH, answer) == table(*found)


def test_properties_of_chinese_by_hand():
    answer = "《银色港湾》很精彩，但有点沉闷。我记得主角“小满”离开家。它适合学生。"
    assert properties(CHINESE, answer) == table(1, 1, 1, 1, 1, 1)
    assert properties(CHINESE, "这部童话（林文清）很幽默。我喜欢它的情节。") == table(-1, 0, 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        # book 1 + balanced 1.05 + specific 1.2 + advice 1.1 + varied 0.85 + brief 0.95
        ('"Silver Harbour" is clever but slow. I remember how young Tom leaves home. It is for students.', 6.15),
        # varied 0.85 + brief 0.95 - 2 * 1/3 broken
        ("The plot is clever. It is a mystery. Read it slowly.", 1.8 - 2 / 3),
        ("", -0.95 - 2),
        ("plot clever is The", -0.95 - 2),
    ],
)
def test_gold_by_hand(answer: str, worth: float):
    assert gold(ENGLISH, answer) == pytest.approx(worth)
    assert BROKEN == 2


@pytest.mark.parametrize("sentences", [1, 2, 3, 4, 5, 6, 12])
def test_brief_is_a_band(sentences: int):
    words = GRAMMARS["en"].words
    said = [f"The {part} is {good}." for part in words["part"] for good in words["good"]][:sentences]
    band = {2: 1.0, 3: 1.0, 4: 0.5, 5: 0.0}
    assert properties(ENGLISH, " ".join(said))["brief"] == band.get(sentences, -1.0)


def test_a_prompt_of_another_task_is_refused():
    with pytest.raises(RecordError, match=r"about.language must be one of \['en', 'zh'\], found None"):
        gold(Prompt(text="Hello"), "The plot is clever.")


def test_length_alone_agrees_with_under_65_percent_of_the_pairs():
    def agreement(lengths: list[list[float]]) -> float:
        differences = [
            (lengths[i][a] - lengths[i][b]) * (GOLD[i][a] - GOLD[i][b])
            for i, a, b in PAIRS
            if lengths[i][a] != lengths[i][b]
        ]
        return statistics.fmean(difference > 0 for difference in differences)

    measures = {
        "characters": [[float(len(text)) for text in texts] for texts in ANSWERS],
        "words": [[len(text.split()) if " " in text else len(text) / 2 for text in texts] for texts in ANSWERS],
        "sentences": [[float(len(cut(text))) for text in texts] for texts in ANSWERS],
    }
    for measure in measures.values():
        assert max(agreement(measure), 1 - agreement(measure)) < 0.65
        longest = max(length for lengths in measure for length in lengths)
        for middle in (longest * k / 20 for k in range(21)):  # the best band that length can offer
            assert agreement([[-abs(length - middle) for length in lengths] for lengths in measure]) < 0.66


def cut(text: str) -> list[str]:
    return GRAMMARS["en" if text.isascii() else "zh"].sentences(text)


@pytest.mark.parametrize("dropped", WEIGHTS)
def test_dropping_a_property_reorders_a_tenth_of_the_pairs(dropped: str):
    reordered = 0
    for i, a, b in PAIRS:
        before = GOLD[i][a] - GOLD[i][b]
        after = before - WEIGHTS[dropped] * (FOUND[i][a][dropped] - FOUND[i][b][dropped])
        reordered += before * after < -1e-9
    assert reordered / len(PAIRS) > 0.1


@pytest.mark.parametrize("name", ["book", "balanced", "specific", "advice", "varied"])
def test_a_property_leaves_head_room(name: str):
    share = statistics.fmean(found[name] > 0 for four in FOUND for found in four)
    assert 0.3 < share < 0.5


def test_demonstrations_have_no_faults_and_gold_has_the_stated_spread():
    golds = [value for four in GOLD for value in four]
    assert statistics.stdev(golds) == pytest.approx(SPREAD, rel=0.1)
    assert min(value for four in FOUND for found in four for value in found.values()) == 0
    assert len({round(value, 6) for value in golds}) > 50  # hardly any ties


def test_the_best_of_8_beats_a_ninth():
    """Of 9 alike and without ties the best is among the first 8 in 8/9 of all cases; many ties would pull it to 1/2."""
    wins = 0.0
    for prompt in PROMPTS:
        *eight, ninth = (gold(prompt, answer) for answer in WORLD.answers(prompt, 9, seed=5))
        wins += (max(eight) > ninth) + 0.5 * (max(eight) == ninth)
    assert wins / len(PROMPTS) == pytest.approx(8 / 9, abs=0.04)


def other(i: int, *, same_language: bool) -> str:
    language = PROMPTS[i].about["language"]
    turned = [*range(i + 1, len(PROMPTS)), *range(i)]
    found: str = next(ANSWERS[j][0] for j in turned if (PROMPTS[j].about["language"] == language) is same_language)
    return found


def shuffled(i: int) -> str:
    text = ANSWERS[i][0]
    blank = " " if " " in text else ""
    words = text.split() if blank else list(text)
    Random(i).shuffle(words)
    return blank.join(words)


def repeated(i: int) -> str:
    grammar = GRAMMARS[str(PROMPTS[i].about["language"])]
    return grammar.join(grammar.sentences(ANSWERS[i][0])[:1] * 3)


@pytest.mark.parametrize(
    ("spoil", "deviations"),
    [
        (shuffled, 5.0),
        (repeated, 3.0),
        (lambda _: "", 5.0),
        (lambda i: other(i, same_language=True), 1.5),
        (lambda i: other(i, same_language=False), 5.0),
        (lambda i: ANSWERS[i][0][:-3], 1.2),  # cut off
        (lambda i: GRAMMARS[str(PROMPTS[i].about["language"])].join([ANSWERS[i][0]] * 2), 1.0),
    ],
    ids=["word salad", "one sentence three times", "empty", "another book", "other language", "cut off", "said twice"],
)
def test_what_is_spoilt_falls_by_so_many_deviations(spoil, deviations: float):
    good = statistics.fmean(GOLD[i][0] for i in range(len(PROMPTS)))
    spoilt = statistics.fmean(gold(PROMPTS[i], spoil(i)) for i in range(len(PROMPTS)))
    assert good - spoilt > deviations * SPREAD


@pytest.mark.parametrize(
    ("sentence", "language", "known"),
    [
        ("The plot is clever.", "en", True),
        ("The plot is clever", "en", False),
        ("The plot is clever. It", "en", False),
        ("So, The plot is clever.", "en", False),
        ("The plot is slow and clever.", "en", False),
        ("the plot is clever.", "en", False),
        ('"Silver Harbur" is clever.', "en", False),
        ("The plot is clever.", "zh", False),
        ("书里的情节很精彩。", "zh", True),
        ("书里的情节很精彩", "zh", False),
        ("书里的情节很精.", "zh", False),
        ("", "en", False),
    ],
)
def test_the_grammar_knows_its_sentences(sentence: str, language: str, known: bool):
    assert parses(sentence, language) is known


def test_parse_share_counts_broken_and_unfinished_sentences():
    assert parse_share("The plot is clever. It is for parents. The plot is") == pytest.approx(2 / 3)
    assert parse_share("书里的情节很精彩。它很。") == 0.5
    assert parse_share("") == parse_share("  \n") == 0.0
