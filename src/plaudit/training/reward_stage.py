"""The reward model: from judgements to a scorer that says how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plaudit.batch import Needs, pack
from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.models.network import RewardNetwork
from plaudit.recipe import Recipe, Reward
from plaudit.records import Judgement, Thumb
from plaudit.runs import Run
from plaudit.runs.progress import say
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import ModelLearner, Part, forward
from plaudit.training.objectives import JudgedBatch, JudgementLoss
from plaudit.training.stage import minibatch_indices, run_steps

__all__ = ["JudgedTokens", "evaluate_reward", "judged_tokens", "train_reward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTokens:
    """One judgement as tokens."""

    name: str
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    ranks: tuple[int, ...]
    """1 is best; (0,) for a thumb."""
    thumb: bool


def judged_tokens(judgements: Sequence[Judgement], words: Words) -> list[JudgedTokens]:
    """The judgements that say something about order or worth, as tokens; comments and full ties are left out."""
    found = []
    for judgement in judgements:
        ranks = judgement.ranks()
        thumb = judgement.verdict.up if isinstance(judgement.verdict, Thumb) else None
        if thumb is None and (ranks is None or len(set(ranks)) < 2):
            continue
        prompt = words.prompt_ids(judgement.prompt)
        answers = tuple(words.answer_ids(answer, context_ids=prompt) for answer in judgement.answers)
        found.append(
            JudgedTokens(
                name=judgement.prompt.id, prompt=prompt, answers=answers, ranks=ranks or (0,), thumb=bool(thumb)
            )
        )
    return found


def judged_batch(chosen: Sequence[JudgedTokens]) -> JudgedBatch:
    """Judgements as one packed batch; K may differ from one to the next."""
    return JudgedBatch(
        tree=pack([(item.prompt, item.answers) for item in chosen], names=[item.name for item in chosen]),
        rank_B=torch.tensor([rank for item in chosen for rank in item.ranks]),
        thumb_B=torch.tensor([item.thumb for item in chosen for _ in item.ranks]),
    )


def train_reward(
    run: Run,
    network: RewardNetwork,
    words: Words,
    judgements: Sequence[Judgement],
    settings: Reward,
    recipe: Recipe,
    machine: Machine,
) -> ModelLearner:
    """Train a reward model: every answer is scored once, every pair of a ranking counts, each judgement weighs 1.

    Returns:
        The learner, whose network is trained.

    Raises:
        RecordError: no judgement orders anything.
    """
    items = judged_tokens(judgements, words)
    if not items:
        raise RecordError(f"reward: none of {len(judgements)} judgements says which answer is better")
    if len(items) < len(judgements):
        say(f"reward: {len(judgements) - len(items)} of {len(judgements)} judgements order nothing and are left out")
    steps = max(1, math.ceil(settings.epochs * len(items) / settings.minibatch))
    learner = ModelLearner(network, settings.optimiser, steps=steps, machine=machine, micro_tokens=recipe.micro_tokens)
    seed = derive(recipe.seed, "reward")

    def body(step: int) -> dict[str, float]:
        chosen = [items[i] for i in minibatch_indices(len(items), settings.minibatch, step, seed=seed)]
        with torch.random.fork_rng():  # dropout is the only draw
            torch.manual_seed(derive(seed, "dropout", step))
            return learner.step(Part(judged_batch(chosen), JudgementLoss()))

    run_steps(run, "reward", learner, steps, body, save_every=recipe.save_every)
    return learner


def evaluate_reward(
    network: RewardNetwork, words: Words, judgements: Sequence[Judgement], machine: Machine, micro_tokens: int
) -> dict[str, Any]:
    """Accuracy on held-out judgements, with its interval, its calibration, and what length alone reaches.

    A pair counts where the judgement orders it; a thumb counts as one. The interval is over judgements, because
    the pairs of one ranking are not independent.
    """
    items = judged_tokens(judgements, words)
    if not items:
        return {"pairs": 0}
    outputs = forward(network, judged_batch(items), Needs(score=True), machine=machine, micro_tokens=micro_tokens)
    scores = outputs.score_B.tolist()
    gaps: list[float] = []  # score of the better minus score of the worse
    longer: list[float] = []
    shares: list[tuple[float, int]] = []
    first = 0
    for item in items:
        score = scores[first : first + len(item.answers)]
        first += len(item.answers)
        here, long = _gaps(item, score)
        gaps += here
        longer += long
        shares.append((sum(_won(gap) for gap in here), len(here)))
    accuracy = statistics.fmean(_won(gap) for gap in gaps)
    return {
        "accuracy": accuracy,
        "interval": _interval(shares),
        "pairs": len(gaps),
        "judgements": len(items),
        "longer_wins": statistics.fmean(longer) if longer else None,
        **_calibration(gaps),
    }


def _won(gap: float) -> float:
    return 0.5 if gap == 0 else float(gap > 0)


def _gaps(item: JudgedTokens, score: Sequence[float]) -> tuple[list[float], list[float]]:
    if item.ranks == (0,):
        return [score[0] if item.thumb else -score[0]], []
    pairs = [(i, j) for i in range(len(score)) for j in range(len(score)) if item.ranks[i] < item.ranks[j]]
    lengths = [len(answer) for answer in item.answers]
    return [score[i] - score[j] for i, j in pairs], [_won(lengths[i] - lengths[j]) for i, j in pairs]


def _interval(shares: Sequence[tuple[float, int]]) -> list[float]:
    """95 % interval of a ratio of sums over judgements (linearised)."""
    total = sum(count for _, count in shares)
    ratio = sum(won for won, _ in shares) / total
    spread = sum((won - ratio * count) ** 2 for won, count in shares)
    error = 1.96 * math.sqrt(spread) / total
    return [max(0.0, ratio - error), min(1.0, ratio + error)]


def _calibration(gaps: Sequence[float], bins: int = 5) -> dict[str, Any]:
    """How often the answer that the model prefers wins, by how sure the model is of it."""
    edges = [0.5 + 0.5 * b / bins for b in range(bins + 1)]
    cells: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for gap in gaps:
        sure = 1 / (1 + math.exp(-min(abs(gap), 60.0)))
        place = min(bins - 1, sum(sure >= edge for edge in edges[1:]))
        cells[place].append((sure, _won(gap)))
    table = [
        {
            "predicted": statistics.fmean(sure for sure, _ in cell),
            "observed": statistics.fmean(won for _, won in cell),
            "count": len(cell),
        }
        for cell in cells
        if cell
    ]
    error = sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in table) / len(gaps)
    return {"expected_calibration_error": error, "calibration": table}
