"""The world of book reviews, in English and Chinese: documents, prompts, demonstrations, a hidden taste, annotators.

The prompt ends with a line break, and the answer starts right behind it, without a blank:

    Write a short review of "Silver Harbour", a mystery by Ada Hale about Tom.
    Review:
    "Silver Harbour" is clever but slow. I remember how Tom finds the map. It is for old friends.

Titles always stand between quotation marks, so that their first word is the same token in the prompt and in the answer.
Item `i` of a list depends on (seed, i) and on the items before it, never on how many are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from random import Random
from typing import ClassVar

from plaudit.records import Demonstration, Prompt
from plaudit.worlds import annotators as people
from plaudit.worlds import taste
from plaudit.worlds.annotators import Annotator
from plaudit.worlds.grammar import Book
from plaudit.worlds.taste import GRAMMARS
from plaudit.worlds.writing import document, review

__all__ = ["ReviewWorld"]


@dataclass(frozen=True, slots=True)
class ReviewWorld:
    """The built-in world; everything in it is a function of seeds."""

    chinese: float = 0.25
    """Share of Chinese among documents and prompts."""

    name: ClassVar[str] = "reviews"

    def corpus(self, count: int, seed: int) -> list[str]:
        """Raw documents to learn the language from: reviews, each after its prompt; notes full of names; and talk.

        No held-out title occurs in them.
        """
        draws = (Random(f"reviews/corpus/{seed}/{i}") for i in range(count))
        return [document(self._book(rng, held_out=False), rng) for rng in draws]

    def prompts(self, count: int, seed: int, *, held_out: bool = False) -> list[Prompt]:
        """Prompts that each ask for a review of another book.

        Args:
            count: how many.
            seed: decides which books.
            held_out: take books whose titles occur neither in the corpus nor in prompts that are not held out.
        """
        books = dict[Book, None]()
        for i in range(count):
            rng = Random(f"reviews/prompt/{seed}/{held_out}/{i}")
            book = self._book(rng, held_out=held_out)
            while book in books:
                book = self._book(rng, held_out=held_out)
            books[book] = None
        return [_prompt(book) for book in books]

    def demonstrations(self, count: int, seed: int, prompts: Sequence[Prompt] | None = None) -> list[Demonstration]:
        """Prompts with reviews of 2 to 5 sentences, each property of the taste in 30 to 50 % of them.

        Args:
            count: how many.
            seed: decides what they say.
            prompts: what to write about, over and over if there are fewer than `count`; else drawn from the seed.
        """
        asked = self.prompts(count, seed) if prompts is None else prompts
        return [
            Demonstration(prompt=prompt, answer=review(_book_of(prompt), Random(f"reviews/demonstration/{seed}/{i}")))
            for i, prompt in zip(range(count), cycle(asked), strict=False)
        ]

    def answers(self, prompt: Prompt, count: int, seed: int) -> list[str]:
        """Several reviews for one prompt, written as the demonstrations are."""
        book = _book_of(prompt)
        return [review(book, Random(f"reviews/answer/{seed}/{prompt.id}/{i}")) for i in range(count)]

    def gold(self, prompt: Prompt, answer: str) -> float:
        """How good the answer is by the hidden taste, in points: see `plaudit.worlds.taste.gold`."""
        return taste.gold(prompt, answer)

    def properties(self, prompt: Prompt, answer: str) -> dict[str, float]:
        """What the hidden taste looks at: see `plaudit.worlds.taste.properties`."""
        return taste.properties(prompt, answer)

    def parse_share(self, text: str) -> float:
        """The share of sentences that the grammar could have written."""
        return taste.parse_share(text)

    def annotators(self, count: int, seed: int, noise: float = 0.3) -> list[Annotator]:
        """Simulated people: see `plaudit.worlds.annotators.annotators`."""
        return people.annotators(count, seed, noise)

    def alphabet(self) -> str:
        """Every character that this world writes, sorted."""
        return "".join(sorted(set().union(*(grammar.alphabet() for grammar in GRAMMARS.values()))))

    def _book(self, rng: Random, *, held_out: bool) -> Book:
        return GRAMMARS["zh" if rng.random() < self.chinese else "en"].book(rng, held_out=held_out)


def _prompt(book: Book) -> Prompt:
    grammar = GRAMMARS[book.language]
    return Prompt(text=grammar.write(grammar.prompt, book, Random(0)), about=asdict(book))


def _book_of(prompt: Prompt) -> Book:
    taste.grammar_of(prompt)
    return Book(**{slot: str(prompt.about[slot]) for slot in ("language", "title", "author", "hero", "genre")})
