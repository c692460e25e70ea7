"""What a run works on: from the files that a recipe names, or from a built-in world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from plaudit.errors import RecordError
from plaudit.reading import held_out, load
from plaudit.reading.loading import SplitText
from plaudit.recipe import Recipe, Reward
from plaudit.records import Demonstration, Document, Judgement, Prompt
from plaudit.text import Words
from plaudit.training.judged import check_read, check_watched, said_by
from plaudit.worlds import world
from plaudit.worlds.reviews import ReviewWorld

__all__ = [
    "Materials",
    "check_demonstrations",
    "check_judgements",
    "check_prompts",
    "check_prompts_fit",
    "materials_of",
]

_WORLD_SEED = 0
"""The world's texts are the same in every run, so that its built-in model can be kept and used again."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Records for each stage, read when they are first asked for; no prompt is on both sides."""

    world: ReviewWorld | None
    documents: Callable[[], list[Document]]
    """Raw texts; not kept in memory."""
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

    @cache
    def demonstrations() -> tuple[list[Demonstration], list[Demonstration]]:
        found = load(data.demonstrations, "demonstrations", seed=recipe.seed, split_text=split_text)
        return held_out(found, data.held_out)

    @cache
    def prompts() -> tuple[list[Prompt], list[Prompt]]:
        return held_out(load(data.prompts, "prompts", seed=recipe.seed, split_text=split_text), data.held_out)

    @cache
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

    @cache
    def prompts() -> tuple[list[Prompt], list[Prompt]]:
        train = there.prompts(sizes.prompts, recipe.seed)
        return train, there.prompts(sizes.held_out, recipe.seed, held_out=True)

    @cache
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


def check_prompts(
    prompts: tuple[Sequence[Prompt], Sequence[Prompt]], readers: Sequence[Words], share: float, needed: int
) -> None:
    """Refuse prompts that would stop the policy stage or the evaluation.

    Args:
        prompts: those to train on, and those held out.
        readers: everybody's tokenizer who will read them.
        share: the recipe's `data.held_out`.
        needed: prompts that one round of the policy takes; 0 where there is no such stage.

    Raises:
        RecordError: there are too few, or none to evaluate on.
        TextError: one has too many tokens, or is a chat for a tokenizer without a template.
    """
    train, held = prompts
    if len(train) < needed:
        raise RecordError(
            f"data.prompts: a round takes {needed} prompts (policy.prompts_per_round), but there are {len(train)}, "
            f"beside the {len(held)} that data.held_out {share} keeps for evaluation"
        )
    if not held:
        raise RecordError(
            f"data.prompts: data.held_out {share} keeps none of {len(train)} prompts for evaluation: raise it, "
            "or give more prompts"
        )
    check_prompts_fit((*train, *held), readers)


def check_prompts_fit(prompts: Sequence[Prompt], readers: Sequence[Words]) -> None:
    """Refuse a prompt that one of these tokenizers cannot read.

    Raises:
        TextError: it has too many tokens, or is a chat for a tokenizer without a template.
    """
    for words in readers:
        for prompt in prompts:
            words.prompt_ids(prompt)


def check_demonstrations(
    demonstrations: tuple[Sequence[Demonstration], Sequence[Demonstration]], readers: Sequence[Words], share: float
) -> None:
    """Refuse demonstrations that would stop supervised fine-tuning.

    Raises:
        RecordError: all of them are held out.
        TextError: a prompt has too many tokens, or is a chat for a tokenizer without a template.
    """
    train, held = demonstrations
    if not train:
        raise RecordError(
            f"data.demonstrations: data.held_out {share} keeps all {len(held)} of them from training: lower it, "
            "or give more"
        )
    for words in readers:
        for demonstration in (*train, *held):
            words.prompt_ids(demonstration.prompt)


def check_judgements(
    judgements: tuple[Sequence[Judgement], Sequence[Judgement]],
    readers: Sequence[Words],
    share: float,
    settings: Reward,
) -> None:
    """Refuse judgements that would stop the training of the reward model.

    Raises:
        RecordError: none of those to train on says which answer is better, scores lack the scale that they need, a
            ranking has more ties than its loss takes, or a setting, patience among them, finds nothing that it is for.
        TextError: a prompt has too many tokens, or is a chat for a tokenizer without a template.
    """
    train, held = judgements
    learned, mix = said_by(train, settings)
    if not learned:
        raise RecordError(
            f"data.judgements: none of {len(train)} to train on says which answer is better ({mix.describe()}); "
            f"{len(held)} more are held out by data.held_out {share}"
        )
    check_read(mix, settings, [*train, *held])
    unseen, _ = said_by(held, settings, mix)
    check_watched(unseen, held, settings)
    for words in readers:
        for one in (*learned, *unseen):
            words.prompt_ids(one.judgement.prompt)
