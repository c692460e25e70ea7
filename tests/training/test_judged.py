"""Which loss each judgement takes, what is left out and why, and the tokens and numbers that come of it."""

from __future__ import annotations

import math

import pytest

from plaudit.errors import RecordError
from plaudit.recipe import Reward, Text
from plaudit.records import Choice, Comment, Comparison, Judgement, Preferred, Prompt, Ranking, Thumb
from plaudit.records import Scores as Scored
from plaudit.testing.tiny import tiny_tokenizer
from plaudit.text import Words
from plaudit.training.judged import LengthWorth, check_read, judged_batch, judged_tokens, said_by
from plaudit.training.objectives import Said

WORDS = Words(tiny_tokenizer(), Text(), context=64)
STARS = (1.0, 5.0)


def judged(answers, verdict, prompt="q", who=None):
    return Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple(answers), verdict=verdict, annotator=who)


def scored(answers, scores, scale=STARS, **others):
    return judged(answers, Scored(scores=scores, scale=scale), **others)


def kinds(judgements, **settings):
    found, mix = said_by(judgements, Reward(**settings))
    return [one.said for one in found], mix


RANKED = judged(["ab", "c", ""], Ranking(ranks=(2, 1, 3)))
TIED = judged(["ab", "c", ""], Ranking(ranks=(2, 1, 2)))
CHOSEN = judged(["a", "b", "c"], Choice(best=2))
BETTER = judged(["a", "b"], Comparison(preferred=Preferred.SECOND))
EQUAL = judged(["a", "b"], Comparison(preferred=Preferred.TIE))
THUMB = judged(["a"], Thumb(up=True))
RATED = scored(["a", "b"], (2.0, 4.0))
STAR = scored(["a"], (4.0,))


def test_each_judgement_takes_the_loss_that_fits_it():
    said, mix = kinds([RANKED, CHOSEN, BETTER, THUMB, RATED, STAR])
    assert said == [Said.PAIRS, Said.CHOICE, Said.PAIRS, Said.THUMB, Said.PAIRS, Said.GRADE]
    assert mix.describe() == "3 by pairs, 1 by choice of the best, 1 by thumb, 1 by grade"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rankings": "whole"}, [Said.WHOLE, Said.CHOICE, Said.PAIRS, Said.PAIRS]),
        ({"choices": "pairs"}, [Said.PAIRS, Said.BEST_PAIRS, Said.PAIRS, Said.PAIRS]),
        ({"ratings": "grades"}, [Said.PAIRS, Said.CHOICE, Said.PAIRS, Said.GRADE]),
        ({"ratings": "squared"}, [Said.PAIRS, Said.CHOICE, Said.PAIRS, Said.RATING]),
    ],
)
def test_settings_choose_where_there_are_two(settings, said):
    assert kinds([RANKED, CHOSEN, BETTER, RATED], **settings)[0] == said


def test_one_tie_makes_all_pairs_pairs_with_ties():
    said, mix = kinds([TIED, CHOSEN, BETTER, EQUAL])
    assert said == [Said.TIED_PAIRS, Said.CHOICE, Said.TIED_PAIRS, Said.TIED_PAIRS]
    assert mix.tie_share == 2 / 5  # of three pairs one, of one none, of one one
    # those who were not chosen are not said to be equal
    assert kinds([TIED, CHOSEN], choices="pairs")[0] == [Said.TIED_PAIRS, Said.BEST_PAIRS]


def test_without_ties_it_is_the_plain_pairwise_loss():
    assert kinds([RANKED, BETTER]) == kinds([RANKED, BETTER], ties=False)
    said, mix = kinds([TIED, EQUAL, BETTER], ties=False)
    assert said == [Said.PAIRS, Said.PAIRS]
    assert mix.left_out == {"a full tie": 1}


def test_where_nothing_is_ordered_ties_alone_teach_nothing():
    assert kinds([EQUAL, EQUAL])[0] == []
    assert kinds([EQUAL, THUMB])[0] == [Said.THUMB]


