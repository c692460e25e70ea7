"""Answers on held-out prompts: sampled or greedy by our sampler, beam search by Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from plaudit.models.generation import generate
from plaudit.models.load import Machine
from plaudit.recipe import Evaluate, Sampling
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.runs.progress import progress
from plaudit.sampling import ModelSampler, Request
from plaudit.seeds import derive
from plaudit.text import Words

__all__ = ["answer_prompts", "sampling_of"]


def answer_prompts(
    model: Any,
    words: Words,
    machine: Machine,
    prompts: Sequence[Prompt],
    settings: Evaluate,
    *,
    seed: int,
    title: str,
    answers: int = 1,
) -> list[Group]:
    """Answers to each prompt, decoded as the settings say.

    Args:
        seed: two models that are compared get the same.
        title: of the progress bar.
        answers: to each prompt; a beam search finds one.
    """
    with progress(title, len(prompts) * answers) as advance:
        if settings.decoding == "beam":
            groups = []
            for prompt in prompts:
                groups.append(_beam(model, words, machine, prompt, settings))
                advance(1)
            return groups
        requests = [
            Request(
                prompt=prompt,
                context_ids=words.prompt_ids(prompt),
                seeds=(derive(seed, prompt.id), *(derive(seed, prompt.id, k) for k in range(1, answers))),
            )
            for prompt in prompts
        ]
        return ModelSampler(model, words, machine, progress=advance).sample(requests, sampling_of(settings))


def sampling_of(settings: Evaluate) -> Sampling:
    """How answers are drawn, where they are not searched for."""
    if settings.decoding == "greedy":
        return settings.sampling.model_copy(update={"temperature": 0.0})
    return settings.sampling


def _beam(model: Any, words: Words, machine: Machine, prompt: Prompt, settings: Evaluate) -> Group:
    """The likeliest answer that a beam search finds; its log-probabilities are not those of a sample."""
    context = words.prompt_ids(prompt)
    given = torch.tensor([context], device=machine.device)
    budget = settings.sampling.max_tokens
    if words.context is not None:
        budget = min(budget, words.context - len(context))
    model.eval()
    with machine.computing():
        out = generate(model, given, max_tokens=budget, stop_ids=words.stop_ids, beams=settings.beams)
    tokens = out[0, len(context) :].tolist()
    end = next((i for i, token in enumerate(tokens) if token in words.stop_ids), None)
    tokens = tokens if end is None else tokens[: end + 1]
    answer = Answer(
        text=words.answer_text(context, tokens),
        token_ids=tuple(tokens),
        logps=(0.0,) * len(tokens),
        ended=Ended.CUT if end is None else Ended.STOPPED,
        seed=0,
    )
    return Group(prompt=prompt, context_ids=context, answers=(answer,))
