"""From a recipe's settings to scorers, and what can be checked of them before work starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.records import Prompt
from plaudit.scorers.classifier import ClassifierScorer, load_classifier
from plaudit.scorers.function import OwnFunctionScorer
from plaudit.scorers.overlap import OverlapScorer, bleu, chrf, rouge
from plaudit.scorers.seam import Scorer, reference_of
from plaudit.scorers.service import HttpScorer, Service, bearer
from plaudit.scorers.similarity import SimilarityScorer, load_encoder
from plaudit.scorers.surface import LengthScorer, RepetitionScorer
from plaudit.scorers.weighted import Part, WeightedScorer
from plaudit.scoring import (
    ByBleu,
    ByChrf,
    ByClassifier,
    ByFunction,
    ByHttp,
    ByLength,
    ByModel,
    ByRepetition,
    ByRouge,
    BySimilarity,
    Scoring,
)

__all__ = ["RewardModel", "check_references", "scorer_of", "weighted_scorer"]

RewardModel = Callable[[str | None], Scorer]
"""Loads the reward model in a folder, or the run's own where there is none."""


def weighted_scorer(
    scorers: Mapping[str, Scoring], machine: Machine, reward_model: RewardModel, *, micro_tokens: int
) -> WeightedScorer:
    """The weighted sum that a recipe's `scorers` describe.

    Raises:
        PlauditError: one of them cannot be made; see `scorer_of`.
    """
    return WeightedScorer(
        {
            name: Part(
                scorer=scorer_of(settings, machine, reward_model, micro_tokens=micro_tokens),
                weight=settings.weight,
                clip=settings.clip,
            )
            for name, settings in scorers.items()
        }
    )


def scorer_of(settings: Scoring, machine: Machine, reward_model: RewardModel, *, micro_tokens: int) -> Scorer:
    """The scorer that settings describe.

    Raises:
        ModelError: a model cannot be loaded, or lacks the class that is asked for.
        ScorerError: a function cannot be loaded, or the environment lacks a service's token.
        RecipeError: an optional package is missing.
    """
    match settings:
        case ByModel(path=path):
            return reward_model(path)
        case BySimilarity(path=path, to=to, pooling=pooling, max_tokens=most):
            encoder = load_encoder(path, machine, max_tokens=most, micro_tokens=micro_tokens)
            return SimilarityScorer(encoder, to=to, pooling=pooling)
        case ByClassifier(path=path, label=label, max_tokens=most):
            classifier = load_classifier(path, machine, max_tokens=most, micro_tokens=micro_tokens)
            return ClassifierScorer(classifier, label=label, gives=settings.gives, reads=settings.reads)
        case ByBleu(tokenize=tokenize):
            return OverlapScorer(bleu(tokenize))
        case ByChrf(word_order=word_order):
            return OverlapScorer(chrf(word_order))
        case ByRouge(measure=measure):
            return OverlapScorer(rouge(measure))
        case ByFunction(path=path, batch=batch):
            return OwnFunctionScorer(path, batch=batch)
        case ByHttp(url=url, batch=size, concurrency=concurrency):
            service = Service(
                url,
                timeout=settings.timeout,
                retries=settings.retries,
                backoff=settings.backoff,
                token=bearer(settings.token_from),
            )
            return HttpScorer(service, batch=size, concurrency=concurrency)
        case ByLength(target=target):
            return LengthScorer(target, unit=settings.unit, tolerance=settings.tolerance, side=settings.side)
        case ByRepetition(n=n):
            return RepetitionScorer(n)


def check_references(scorers: Mapping[str, Scoring], prompts: Iterable[Prompt]) -> None:
    """Refuse prompts without the reference that a scorer compares their answers to.

    Raises:
        RecordError: names the scorer and the first such prompt.
    """
    comparing = next((name for name, settings in scorers.items() if settings.reads_reference()), None)
    if comparing is None:
        return
    for prompt in prompts:
        try:
            reference_of(prompt)
        except RecordError as error:
            raise RecordError(f"scorers.{comparing}: {error}") from error