def test_what_is_left_out_says_why():
    said, mix = kinds(
        [
            judged(["a"], Comment(text="hm")),
            judged(["a"], Ranking(ranks=(1,))),
            judged(["a", "a"], Comparison(preferred=Preferred.FIRST)),
            judged(["a", "b", "a"], Choice(best=0)),
            judged(["a", "b"], Ranking(ranks=(1, 1))),
            scored(["a"], (3.0,), scale=None),
        ],
        ratings="pairs",
        rankings="whole",
    )
    assert said == []
    assert mix.left_out == {
        "a comment": 1,
        "one answer alone": 2,
        "the same answer at two ranks": 2,
        "a full tie": 1,
    }
    assert mix.describe().startswith("none; 1 left out: a comment; 2 left out: one answer alone")


def test_the_same_answer_twice_at_one_rank_is_no_contradiction():
    assert kinds([judged(["a", "b", "a"], Ranking(ranks=(2, 1, 2)))])[0] == [Said.TIED_PAIRS]


def test_scores_without_a_scale_keep_their_order_only():
    bare = scored(["a", "b"], (2.0, 4.0), scale=None)
    assert kinds([bare])[0] == [Said.PAIRS]
    with pytest.raises(RecordError, match=r"^prompt 'q', answer 'a': its score 2 has no scale, .* `scale: \[1, 5\]`"):
        kinds([bare], ratings="squared")
    with pytest.raises(RecordError, match=r"^prompt 'q', answer 'a': its score 4 has no scale"):
        kinds([scored(["a"], (4.0,), scale=None)])


def test_grades_and_ratings_by_hand():
    judgements = [scored(["a", "b"], (1.0, 3.0)), scored(["c", "d"], (5.0, 3.0), prompt="r")]
    found, mix = said_by(judgements, Reward(ratings="grades", grades=3))
    assert [one.target for one in found] == [(0.0, 1.0), (2.0, 1.0)]
    assert mix.grade_counts == (1, 2, 1)
    found, _ = said_by(judgements, Reward(ratings="squared"))
    # on the scale from 0 to 1 they are 0, 1/2, 1, 1/2: mean 1/2, standard deviation sqrt(1/8)
    assert [value for one in found for value in one.target] == pytest.approx([-math.sqrt(2), 0, math.sqrt(2), 0])
    assert [one.ranks for one in found] == [(2, 1), (1, 2)]  # for the accuracy


def test_scores_between_two_grades_get_the_upper_one():
    """Means of several people's ratings lie between; no grade must take those on both of its sides."""
    between = scored(["a", "b", "c", "d"], (1.5, 2.5, 3.5, 4.5))
    found, _ = said_by([between], Reward(ratings="grades", grades=5))
    assert [one.target for one in found] == [(1.0, 2.0, 3.0, 4.0)]


def test_what_is_judged_apart_and_learned_as_one_is_said():
    about = [RANKED, *(BETTER.model_copy(update={"quality": name}) for name in ("helpful", "harmless", "helpful"))]
    says = "4 by pairs; 1 about no quality, 2 about helpful, 1 about harmless in one score: reward.qualities tells them"
    assert kinds(about)[1].describe().startswith(says)
    assert kinds(about[1::2])[1].describe() == "2 by pairs"  # all about one thing
    assert kinds(about, qualities={"helpful": 1, "harmless": 1})[1].pooled == {}


def test_who_weighs_nothing_is_left_out():
    judgements = [judged(["a", "b"], Ranking(ranks=(1, 2)), who=who) for who in ("ann", "bob", None)]
    said, mix = kinds(judgements, annotators={"bob": 0})
    assert said == [Said.PAIRS] * 2
    assert mix.left_out == {"by annotators who weigh 0 in reward.annotators": 1}
    assert kinds(judgements, annotators={"ann": 0, "bob": 0, "": 0})[0] == []
    rated = [scored([who], (score,), who=who) for who, score in (("ann", 1.0), ("ann", 3.0), ("bob", 5.0))]
    _, mix = said_by(rated, Reward(ratings="squared", annotators={"bob": 0}))
    assert mix.spread == (0.25, 0.25)  # of 0 and 1/2


