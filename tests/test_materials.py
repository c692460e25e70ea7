"""What a run works on: both sides apart, read once, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from plaudit.errors import RecordError, TextError
from plaudit.materials import Materials, check_demonstrations, check_judgements, check_prompts, materials_of
from plaudit.reading import load
from plaudit.recipe import Recipe, Reward, Text, recipe_from
from plaudit.records import (
    Comment,
    Comparison,
    Demonstration,
    Judgement,
    Message,
    Preferred,
    Prompt,
    Ranking,
    Scores,
    Thumb,
)
from plaudit.testing.tiny import tiny_tokenizer
from plaudit.text import Words


def halves(text: str, tokens: int) -> tuple[str, str]:
    return text[:tokens], text[tokens:]


@pytest.fixture
def world(tiny_road: Recipe) -> Materials:
    return materials_of(tiny_road, halves)


def test_a_world_gives_as_much_as_the_recipe_asks(world):
    train, held = world.prompts()
    assert (len(train), len(held)) == (16, 6)
    assert [len(side) for side in world.demonstrations()] == [16, 6]
    assert len(world.documents()) == 64
    assert world.judgements() == ([], [])


def test_no_book_of_a_world_is_on_both_sides(world):
    train, held = world.prompts()
    shown, kept = world.demonstrations()
    known = {prompt.about["title"] for prompt in train} | {one.prompt.about["title"] for one in shown}
    assert not known & {prompt.about["title"] for prompt in held}
    assert [one.prompt for one in kept] == list(held)  # the supervised model is measured where the policy is
    text = "\n".join(document.text for document in world.documents())
    assert not [prompt for prompt in held if f'"{prompt.about["title"]}"' in text]


def test_the_texts_of_a_world_are_the_same_for_every_seed(tiny_road):
    """So its built-in model is; everything after it is the seed's own."""
    one, other = (materials_of(tiny_road.model_copy(update={"seed": seed}), halves) for seed in (0, 1))
    assert one.documents() == other.documents()
    assert one.prompts()[0] != other.prompts()[0]
    assert one.demonstrations()[0] != other.demonstrations()[0]


@pytest.fixture
def own(own_road: Callable[..., dict[str, Any]]) -> Materials:
    return materials_of(recipe_from(own_road()), halves)


def test_files_are_split_by_prompt_in_every_kind_alike(own):
    (train, held), (shown, kept), (judged, unseen) = own.prompts(), own.demonstrations(), own.judgements()
    assert len(train) + len(held) == 40
    assert {one.prompt.text for one in kept} <= {prompt.text for prompt in held}
    assert {one.prompt.text for one in unseen} == {prompt.text for prompt in held}
    assert not {one.prompt.id for one in (*shown, *judged)} & {prompt.id for prompt in held}


def test_a_file_is_read_once(own_road, monkeypatch):
    asked: list[str] = []

    def counted(sources: Any, kind: Any, **given: Any) -> Any:
        asked.append(kind)
        return load(sources, kind, **given)

    monkeypatch.setattr("plaudit.materials.load", counted)
    found = materials_of(recipe_from(own_road()), halves)
    assert asked == []  # not before it is asked for
    for _ in range(2):
        found.prompts(), found.demonstrations(), found.judgements()
    assert sorted(asked) == ["demonstrations", "judgements", "prompts"]


