"""A small grammar that writes sentences and recognises the ones it could have written.

A sentence is a template with slots in braces. A slot is filled from a list of words, or with a name of the book:
`title`, `author` and `hero`. The recogniser is compiled from the same templates, so what the grammar writes always
parses, and a name that stands in no list never does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from random import Random
from typing import NamedTuple

__all__ = ["JUDGING", "Book", "Grammar", "Said", "Template", "listed"]

JUDGING = ("part", "good", "bad")
"""The slots that hold an opinion."""

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What a prompt says about a book."""

    language: str
    title: str
    author: str
    hero: str
    genre: str


class Template(NamedTuple):
    """One kind of review sentence."""

    kind: str
    """What it does: praise, blame, contrast (both), detail, advice or plain."""
    text: str

    @property
    def names_book(self) -> bool:
        """Whether it says the title or the author."""
        return "{title}" in self.text or "{author}" in self.text


class Said(NamedTuple):
    """A sentence as understood."""

    kind: str
    names: Mapping[str, str]
    """Which title, author and hero stand in it, if any."""


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """One language: its names, words and sentences, and how they are put together."""

    language: str
    prompt: str
    """What asks for a review; the answer starts right where it ends."""
    notes_prompt: str
    """What asks for notes: a text that names the book in every sentence."""
    reviews: tuple[Template, ...]
    notes: tuple[str, ...]
    """Sentences for notes."""
    register: str
    """What stands before a list of names."""
    names: tuple[str, ...]
    """Each name behind what announces it in every text, so that one look back tells which name comes."""
    comma: str
    talks: tuple[str, ...]
    """Texts that are neither."""
    words: Mapping[str, tuple[str, ...]]
    """What may stand in each slot; the book's names are made of the next three."""
    titles: tuple[tuple[str, ...], tuple[str, ...]]
    """First and second part of a title."""
    authors: tuple[tuple[str, ...], tuple[str, ...]]
    """First and second part of an author's name."""
    heroes: tuple[str, ...]
    """No word of these three stands in another of them."""
    stops: str
    """Characters that end a sentence."""
    space: str
    """What stands between two words, and between two sentences: a blank, or nothing."""
    longest: int
    """Characters of the longest review that is shown as a demonstration."""

    def book(self, rng: Random, *, held_out: bool) -> Book:
        """A book; a fifth of all titles belong to held-out books alone, though their parts occur in the others."""
        heads, tails = self.titles
        i, j = rng.randrange(len(heads)), rng.randrange(len(tails))
        while ((i + j) % 5 == 0) is not held_out:
            i, j = rng.randrange(len(heads)), rng.randrange(len(tails))
        return Book(
            language=self.language,
            title=self.space.join((heads[i], tails[j])),
            author=self.space.join(rng.choice(part) for part in self.authors),
            hero=rng.choice(self.heroes),
            genre=rng.choice(self.words["genre"]),
        )

    def write(self, template: str, book: Book, rng: Random, few: Mapping[str, Sequence[str]] | None = None) -> str:
        """The template with its slots filled; no word of a list stands twice in it.

        Args:
            template: a text with slots.
            book: fills the slots for names.
            rng: picks the other words.
            few: the only words that may stand in some of the slots.
        """
        lists = {**self.words, **(few or {})}
        known = {"title": book.title, "author": book.author, "hero": book.hero, "genre": book.genre}
        used = set[str]()

        def fill(slot: re.Match[str]) -> str:
            if slot[1] in known:
                return known[slot[1]]
            word = rng.choice(lists[slot[1]])
            while word in used:
                word = rng.choice(lists[slot[1]])
            used.add(word)
            return word

        return _SLOT.sub(fill, template)

    def join(self, sentences: Iterable[str]) -> str:
        """The sentences as one text."""
        return self.space.join(sentences)

    def sentences(self, text: str) -> list[str]:
        """The text cut after every full stop; an unfinished end is a sentence too."""
        return [piece for piece in self._gap.split(text.strip()) if piece]

    def judging(self, sentence: str) -> list[str]:
        """The words of the sentence that say what is good or bad: praise, blame, and the parts of a book."""
        return self._judging.findall(sentence)

    def parse(self, sentence: str) -> Said | None:
        """What the sentence says, or None if no template could have written it."""
        for kind, recognise in self._recognisers:
            found = recognise(sentence)
            if found:
                return Said(kind, found.groupdict())
        return None

    def alphabet(self) -> set[str]:
        """Every character that this grammar can write."""
        reviews = (template.text for template in self.reviews)
        texts = [
            self.prompt,
            self.notes_prompt,
            self.register,
            self.comma,
            *self.names,
            *self.notes,
            *self.talks,
            *reviews,
        ]
        words = [*chain(*self.words.values(), *self.titles, *self.authors), *self.heroes]
        return set(self.space).union(*words, *(_SLOT.sub("", text) for text in texts))

    @cached_property
    def _gap(self) -> re.Pattern[str]:
        return re.compile(rf"(?<=[{re.escape(self.stops)}])\s{'+' if self.space else '*'}")

    @cached_property
    def _judging(self) -> re.Pattern[str]:
        edge = r"\b" if self.space else ""
        return re.compile(edge + _any_of(chain(*(self.words[slot] for slot in JUDGING))) + edge)

    @cached_property
    def _recognisers(self) -> list[tuple[str, Callable[[str], re.Match[str] | None]]]:
        slots = {slot: _any_of(words) for slot, words in self.words.items()}
        slots["title"] = f"(?P<title>{self.space.join(_any_of(part) for part in self.titles)})"
        slots["author"] = f"(?P<author>{self.space.join(_any_of(part) for part in self.authors)})"
        slots["hero"] = f"(?P<hero>{_any_of(self.heroes)})"
        return [(template.kind, re.compile(_pattern(template.text, slots)).fullmatch) for template in self.reviews]


def listed(words: str) -> tuple[str, ...]:
    """The words of a list written in one string, with commas between."""
    return tuple(word.strip() for word in words.split(","))


def _any_of(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, words))})"


def _pattern(text: str, slots: Mapping[str, str]) -> str:
    parts = _SLOT.split(text)  # text, slot, text, slot, ..., text
    return "".join(slots[part] if k % 2 else re.escape(part) for k, part in enumerate(parts))