def test_annotators_who_judged_nothing_are_no_setting():
    train, held = judged(["a", "b"], Ranking(ranks=(1, 2)), who="ann"), judged(["a"], Thumb(up=True))
    settings = Reward(annotators={"ann": 0.5, "nobdy": 0.1})
    mix = kinds([train])[1]
    says = r"weighs nobdy, of whom there is no judgement; there are judgements of nobody by name, ann"
    with pytest.raises(RecordError, match=says):
        check_read(mix, settings, [train, held])
    check_read(mix, settings, [train, judged(["a"], Thumb(up=True), who="nobdy")])  # held out


def test_held_out_judgements_are_read_as_those_to_train_on():
    """Their own ties, grades, mean and spread are not those of the model that is looked at."""
    _, plain = said_by([RANKED, BETTER], Reward())
    found, mix = said_by([TIED, EQUAL, STAR], Reward(), plain)
    assert [one.said for one in found] == [Said.PAIRS]
    assert mix.left_out == {"by grade, as none of those to train on": 1, "a full tie": 1}
    _, tied = said_by([TIED, EQUAL, BETTER], Reward())
    assert [one.said for one in said_by([RANKED, EQUAL], Reward(), tied)[0]] == [Said.TIED_PAIRS] * 2
    settings = Reward(ratings="squared")
    _, rated = said_by([scored(["a", "b"], (1.0, 3.0)), scored(["c", "d"], (5.0, 3.0), prompt="r")], settings)
    (held,) = said_by([scored(["e", "f"], (5.0, 5.0))], settings, rated)[0]
    assert held.target == pytest.approx((math.sqrt(2), math.sqrt(2)))  # and not 0, as by their own mean
    _, unrated = said_by([RANKED], settings)
    assert said_by([RATED], settings, unrated)[1].left_out == {"by squared error, as none of those to train on": 1}


def test_lone_scores_of_one_prompt_are_put_together():
    lone = [
        scored(["a"], (2.0,), who="ann"),
        scored(["b"], (4.0,), prompt="other", who="ann"),
        scored(["c"], (5.0,), who="ann"),
        scored(["d"], (1.0,), who="bob"),
    ]
    found, _ = said_by(lone, Reward())
    assert [(one.judgement.answers, one.said) for one in found] == [
        (("a", "c"), Said.PAIRS),
        (("b",), Said.GRADE),
        (("d",), Said.GRADE),
    ]
    assert found[0].ranks == (2, 1)


def test_lone_scores_of_two_qualities_are_two_judgements():
    lone = [
        scored([answer], (score,), who="ann").model_copy(update={"quality": quality})
        for answer, score, quality in (("a", 2.0, "kind"), ("c", 5.0, "true"))
    ]
    assert [one.judgement.answers for one in said_by(lone, Reward())[0]] == [("a",), ("c",)]


def test_what_nobody_by_name_said_several_times_of_an_answer_is_averaged():
    lone = [scored([answer], (score,)) for score, answer in ((3, "a"), (4, "a"), (5, "a"))]
    (found,), mix = said_by(lone, Reward())
    assert (found.said, found.target, mix.left_out) == (Said.GRADE, (3.0,), {})  # 4 of 5 is grade 3, counted from 0
    twice = [scored([answer], (score,)) for score, answer in ((1, "a"), (5, "b"), (3, "a"), (4, "b"))]
    (found,), _ = said_by(twice, Reward())
    assert found.judgement.verdict == Scored(scores=(2.0, 4.5), scale=STARS)
    assert (found.said, found.ranks) == (Said.PAIRS, (2, 1))
    ann = [one.model_copy(update={"annotator": "ann"}) for one in lone]  # one person who contradicts herself
    assert said_by(ann, Reward())[1].left_out == {"the same answer at two ranks": 1}


def test_a_whole_ranking_with_too_many_ties_is_named():
    def said(*ranks, **settings):
        return said_by([judged([str(k) for k in range(len(ranks))], Ranking(ranks=ranks))], Reward(**settings))[0]

    most = (1,) * 11
    with pytest.raises(RecordError, match=r"prompt q: 11 of its answers share the rank 1, .* up to 10 at a rank above"):
        said(*most, 2, rankings="whole")
    assert len(said(*most, 2)) == len(said(*most[1:], 2, rankings="whole")) == 1
    last = (1, *(2,) * 11)
    assert len(said(*last, rankings="whole")) == 1
    with pytest.raises(RecordError, match=r"share the rank 2, .* at any rank where reward\.negatives adds"):
        said(*last, rankings="whole", negatives=0.5)


