"""Episodes turn by turn: whose tokens go on, who is asked again, and what each answer earned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from plaudit.environments import BookDesk, FunctionEnvironment, OneTurn, Played, Step, play
from plaudit.errors import NumberError, ScorerError, ShapeError
from plaudit.models.load import Machine
from plaudit.recipe import Sampling, Text
from plaudit.records import Answer, Ended, Episode, Group, Message, Prompt
from plaudit.sampling import ModelSampler, Request
from plaudit.scorers import FunctionScorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

WORDS = Words(tiny_tokenizer(), Text(turn=" {reply}: "), context=64)
CPU = Machine(device=torch.device("cpu"), bf16=False)
SAMPLING = Sampling(max_tokens=4)
PROMPTS = [Prompt(text="so", id="a"), Prompt(text="he said", id="b")]


def first_turns(answers: int = 2) -> tuple[ModelSampler, list[Group]]:
    sampler = ModelSampler(tiny_model(), WORDS, CPU)
    requests = [
        Request(prompt=prompt, context_ids=WORDS.prompt_ids(prompt), seeds=tuple(range(p * 10, p * 10 + answers)))
        for p, prompt in enumerate(PROMPTS)
    ]
    return sampler, sampler.sample(requests, SAMPLING)


def played(function, *, turns: int = 3, answers: int = 2) -> Played:
    sampler, groups = first_turns(answers)
    return play(sampler, FunctionEnvironment(function), WORDS, groups, SAMPLING, turns=turns)


def test_a_scorer_is_an_environment_of_one_turn():
    sampler, groups = first_turns()
    scorer = FunctionScorer(lambda prompt, answer: len(prompt.plain()) + len(answer) / 100)
    found = play(sampler, OneTurn(scorer), WORDS, groups, SAMPLING, turns=5)
    assert list(found.rewards) == scorer.score(groups).flat() == found.totals()
    assert (found.groups, found.episode, found.turn) == (tuple(groups), (0, 1, 2, 3), (0, 0, 0, 0))
    assert list(found.texts) == [answer.text for group in groups for answer in group.answers]


def test_the_next_turn_goes_on_from_the_tokens_that_were_sampled():
    found = played(lambda episode: (1.0, "go on") if len(episode.answers) == 1 else (0.5, None))
    assert found.episode == (0, 1, 2, 3, 0, 1, 2, 3)
    assert found.turn == (0, 0, 0, 0, 1, 1, 1, 1)
    assert found.totals() == [1.5] * 4
    first = [(group, answer) for group in found.groups[:2] for answer in group.answers]
    for (group, answer), later, text in zip(first, found.groups[2:], found.texts, strict=True):
        spoken = [token for token in answer.token_ids if token != WORDS.end_id]
        before = (*group.context_ids, *spoken)
        assert later.context_ids[: len(before)] == before
        assert WORDS.tokenizer.decode(later.context_ids[len(before) :]) == " go on: "
        assert later.prompt.id == group.prompt.id
        assert later.prompt.plain() + later.answers[0].text == group.prompt.plain() + text
    seeds = [answer.seed for group in found.groups for answer in group.answers]
    assert len(set(seeds)) == 8  # every answer has a seed of its own


def test_an_episode_ends_by_itself_at_its_turns_or_where_the_context_is_full():
    def says(episode: Episode) -> tuple[float, str | None]:
        return 1.0, None if episode.seed == 1 else "m" * (60 if episode.seed == 10 else 1)

    found = played(says, turns=3)
    assert [found.episode.count(i) for i in range(4)] == [3, 1, 1, 3]  # 64 tokens are read: no room behind 60
    assert found.totals() == [3.0, 1.0, 1.0, 3.0]
    assert sum(len(group.answers) for group in found.groups) == len(found.rewards)  # nothing is asked in vain


def test_an_environment_sees_all_that_was_said_and_one_seed():
    seen: list[Episode] = []

    def says(episode: Episode) -> tuple[float, str | None]:
        seen.append(episode)
        return 0.0, f"reply {len(episode.answers)}"

    played(says, turns=3, answers=1)
    mine = [episode for episode in seen if episode.seed == 0]
    assert [len(episode.answers) for episode in mine] == [1, 2, 3]
    assert mine[2].replies == ("reply 1", "reply 2")
    assert mine[2].answers[:2] == mine[1].answers


def test_cut_answers_may_have_a_reward_of_their_own():
    found = played(lambda episode: (1.0, None))
    cut = [answer.ended is Ended.CUT for group in found.groups for answer in group.answers]
    assert True in cut
    assert list(found.with_cut(-1.0).rewards) == [-1.0 if one else 1.0 for one in cut]
    assert found.with_cut(None) is found


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ((math.nan, None), NumberError, "the reward of turn 1 of an episode of prompt a is nan"),
        (1.0, ScorerError, "must return a reward and a reply, returned 1.0 for turn 1 of an episode of prompt a"),
        (("much", None), ScorerError, "must return a reward and a reply"),
        ((1.0, 7), ScorerError, "a reply is a text or None, found 7"),
    ],
)
def test_what_an_environment_may_not_say(said, error, message):
    with pytest.raises(error, match=message):
        played(lambda episode: said)


def test_a_function_that_fails_is_named():
    def fails(episode: Episode) -> tuple[float, str | None]:
        raise ValueError("no more books")

    with pytest.raises(ScorerError, match="the environment: ValueError: no more books, on turn 1 of an episode"):
        played(fails)


def test_every_episode_needs_a_reply():
    class Deaf:
        def step(self, episodes: Sequence[Episode]) -> list[Step]:
            return [Step(0.0)]

    sampler, groups = first_turns()
    with pytest.raises(ShapeError, match="replied to 1 of 4 episodes"):
        play(sampler, Deaf(), WORDS, groups, SAMPLING, turns=1)


def episode_of(*said: str, seed: int = 0) -> Episode:
    answers = tuple(Answer(text=text, token_ids=(), logps=(), ended=Ended.STOPPED, seed=seed) for text in said)
    return Episode(prompt=PROMPTS[0], context_ids=(1,), answers=answers, replies=("",) * (len(said) - 1), seed=seed)


def test_the_customer_says_what_she_wants_when_asked():
    desk = BookDesk()
    wanted = [desk.wanted(episode_of("Hello", seed=seed)) for seed in range(400)]
    assert all(70 < wanted.count(kind) < 130 for kind in desk.KINDS)  # none is likelier than another
    for seed in range(8):
        (asked,) = desk.step([episode_of("Which kind?", seed=seed)])
        assert asked.reward == 0
        assert asked.reply == f"{wanted[seed].capitalize()}, please."
        given = [desk.step([episode_of("Which kind?", f"Here are some {kind}.", seed=seed)])[0] for kind in desk.KINDS]
        assert [step.reward for step in given] == [float(kind == wanted[seed]) for kind in desk.KINDS]
        assert all(step.reply is None for step in given)
    everything = episode_of("Here are poems, maps, tales and plays.")
    assert desk.step([everything])[0].reward == 0


def test_a_chat_goes_on_in_its_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}!{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    words = Words(tokenizer, Text())
    prompt = Prompt(messages=(Message(role="user", content="so"),))
    context = words.prompt_ids(prompt)
    answer = (*tokenizer.encode("he", add_special_tokens=False), words.end_id)
    next_ids = words.reply_ids(context, answer, "why")
    assert tokenizer.decode(next_ids) == "u:so!a:he!u:why!a:"
    assert next_ids[: len(context) + 2] == (*context, *answer[:2])
    gone_on = words.gone_on(prompt, "he", "why")
    assert gone_on.id == prompt.id
    assert words.prompt_ids(gone_on) == next_ids
