"""The reward model: from judgements to a scorer."""

from __future__ import annotations

import dataclasses
import math
import shutil
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
from plaudit.training.judged import JudgedTokens, Mix, judged_batch, judged_tokens
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
        RecordError: no judgement orders anything, or patience has nothing to look at.
    """
    items, mix = judged_tokens(judgements, words, settings)
    if not items:
        raise RecordError(
            f"reward: none of {len(judgements)} judgements says which answer is better ({mix.describe()})"
        )
    say(f"reward: {len(items)} judgements: {mix.describe()}")
    if settings.margin and not any(item.margin for item in items):
        say(f"reward: reward.margin {settings.margin:g} changes nothing, for no comparison states its strength")
    steps = max(1, math.ceil(settings.epochs * len(items) / settings.minibatch))
    network.scales = _scales(mix)
    if network.scales is not None:
        network.scales.to(machine.device)
    learner = ModelLearner(network, settings.optimiser, steps=steps, machine=machine, micro_tokens=recipe.micro_tokens)
    seed = derive(recipe.seed, "reward", member) if member else derive(recipe.seed, "reward")
    if settings.bootstrap:
        draws = np.random.Generator(np.random.Philox(key=derive(seed, "bootstrap")))
        items = [items[i] for i in draws.integers(len(items), size=len(items))]
    stage = stage_of(member)
    loss = JudgementLoss(centring=settings.centring, language=settings.language, apart=len(mix.counts) > 1)
    offset = length_worth(items) if settings.length_debias else 0.0
    if settings.length_debias:
        say(f"reward: twice the length is worth {offset * math.log(2):+.3f} log-odds, which the reward need not say")
    order = _clearest_first(items) if settings.curriculum else None
    patience = _patience(settings, held_out, words, run.folder / "checkpoints" / f"{stage}-best")

    def body(step: int) -> dict[str, float] | None:
        if patience is not None and patience.over():
            return None
        places = minibatch_indices(len(items), settings.minibatch, step, seed=seed)
        if order is not None and (step + 1) * settings.minibatch <= len(items):
            places = order[step * settings.minibatch : (step + 1) * settings.minibatch]
        chosen = [items[i] for i in places]
        if settings.negatives:
            chosen = with_negatives(chosen, learner, settings.negatives, derive(seed, "negatives", step))
        with torch.random.fork_rng():  # dropout is the only draw
            torch.manual_seed(derive(seed, "dropout", step))
            metrics = learner.step(Part(judged_batch(chosen, offset), loss), adversary=settings.adversary)
        if patience is not None and ((step + 1) % settings.look_every == 0 or step + 1 == steps):
            metrics["held_out_loss"] = patience.look(step + 1, learner, loss, offset)
        return metrics

    run_steps(run, stage, learner, steps, body, save_every=recipe.save_every, memory=patience)
    if patience is not None:
        patience.take_best(learner)
    return learner


def stage_of(member: int) -> str:
    """The name under which a member's training is logged and kept: `reward`, `reward-2`, `reward-3`."""
    return f"reward-{member + 1}" if member else "reward"


def _scales(mix: Mix) -> Scales | None:
    if not mix.grade_counts and Said.TIED_PAIRS.words not in mix.counts:
        return None
    return Scales(mix.tie_share, mix.grade_counts)


def _clearest_first(items: Sequence[JudgedTokens]) -> list[int]:
    return sorted(range(len(items)), key=lambda i: -items[i].clearness)


def length_worth(items: Sequence[JudgedTokens]) -> float:
    """What a unit of log length is worth by itself, in log-odds: the best reward model that sees lengths alone.

    Found by the judgements' own losses. Those without an order, and ratings by squared error, have no say.
    """
    compared = [item for item in items if item.said not in (Said.GRADE, Said.RATING)]
    if not compared:
        return 0.0
    batch, loss = judged_batch(compared, 1.0), JudgementLoss()
    length_B = batch.offset_B.double()
    worth = torch.zeros((), dtype=torch.float64, requires_grad=True)
    tie = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    plain = dataclasses.replace(batch, offset_B=torch.zeros_like(length_B), weight_P=batch.weight_P.double())
    optimiser = torch.optim.LBFGS([worth, tie], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        found = loss(Outputs(score=worth * length_B, tie=tie), plain)
        # a little pull to 0, for judgements that length orders without exception
        mean: torch.Tensor = found.total / max(found.denominator, 1e-9) + 1e-4 * worth**2
        mean.backward()
        return mean

    optimiser.step(closure)
    return float(worth.detach())


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

    def look(self, step: int, learner: ModelLearner, loss: JudgementLoss, offset: float) -> float:
        """The held-out loss now; the weights are kept if it is the least so far."""
        total = weight = 0.0
        for start in range(0, len(self._items), 64):
            batch = judged_batch(self._items[start : start + 64], offset)
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


def _patience(settings: Reward, held_out: Sequence[Judgement], words: Words, kept: Path) -> _Patience | None:
    if settings.patience is None:
        return None
    items, _ = judged_tokens(held_out, words, settings)
    if not items:
        raise RecordError(
            f"reward.patience {settings.patience} looks at held-out judgements, and none of {len(held_out)} says "
            "which answer is better: raise data.held_out"
        )
    return _Patience(items, settings.patience, kept)
