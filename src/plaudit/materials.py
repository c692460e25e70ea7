"""What a run works on: from the files that a recipe names, or from a built-in world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plaudit.reading import held_out, load
from plaudit.reading.loading import SplitText
from plaudit.recipe import Recipe
from plaudit.records import Demonstration, Document, Judgement, Prompt
from plaudit.worlds import world
from plaudit.worlds.reviews import ReviewWorld

__all__ = ["Materials", "materials_of"]

_WORLD_SEED = 0
"""The world's texts are the same in every run, so that its built-in model can be kept and used again."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Records for each stage; each list is read when it is first asked for, and no prompt is on both sides."""

    world: ReviewWorld | None
    documents: Callable[[], list[Document]]
    demonstrations: Callable[[], tuple[list[Demonstration], list[Demonstration]]]
    """Those to train on, and those held out."""
    prompts: Callable[[], tuple[list[Prompt], list[Prompt]]]
    """Those to train on, and those held out."""
    judgements: Callable[[], tuple[list[Judgement], list[Judgement]]]
    """Those to train on, and those held out; none in a world, where they are collected."""


def materials_of(recipe: Recipe, split_text: SplitText) -> Materials:
    """The materials that a recipe names.

    Args:
        recipe: names files or a world.
        split_text: cuts a raw text after so many tokens.
    """
    if recipe.world is not None:
        return _of_world(recipe)
    data = recipe.data

    def demonstrations() -> tuple[list[Demonstration], list[Demonstration]]:
        found = load(data.demonstrations, "demonstrations", seed=recipe.seed, split_text=split_text)
        return held_out(found, data.held_out)

    def prompts() -> tuple[list[Prompt], list[Prompt]]:
        return held_out(load(data.prompts, "prompts", seed=recipe.seed, split_text=split_text), data.held_out)

    def judgements() -> tuple[list[Judgement], list[Judgement]]:
        return held_out(load(data.judgements, "judgements", seed=recipe.seed), data.held_out)

    return Materials(
        world=None,
        documents=lambda: load(data.documents, "documents", seed=recipe.seed),
        demonstrations=demonstrations,
        prompts=prompts,
        judgements=judgements,
    )


def _of_world(recipe: Recipe) -> Materials:
    sizes = recipe.world
    assert sizes is not None
    there = world(sizes.name)

    def prompts() -> tuple[list[Prompt], list[Prompt]]:
        train = there.prompts(sizes.prompts, recipe.seed)
        return train, there.prompts(sizes.held_out, recipe.seed, held_out=True)

    def demonstrations() -> tuple[list[Demonstration], list[Demonstration]]:
        held = prompts()[1]
        return (
            there.demonstrations(sizes.demonstrations, recipe.seed),
            there.demonstrations(len(held), recipe.seed + 1, held),
        )

    def documents() -> list[Document]:
        return [Document(text=text) for text in there.corpus(sizes.documents, _WORLD_SEED)]

    return Materials(
        world=there,
        documents=documents,
        demonstrations=demonstrations,
        prompts=prompts,
        judgements=lambda: ([], []),
    )