def test_how_clear_a_judgement_is_does_not_hang_on_its_unit():
    far, near = ((1.0, 5.0), STARS), ((50.0, 60.0), (0.0, 100.0))  # 1 and 1/10 of their scales
    judgements = [
        *(scored(["a", "b"], scores, scale=scale) for scores, scale in (far, near)),
        *(judged(["a", "b"], Comparison(preferred=Preferred.FIRST, strength=n)) for n in (3.0, 1.0)),
        *(scored(["a", "b"], (0.0, gap), scale=None) for gap in (1e6, 3e6)),
        RANKED,
        STAR,
    ]
    found = [item.clearness for item in judged_tokens(judgements, WORDS, Reward())[0]]
    rated, strong = math.sqrt((1 + 0.01) / 2), math.sqrt((9 + 1) / 2)
    assert found == pytest.approx([1 / rated, 0.1 / rated, 3 / strong, 1 / strong, 1 / strong, 3 / strong, 0, 0])


def test_tokens_and_numbers():
    strong = judged(["a", "b"], Comparison(preferred=Preferred.FIRST, strength=2.0, sure=0.75), who="ann")
    settings = Reward(margin=0.5, label_smoothing=0.1, annotators={"ann": 0.25})
    items, _ = judged_tokens([TIED, strong, THUMB], WORDS, settings)
    assert items[0].answers == ((3, 4, 2), (5, 2), (2,))  # an end token behind each, behind the empty one too
    assert items[0].prompt == (1, 19)
    batch = judged_batch(items, LengthWorth(0.5, 1.0))
    assert batch.tree.answer_lengths == ((3, 2, 1), (2, 2), (2,))
    assert batch.tree.names == ("q", "q", "q")
    assert batch.said_P.tolist() == [Said.TIED_PAIRS, Said.TIED_PAIRS, Said.THUMB]
    assert batch.rank_B.tolist() == [2, 1, 2, 1, 2, 0]
    assert batch.target_B.tolist() == [0, 0, 0, 0, 0, 1]
    assert batch.weight_P.tolist() == [1.0, 0.25, 1.0]
    assert batch.margin_P.tolist() == [0.0, 1.0, 0.0]
    assert batch.sure_P.tolist() == pytest.approx([0.9, 0.75 * 0.9 + 0.25 * 0.1, 0.9])
    lengths = [3, 2, 1, 2, 2, 2]
    assert batch.offset_B.tolist() == pytest.approx([0.5 * (math.log(n) - 1) for n in lengths])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"centring": 0.1}, r"reward\.centring is for comparisons, rankings and choices"),
        ({"negatives": 0.5}, r"reward\.negatives is for comparisons"),
        ({"curriculum": True}, r"reward\.curriculum is for judgements .* \(1 by thumb\): leave it out"),
    ],
)
def test_a_setting_with_nothing_to_read_is_refused(given, says):
    thumb = judged(["a"], Thumb(up=True))
    settings = Reward.model_validate(given)
    with pytest.raises(RecordError, match=says):
        check_read(said_by([thumb], settings)[1], settings, [thumb])
    strong = judged(["a", "b"], Comparison(preferred=Preferred.FIRST, strength=2.0), prompt="s")
    check_read(said_by([thumb, strong], settings)[1], settings, [thumb, strong])


def test_a_quality_that_nobody_judged_is_refused():
    """Its head would stay as it was drawn, and count in the reward."""
    settings = Reward(qualities={"helpful": 1, "harmles": 0.5, "unused": 0})
    about = [BETTER.model_copy(update={"quality": name}) for name in ("helpful", "harmless")]
    mix = said_by(about, settings)[1]
    with pytest.raises(RecordError, match=r"gives harmles a weight .* 1 left out: about harmless, which is not in"):
        check_read(mix, settings, about)
    check_read(mix, Reward(qualities={"helpful": 1, "unused": 0}), about)
