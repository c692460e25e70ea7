"""The texts of the book-review world: repeatable, in the grammar, in the alphabet, apart from what is held out."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from random import Random

import pytest

from plaudit.errors import RecipeError, RecordError
from plaudit.records import Prompt
from plaudit.worlds import ReviewWorld, world
from plaudit.worlds.grammar import Book, Grammar
from plaudit.worlds.taste import GRAMMARS, parse_share

WORLD = world("reviews")
CORPUS = WORLD.corpus(1200, seed=3)
PROMPTS = WORLD.prompts(600, seed=3)
HELD_OUT = WORLD.prompts(200, seed=3, held_out=True)
DEMONSTRATIONS = WORLD.demonstrations(600, seed=3)


def test_an_unknown_world_is_refused_by_name():
    with pytest.raises(RecipeError, match="no built-in world 'films'; there is: reviews"):
        world("films")


def test_everything_is_a_function_of_the_seed():
    again = ReviewWorld()
    assert again.corpus(50, seed=3) == CORPUS[:50]
    assert again.prompts(50, seed=3) == PROMPTS[:50]
    assert again.demonstrations(50, seed=3) == DEMONSTRATIONS[:50]
    assert again.answers(PROMPTS[0], 2, seed=3) == again.answers(PROMPTS[0], 4, seed=3)[:2]
    assert again.corpus(50, seed=4) != CORPUS[:50]
    assert again.prompts(50, seed=4) != PROMPTS[:50]
    assert [one.answer for one in again.demonstrations(50, 4, PROMPTS)] != [
        one.answer for one in again.demonstrations(50, 3, PROMPTS)
    ]
    assert again.answers(PROMPTS[0], 4, seed=4) != again.answers(PROMPTS[0], 4, seed=3)


def test_another_process_writes_the_same():
    """Nothing hangs on the order of sets or on the hash of strings."""
    script = "from plaudit.worlds import world; print(ascii(world('reviews').corpus(40, seed=3)))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ascii(CORPUS[:40])


def test_prompts_are_distinct_and_a_quarter_chinese():
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)
    chinese = statistics.fmean(prompt.about["language"] == "zh" for prompt in PROMPTS)
    assert chinese == pytest.approx(0.25, abs=0.06)  # 3.4 standard errors
    assert {prompt.about["language"] for prompt in ReviewWorld(chinese=0.0).prompts(50, seed=0)} == {"en"}


def test_no_book_is_asked_about_twice(monkeypatch: pytest.MonkeyPatch):
    def one_of_thirty(_: Grammar, rng: Random, *, held_out: bool) -> Book:
        title = f"Silver {rng.randrange(30)}{held_out}"
        return Book(language="en", title=title, author="Ada Hale", hero="Tom", genre="mystery")

    monkeypatch.setattr(Grammar, "book", one_of_thirty)
    assert len({prompt.id for prompt in WORLD.prompts(30, seed=0)}) == 30


def test_a_name_tells_what_it_is():
    for grammar in GRAMMARS.values():
        lists = [*grammar.titles, *grammar.authors, grammar.heroes]
        assert len(set().union(*lists)) == sum(map(len, lists))


def test_a_prompt_names_its_book_and_ends_where_the_answer_starts():
    for prompt in PROMPTS + HELD_OUT:
        text = prompt.plain()
        assert all(str(prompt.about[fact]) in text for fact in ("title", "author", "hero", "genre"))
        assert text.endswith("Review:\n" if prompt.about["language"] == "en" else "书评：\n")
    assert not any(one.answer != one.answer.strip() for one in DEMONSTRATIONS)


def test_held_out_titles_occur_nowhere_else_but_their_words_do():
    titles = [str(prompt.about["title"]) for prompt in HELD_OUT]
    everything = "\n".join([*CORPUS, *(prompt.plain() for prompt in PROMPTS)])
    assert [title for title in titles if f'"{title}"' in everything or f"《{title}》" in everything] == []
    words = {word for title in titles for word in (title.split() if " " in title else [title[:2], title[2:]])}
    assert [word for word in words if word not in everything] == []


def test_a_fifth_of_the_titles_is_held_out():
    few, many = (
        {prompt.about["title"] for prompt in ReviewWorld(chinese=1.0).prompts(4000, seed=0, held_out=held_out)}
        for held_out in (True, False)
    )
    assert len(few) + len(many) == 24 * 24
    assert len(few) / (24 * 24) == pytest.approx(0.2, abs=0.01)


def test_no_sentence_says_a_word_of_a_list_twice():
    said = re.findall(r"[Tt]he (\w+) (?:is \w+, but|but not) the (\w+)", "\n".join(CORPUS))
    assert len(said) > 30
    assert [(first, second) for first, second in said if first == second] == []


def test_every_demonstration_parses_and_has_2_to_5_sentences():
    for one in DEMONSTRATIONS:
        assert parse_share(one.answer) == 1.0
        grammar = GRAMMARS[str(one.prompt.about["language"])]
        assert 2 <= len(grammar.sentences(one.answer)) <= 5
        assert len(one.answer) <= grammar.longest


def test_demonstrations_go_round_the_given_prompts():
    assert [one.prompt for one in DEMONSTRATIONS] == PROMPTS  # without any, those of the seed
    shown = WORLD.demonstrations(5, 0, PROMPTS[:2])
    assert [one.prompt for one in shown] == [PROMPTS[k] for k in (0, 1, 0, 1, 0)]
    assert len({one.answer for one in shown}) == 5


def test_a_prompt_of_another_task_has_no_answers():
    with pytest.raises(RecordError, match=r"about\.language"):
        WORLD.answers(Prompt(text="Hello"), 1, 0)


def test_what_the_grammar_writes_it_can_read():
    """Every template with every word of every list, in both languages."""
    for language, grammar in GRAMMARS.items():
        prompt = next(prompt for prompt in PROMPTS if prompt.about["language"] == language)
        names = {fact: str(value) for fact, value in prompt.about.items()}
        for template in grammar.reviews:
            for slot, words in {**grammar.words, "hero": grammar.heroes}.items():
                for word in words:
                    filled = {name: choices[0] for name, choices in grammar.words.items()} | names | {slot: word}
                    said = grammar.parse(template.text.format(**filled))
                    assert said is not None
                    assert said.kind == template.kind
                    assert said.names.items() <= filled.items()


def test_the_alphabet_covers_every_text():
    alphabet = set(WORLD.alphabet())
    assert alphabet >= set("".join(CORPUS))
    assert alphabet >= set("".join(one.prompt.plain() + one.answer for one in DEMONSTRATIONS))
    assert len(alphabet) < 400
    assert list(WORLD.alphabet()) == sorted(alphabet)


def test_half_of_the_corpus_repeats_names_and_four_tenths_are_reviews_behind_prompts():
    reviews = statistics.fmean("\nReview:\n" in text or "\n书评：\n" in text for text in CORPUS)
    assert reviews == pytest.approx(0.4, abs=0.06)  # 4 standard errors
    named = [max(text.count(f'"{title}"'), text.count(f"《{title}》")) for text in CORPUS for title in [title_of(text)]]
    assert statistics.fmean(count >= 3 for count in named) > 0.4


def title_of(text: str) -> str:
    opened = min((text.find(mark) for mark in '"《' if mark in text), default=-1)
    return "" if opened < 0 else text[opened + 1 :].split("》" if text[opened] == "《" else '"')[0]


def test_the_module_prints_examples_and_rates():
    told = subprocess.run(
        [sys.executable, "-m", "plaudit.worlds", "7"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert WORLD.demonstrations(1, 7)[0].answer in told.stdout
    assert "of 1000 demonstrations:" in told.stdout
