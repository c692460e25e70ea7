"""The reward model: from judgements to a scorer."""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plaudit.batch import Outputs
from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.models.network import RewardNetwork, Scales
from plaudit.recipe import Recipe, Reward
from plaudit.records import Judgement
from plaudit.runs import Run
from plaudit.runs.progress import say
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import (
    JudgedTokens,
    LengthWorth,
    Mix,
    check_read,
    check_watched,
    judged_batch,
    judged_tokens,
    log_length,
)
from plaudit.training.learner import ModelLearner, Part, on_device
from plaudit.training.negatives import with_negatives
from plaudit.training.objectives import JudgementLoss, Said
from plaudit.training.stage import minibatch_indices, run_steps

__all__ = ["length_worth", "stage_of", "train_reward"]


def train_reward(
    run: Run,
    network: RewardNetwork,
    words: Words,
    judgements: Sequence[Judgement],
    settings: Reward,
    recipe: Recipe,
    machine: Machine,
    held_out: Sequence[Judgement] = (),
    *,
    member: int = 0,
) -> ModelLearner:
    """Train a reward model: every answer is scored once, each judgement by the loss that fits it, each weighing 1.

    Args:
        run: where log and checkpoints go.
        network: what is trained.
        words: its tokenizer.
        judgements: to learn from.
        settings: the stage's.
        recipe: seed, checkpoints, tokens in one forward pass.
        machine: device and precision.
        held_out: judgements that patience looks at.
        member: which one of an ensemble; its orders, and its draw of the judgements, are its own.

    Returns:
        The learner, whose network is trained.

    Raises:
        RecordError: no judgement orders anything, patience has nothing to look at, or a setting nothing to read.
    """
    items, mix = judged_tokens(judgements, words, settings)
    if not items:
        raise RecordError(
            f"reward: none of {len(judgements)} judgements says which answer is better ({mix.describe()})"
        )
    say(f"reward: {len(items)} judgements: {mix.describe()}")
    check_read(mix, settings, [*judgements, *held_out])
    length = length_worth(items) if settings.length_debias else None
    if length is not None:
        say(f"reward: twice the length is worth {length.slope * math.log(2):+.3f} log-odds; the reward need not say it")
    steps = max(1, math.ceil(settings.epochs * len(items) / settings.minibatch))
    network.scales = _scales(mix)
    if network.scales is not None:
        network.scales.to(machine.device)
    learner = ModelLearner(
        network,
        settings.optimiser,
        steps=steps,
        machine=machine,
        micro_tokens=recipe.micro_tokens,
        average=settings.average,
    )
    seed = derive(recipe.seed, "reward", member) if member else derive(recipe.seed, "reward")
    if settings.bootstrap:
        draws = np.random.Generator(np.random.Philox(key=derive(seed, "bootstrap")))
        items = [items[i] for i in draws.integers(len(items), size=len(items))]
    stage = stage_of(member)
    loss = JudgementLoss(centring=settings.centring, language=settings.language, apart=len(mix.counts) > 1)
    opening = _clearest_first(items, seed) if settings.curriculum else None
    patience = _patience(settings, held_out, mix, words, run.folder / "checkpoints" / f"{stage}-best")

    def body(step: int) -> dict[str, float] | None:
        if patience is not None and patience.over():
            return None
        places = minibatch_indices(len(items), settings.minibatch, step, seed=seed, opening=opening)
        chosen = [items[i] for i in places]
        if settings.negatives:
            chosen = with_negatives(chosen, learner, words, settings.negatives, derive(seed, "negatives", step))
        with torch.random.fork_rng():  # dropout is the only draw
            torch.manual_seed(derive(seed, "dropout", step))
            metrics = learner.step(Part(judged_batch(chosen, length), loss), adversary=settings.adversary)
        if patience is not None and ((step + 1) % settings.look_every == 0 or step + 1 == steps):
            metrics["held_out_loss"] = patience.look(step + 1, learner, loss, length)
        return metrics

    run_steps(run, stage, learner, steps, body, save_every=recipe.save_every, memory=patience)
    if patience is not None:
        patience.take_best(learner)
    learner.take_mean()
    return learner


def stage_of(member: int) -> str:
    """The name under which a member's training is logged and kept: `reward`, `reward-2`, `reward-3`."""
    return f"reward-{member + 1}" if member else "reward"