def test_raw_texts_become_prompts_with_what_follows_as_their_reference(own_road, tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": f"{n:02} once upon a time"}) + "\n" for n in range(40)))
    road = own_road()
    road["data"]["prompts"] = [{"path": str(path), "prompt_tokens": 7}]
    train, held = materials_of(recipe_from(road), halves).prompts()
    assert sorted(prompt.text or "" for prompt in (*train, *held)) == [f"{n:02} once" for n in range(40)]
    assert {prompt.reference for prompt in (*train, *held)} == {" upon a time"}


# Checks

WORDS = Words(tiny_tokenizer(), Text(), context=64)
PROMPTS = [Prompt(text=f"say {n}") for n in range(9)]
CHAT = Prompt(messages=(Message(role="user", content="say"),))
LONG = Prompt(text="a" * 70)


def test_enough_prompts_pass():
    check_prompts((PROMPTS[:8], PROMPTS[8:]), [WORDS], 0.1, 8)


@pytest.mark.parametrize(
    ("train", "held", "needed", "says"),
    [
        (
            PROMPTS[:7],
            PROMPTS[7:],
            8,
            r"a round takes 8 prompts \(policy\.prompts_per_round\), but there are 7, beside the 2",
        ),
        (PROMPTS, [], 8, r"data\.held_out 0\.1 keeps none of 9 prompts for evaluation: raise it, or give more"),
        (PROMPTS, [LONG], 8, r"has 71 tokens"),
        ([*PROMPTS, CHAT], [LONG], 8, r"no chat template"),
    ],
)
def test_prompts_that_would_stop_the_policy(train, held, needed, says):
    with pytest.raises((RecordError, TextError), match=says):
        check_prompts((train, held), [WORDS], 0.1, needed)


def test_every_reader_is_asked():
    """The reward model may have a shorter context than the policy."""
    short = Words(tiny_tokenizer(), Text(), context=6)
    with pytest.raises(TextError, match="but the model reads 6"):
        check_prompts((PROMPTS, PROMPTS), [WORDS, short], 0.1, 1)


def test_demonstrations_are_checked():
    shown = [Demonstration(prompt=prompt, answer="yes") for prompt in PROMPTS]
    check_demonstrations((shown, []), [WORDS], 0.1)
    with pytest.raises(
        RecordError, match=r"data\.demonstrations: data\.held_out 0\.9 keeps all 9 of them from training"
    ):
        check_demonstrations(([], shown), [WORDS], 0.9)
    with pytest.raises(TextError, match="has 71 tokens"):
        check_demonstrations((shown, [Demonstration(prompt=LONG, answer="a")]), [WORDS], 0.1)


def judged(verdict: Any, *answers: str, prompt: Prompt = PROMPTS[0]) -> Judgement:
    return Judgement(prompt=prompt, answers=answers, verdict=verdict)


NOTHING = [
    judged(Ranking(ranks=(1, 1)), "a", "b"),
    judged(Comment(text="well"), "a"),
    judged(Comparison(preferred=Preferred.TIE), "a", "b"),
]


def test_one_judgement_that_orders_is_enough():
    for something in (judged(Thumb(up=True), "a"), judged(Ranking(ranks=(1, 2)), "a", "b")):
        check_judgements(([*NOTHING, something], []), [WORDS], 0.1, Reward())


def test_judgements_that_order_nothing():
    says = r"none of 3 to train on says which answer is better .*; 1 more are held out by data\.held_out 0\.1"
    with pytest.raises(RecordError, match=says):
        check_judgements((NOTHING, [judged(Thumb(up=True), "a")]), [WORDS], 0.1, Reward())


def test_a_setting_that_finds_nothing_to_read():
    rated = judged(Scores(scores=(4.0,), scale=(1.0, 5.0)), "a")
    with pytest.raises(RecordError, match=r"reward\.length_debias learns from comparisons and thumbs"):
        check_judgements(([rated], []), [WORDS], 0.1, Reward(length_debias=True))
    for one in (rated, judged(Ranking(ranks=(1, 2)), "a", "b")):
        slips = Reward(label_smoothing=0.1, rankings="whole", ratings="auto")
        with pytest.raises(RecordError, match=r"reward\.label_smoothing is for pairs, choices of the best and thumbs"):
            check_judgements(([one], []), [WORDS], 0.1, slips)
        check_judgements(([one, judged(Thumb(up=True), "a")], []), [WORDS], 0.1, slips)
    with pytest.raises(RecordError, match=r"reward\.annotators weighs ann, of whom there is no judgement"):
        check_judgements(([rated], [rated]), [WORDS], 0.1, Reward(annotators={"ann": 0.5}))
    with pytest.raises(RecordError, match=r"none of 1 to train on .* 1 left out: by annotators who weigh 0"):
        check_judgements(([rated], [rated]), [WORDS], 0.1, Reward(annotators={"": 0}))


def test_patience_without_held_out_judgements():
    fine = judged(Thumb(up=True), "a")
    check_judgements(([fine], [fine]), [], 0.1, Reward(patience=2))
    for held in ([], NOTHING):
        with pytest.raises(RecordError, match=rf"reward\.patience 2 looks at .* none of {len(held)} says .*held_out"):
            check_judgements(([fine], held), [], 0.1, Reward(patience=2))


def test_a_held_out_ranking_with_too_many_ties():
    tied = judged(Ranking(ranks=(*(1,) * 11, 2)), *map(str, range(12)))
    with pytest.raises(RecordError, match=rf"prompt {PROMPTS[0].id}: 11 of its answers share the rank 1"):
        check_judgements(([judged(Thumb(up=True), "a")], [tied]), [], 0.1, Reward(rankings="whole"))


def test_a_comment_about_a_long_prompt_is_read_by_nobody():
    fine = judged(Thumb(up=True), "a")
    check_judgements(([fine, judged(Comment(text="well"), "a", prompt=LONG)], []), [WORDS], 0.1, Reward())
    with pytest.raises(TextError, match="has 71 tokens"):
        check_judgements(([fine, judged(Thumb(up=True), "a", prompt=LONG)], []), [WORDS], 0.1, Reward())
