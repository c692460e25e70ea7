"""How the texts of the book-review world are put together: reviews, and the documents of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from plaudit.worlds.grammar import Book, Grammar, Template
from plaudit.worlds.taste import GRAMMARS

__all__ = ["document", "register", "review"]

_RATES = {"book": 0.46, "balanced": 0.42, "specific": 0.46, "advice": 0.46, "varied": 0.33}
"""How often a review is meant to have each property."""

_KEPT = (0.3, 0.7, 1.0, 1.0, 0.5, 0.2)
"""Share of the plans with 0, 1, ... 5 of them that are carried out: few people say nothing, or think of everything."""

_SENTENCES = {2: 0.35, 3: 0.25, 4: 0.2, 5: 0.2}
"""How often it has so many sentences, where what it must say leaves the choice."""

_POOR = {"part": 2, "good": 1, "bad": 1}
"""How many words of each list somebody has who says a word twice."""


def review(book: Book, rng: Random) -> str:
    """A review of 2 to 5 sentences that has some properties of the taste, each drawn by itself, and not the others."""
    grammar = GRAMMARS[book.language]
    while True:
        wanted = {name for name, rate in _RATES.items() if rng.random() < rate}
        if rng.random() > _KEPT[len(wanted)]:
            continue
        kinds = _kinds(wanted, rng)
        few = None if "varied" in wanted else {slot: rng.sample(grammar.words[slot], n) for slot, n in _POOR.items()}
        for _ in range(40):
            templates = [rng.choice(_choices(grammar, kind, "book" in wanted)) for kind in kinds]
            sentences = [grammar.write(template.text, book, rng, few) for template in templates]
            text = grammar.join(sentences)
            judging = grammar.judging(text)
            if (
                any(template.names_book for template in templates) is ("book" in wanted)
                and (len(set(judging)) == len(judging)) is ("varied" in wanted)
                and len(set(sentences)) == len(sentences)
                and len(text) <= grammar.longest
            ):
                return text


def document(book: Book, rng: Random) -> str:
    """A text of the corpus: four of ten are reviews behind their prompts, five repeat the book's names, one is talk."""
    grammar = GRAMMARS[book.language]
    kind = rng.random()
    if kind < 0.4:
        return grammar.write(grammar.prompt, book, rng) + review(book, rng)
    if kind < 0.7:
        head = grammar.write(grammar.notes_prompt, book, rng) if rng.random() < 0.5 else ""
        notes = rng.sample(grammar.notes, rng.randint(5, 6))
        return head + grammar.join(grammar.write(note, book, rng) for note in notes)
    if kind < 0.9:
        return register(book, rng)
    return grammar.write(rng.choice(grammar.talks), book, rng)


def register(book: Book, rng: Random) -> str:
    """The names of one book again and again, in any order, each behind the word that announces it in every text."""
    grammar = GRAMMARS[book.language]
    order = [name for _ in range(rng.randint(4, 5)) for name in rng.sample(grammar.names, len(grammar.names))]
    return grammar.write(grammar.register + grammar.space + grammar.comma.join(order), book, rng)


def _kinds(wanted: set[str], rng: Random) -> list[str]:
    """What each sentence does: what was wanted, filled up with judgements and plain facts; advice comes last."""
    if "balanced" in wanted:
        opinion = ["contrast"] if rng.random() < 0.7 else ["praise", "blame"]
        filler = ["plain", "praise", "blame"]
    else:
        opinion = ["blame"] if rng.random() < 0.1 else ["praise"]
        filler = ["plain", *opinion]
    if "varied" not in wanted:
        filler.remove("plain")
    body = opinion + ["detail"] * ("specific" in wanted)
    end = ["advice"] * ("advice" in wanted)
    counts = {n: share for n, share in _SENTENCES.items() if n >= len(body + end)}
    (count,) = rng.choices(list(counts), list(counts.values()))
    body += [rng.choice(filler) for _ in range(count - len(body + end))]
    rng.shuffle(body)
    return body + end


def _choices(grammar: Grammar, kind: str, may_name: bool) -> Sequence[Template]:
    return [template for template in grammar.reviews if template.kind == kind and (may_name or not template.names_book)]