def _scales(mix: Mix) -> Scales | None:
    if not mix.grade_counts and Said.TIED_PAIRS.words not in mix.counts:
        return None
    return Scales(mix.tie_share, mix.grade_counts)


def _clearest_first(items: Sequence[JudgedTokens], seed: int) -> list[int]:
    """Those that are equally clear in the order in which they would have been seen otherwise."""
    return sorted(minibatch_indices(len(items), len(items), 0, seed=seed), key=lambda i: -items[i].clearness)


def length_worth(items: Sequence[JudgedTokens]) -> LengthWorth:
    """What log length is worth by itself: the best reward model that sees lengths alone.

    Found by the judgements' own losses, beside a constant of its own for the thumbs: that most go up says nothing about
    length. Around the mean log length of what got a thumb, length is worth nothing, so that the score goes on to say
    how frequent a thumb up is; comparisons see no constant. Grades and ratings have no say, and length none in them.
    """
    compared = [item for item in items if item.said not in (Said.GRADE, Said.RATING)]
    if not compared:
        return LengthWorth()
    thumbed = [log_length(answer) for item in compared if item.said is Said.THUMB for answer in item.answers]
    centre = statistics.fmean(thumbed) if thumbed else 0.0
    batch, loss = judged_batch(compared, LengthWorth(1.0, centre)), JudgementLoss()
    length_B = batch.offset_B.double()
    size_P = torch.tensor([len(item.answers) for item in compared])
    thumb_B = (batch.said_P == Said.THUMB).repeat_interleave(size_P).double()
    quality_B = batch.quality_P.repeat_interleave(size_P)
    worth, tie = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    up_Q = torch.zeros(int(quality_B.max()) + 1, dtype=torch.float64, requires_grad=True)
    plain = dataclasses.replace(batch, offset_B=torch.zeros_like(length_B), weight_P=batch.weight_P.double())
    optimiser = torch.optim.LBFGS([worth, up_Q, tie], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        found = loss(Outputs(score=worth * length_B + up_Q[quality_B] * thumb_B, tie=tie), plain)
        # a little pull to 0, for judgements that length, or the constant, explains without exception
        mean: torch.Tensor = found.total / max(found.denominator, 1e-9) + 1e-4 * (worth**2 + (up_Q**2).sum())
        mean.backward()
        return mean

    optimiser.step(closure)
    return LengthWorth(float(worth.detach()), centre)


class _Patience:
    """Looks at the held-out loss, keeps the best weights, and says when it has not fallen for long enough."""

    def __init__(self, items: Sequence[JudgedTokens], looks: int, kept: Path) -> None:
        self._items = items
        self._looks = looks
        self._kept = kept
        self._best = math.inf
        self._since = 0

    def over(self) -> bool:
        """Whether training ends here."""
        return self._since >= self._looks

    def look(self, step: int, learner: ModelLearner, loss: JudgementLoss, length: LengthWorth | None) -> float:
        """The held-out loss now; the weights are kept if it is the least so far."""
        total = weight = 0.0
        for start in range(0, len(self._items), 64):
            batch = judged_batch(self._items[start : start + 64], length)
            with torch.no_grad():
                found = loss(learner.forward(batch, loss.needs), on_device(batch, learner.machine.device))
            total += float(found.total)
            weight += found.denominator
        value = total / weight
        if value < self._best:
            self._best, self._since = value, 0
            aside = self._kept.with_name(self._kept.name + ".writing")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            learner.save(aside)
            shutil.rmtree(self._kept, ignore_errors=True)
            aside.rename(self._kept)
        else:
            self._since += 1
        if self.over():
            say(f"reward: the held-out loss has not fallen for {self._looks} looks; it ends at step {step}")
        return value

    def take_best(self, learner: ModelLearner) -> None:
        """Give the learner the best weights back."""
        learner.load(self._kept)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self._best if math.isfinite(self._best) else None, "since": self._since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self._best = math.inf if state["best"] is None else state["best"]
        self._since = state["since"]


def _patience(
    settings: Reward, held_out: Sequence[Judgement], learned: Mix, words: Words, kept: Path
) -> _Patience | None:
    if settings.patience is None:
        return None
    items, _ = judged_tokens(held_out, words, settings, learned)
    check_watched(items, held_out, settings)
    return _Patience(items, settings.patience, kept)
