"""Models that the language stage makes from nothing but texts, each with a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.models.builtin import CONTEXT, frequent_characters, new_model, new_tokenizer
from plaudit.models.load import Machine, new_lstm_language
from plaudit.recipe import Recipe
from plaudit.records import Document
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.worlds import world

__all__ = ["make_model"]


def make_model(recipe: Recipe, documents: Sequence[Document], machine: Machine) -> tuple[Any, Words]:
    """The model that `model.path` names, drawn at random, and its tokenizer, learned from the first documents.

    The built-in model reads as many tokens as the recipe's texts have; an LSTM has no such limit.

    Args:
        recipe: names it, its vocabulary and the seed; a world has one built-in model for all seeds.
        documents: what tokens are learned from.
        machine: where the model goes.
    """
    there = None if recipe.world is None else world(recipe.world.name)
    texts = [document.text for document in documents[:4000]]
    alphabet = there.alphabet() if there is not None else frequent_characters(texts)
    longest = max(CONTEXT, recipe.text.max_prompt_tokens + recipe.text.max_answer_tokens)
    context = longest if recipe.model.path == "builtin" else None
    tokenizer = new_tokenizer(texts, alphabet, vocabulary=recipe.model.vocabulary, context=context)
    words = Words(tokenizer, recipe.text, context=context)
    seed = derive(recipe.seed, "weights")
    if recipe.model.path == "lstm":
        return new_lstm_language(tokenizer, machine, seed=seed), words
    model = new_model(tokenizer, seed=seed if there is None else 0, context=longest)
    return model.to(machine.device), words
