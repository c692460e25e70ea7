"""A small dialogue that takes two turns: a customer wants a book and does not say of which kind until asked.

    Anna wants a book.
    Which kind?             a question is worth nothing, and brings the answer
    Poems, please.
    Here are some poems.    worth 1 if it is what she wants, else 0

Whoever does not ask is right once in four times; whoever asks, always.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, product
from random import Random
from typing import ClassVar

from plaudit.environments.seam import Step
from plaudit.records import Demonstration, Episode, Prompt

__all__ = ["BookDesk"]

_NAMES = ("Anna", "Ben", "Clara", "Daniel", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Karla", "Leo")
_WISHES = ("{} wants a book.", "{} asks for a book.", "{} needs a book.", "{} looks for a book.")


class BookDesk:
    """The environment; what a customer wants is drawn from the episode's seed."""

    KINDS: ClassVar[tuple[str, ...]] = ("poems", "maps", "tales", "plays")

    def step(self, episodes: Sequence[Episode]) -> list[Step]:
        """A question is answered; anything else ends the episode, worth 1 if it names the kind that was wanted."""
        return [self._step(episode) for episode in episodes]

    def wanted(self, episode: Episode) -> str:
        """What the customer wants."""
        return Random(f"desk/{episode.seed}").choice(self.KINDS)

    def _step(self, episode: Episode) -> Step:
        said, wanted = episode.answers[-1].text, self.wanted(episode)
        if "?" in said:
            return Step(0.0, f"{wanted.capitalize()}, please.")
        named = [kind for kind in self.KINDS if kind in said.lower()]
        return Step(float(named == [wanted]))

    def prompts(self) -> list[Prompt]:
        """Customers at the desk."""
        return [Prompt(text=wish.format(name) + "\n") for wish, name in product(_WISHES, _NAMES)]

    def demonstrations(self, count: int, seed: int) -> list[Demonstration]:
        """What an untaught clerk says: asks every other customer, and listens to every other reply."""
        return list(islice(self._said(Random(f"desk/demonstrations/{seed}")), count))

    def _said(self, rng: Random) -> Iterator[Demonstration]:
        prompts = self.prompts()
        while True:
            prompt, given = rng.choice(prompts), rng.choice(self.KINDS)
            if rng.random() < 1 / 2:
                yield Demonstration(prompt=prompt, answer="Which kind?")
                wanted = rng.choice(self.KINDS)
                prompt = Prompt(text=f"{prompt.text}Which kind?\n{wanted.capitalize()}, please.\n")
                given = wanted if rng.random() < 1 / 2 else given
            yield Demonstration(prompt=prompt, answer=f"Here are some {given}.")
