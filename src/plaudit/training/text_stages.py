"""The two stages that make texts likelier: language-model training on raw text, supervised fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from plaudit.batch import Needs, pack
from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Language, Recipe, Sft
from plaudit.records import Demonstration, Document
from plaudit.runs import Run
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import ModelLearner, Part, forward
from plaudit.training.objectives import LanguageLoss, TextBatch
from plaudit.training.stage import minibatch_indices, run_steps

__all__ = [
    "TokenText",
    "demonstration_tokens",
    "document_tokens",
    "text_loss",
    "texts_beside",
    "train_language",
    "train_sft",
]

TokenText = tuple[tuple[int, ...], tuple[int, ...], str]
"""Tokens that are given, tokens to learn, and a name for messages."""


def document_tokens(documents: Sequence[Document], words: Words, max_tokens: int) -> list[TokenText]:
    """Raw texts as tokens: each piece is learned whole, after the start token."""
    return [
        (words.start_ids, piece, f"document {number}")
        for number, document in enumerate(documents)
        for piece in words.document_ids(document.text, max_tokens)
    ]


def demonstration_tokens(demonstrations: Sequence[Demonstration], words: Words) -> list[TokenText]:
    """Demonstrations as tokens: only the answer is learned, the end token always a part of it."""
    texts = []
    for demonstration in demonstrations:
        prompt = words.prompt_ids(demonstration.prompt)
        answer = words.answer_ids(demonstration.answer, context_ids=prompt)
        texts.append((prompt, answer, demonstration.prompt.id))
    return texts


def train_language(
    run: Run,
    network: LanguageNetwork,
    words: Words,
    documents: Sequence[Document],
    settings: Language,
    recipe: Recipe,
    machine: Machine,
) -> ModelLearner:
    """Train a language model on raw text: every token of a document is a target, its end token too.

    Returns:
        The learner, whose network is trained.
    """
    texts = document_tokens(documents, words, settings.max_tokens)
    return _train(run, "language", network, texts, settings.steps, settings, recipe, machine)


def train_sft(
    run: Run,
    network: LanguageNetwork,
    words: Words,
    demonstrations: Sequence[Demonstration],
    settings: Sft,
    recipe: Recipe,
    machine: Machine,
) -> ModelLearner:
    """Supervised fine-tuning: the answers' tokens become likelier, the prompts' are only read.

    Returns:
        The learner, whose network is trained.
    """
    texts = demonstration_tokens(demonstrations, words)
    steps = max(1, math.ceil(settings.epochs * len(texts) / settings.minibatch))
    return _train(run, "sft", network, texts, steps, settings, recipe, machine)


def _train(
    run: Run,
    stage: str,
    network: LanguageNetwork,
    texts: Sequence[TokenText],
    steps: int,
    settings: Language | Sft,
    recipe: Recipe,
    machine: Machine,
) -> ModelLearner:
    if not texts:
        raise RecordError(f"{stage}: there is no text to learn from")
    learner = ModelLearner(network, settings.optimiser, steps=steps, machine=machine, micro_tokens=recipe.micro_tokens)
    seed = derive(recipe.seed, stage)

    def body(step: int) -> dict[str, float]:
        chosen = [texts[i] for i in minibatch_indices(len(texts), settings.minibatch, step, seed=seed)]
        return learner.step(Part(text_batch(chosen), LanguageLoss()))

    run_steps(run, stage, learner, steps, body, save_every=recipe.save_every)
    return learner


def text_batch(texts: Sequence[TokenText]) -> TextBatch:
    """Texts as one packed batch."""
    return TextBatch(
        tree=pack([(given, [learned]) for given, learned, _ in texts], names=[name for _, _, name in texts])
    )


def texts_beside(
    terms: Mapping[str, tuple[float, Sequence[TokenText]]], size: int, seed: int
) -> Callable[[int], list[Part]]:
    """Texts that another stage keeps likely beside what it does.

    Args:
        terms: by the name of their metric, the weight of their mean negative log-likelihood per token, and the texts.
        size: texts in one optimiser step.
        seed: says their order.

    Returns:
        From the number of an optimiser step to its further terms.
    """
    for name, (_, texts) in terms.items():
        if not texts:
            raise RecordError(f"policy: there is no text for its {name}")

    def parts(number: int) -> list[Part]:
        return [
            Part(
                text_batch([texts[i] for i in minibatch_indices(len(texts), size, number, seed=derive(seed, name))]),
                LanguageLoss(Needs(logp=True, untempered=True), name),
                weight,
            )
            for name, (weight, texts) in terms.items()
        ]

    return parts


def text_loss(network: LanguageNetwork, texts: Sequence[TokenText], machine: Machine, micro_tokens: int) -> float:
    """Mean negative log-likelihood of the learned tokens, in nats per token, without training."""
    batch, loss = text_batch(texts), LanguageLoss()
    outputs = forward(network, batch, loss.needs, machine=machine, micro_tokens=micro_tokens)
    found = loss(outputs, batch)
    return float(found.total) / found.denominator
