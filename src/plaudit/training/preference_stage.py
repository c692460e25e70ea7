"""From judgements straight to a policy, without a reward model and without sampling: DPO, IPO, KTO.

The policy is its own reward model: an answer's reward is beta log(pi / ref), and the losses of judgements are taken of
that. Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; Azar et al. 2023, https://arxiv.org/abs/2310.12036;
Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306.

Shape letters:  B answers   P judgements   T tokens   M pairs
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree, pack
from plaudit.errors import RecordError
from plaudit.losses.pairwise import pairs_of_ranks, pairwise_ranking_loss
from plaudit.losses.preference import implicit_reward, ipo_loss, kto_loss, kto_reference
from plaudit.losses.reduction import masked_sum
from plaudit.recipe import Recipe, Reward
from plaudit.records import Judgement
from plaudit.runs import Run
from plaudit.runs.progress import say
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import JudgedTokens, gathered, judged_tokens, said_by
from plaudit.training.learner import Learner, Part
from plaudit.training.objectives import Said, TextBatch
from plaudit.training.rollouts import Reference
from plaudit.training.stage import minibatch_indices, run_steps
from plaudit.tuning import Policy

__all__ = [
    "PreferenceBatch",
    "PreferenceLoss",
    "mismatched_gain",
    "preference_batch",
    "preference_items",
    "preference_judgements",
    "preference_steps",
    "train_preference",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceBatch:
    """Judged answers, one prompt of the tree for each judgement, with what the reference says of them."""

    tree: TokenTree
    rank_B: Tensor
    """int64 [B]: 1 is best, ties share a number; 0 for an answer with a thumb."""
    desirable_B: Tensor
    """bool [B]: a thumb up, or the best of its judgement."""
    undesirable_B: Tensor
    """bool [B]: a thumb down, or the worst of its judgement."""
    sure_P: Tensor
    """[P] probability that the judgement is the right way round."""
    weight_P: Tensor
    """[P] how much it counts."""
    ref_logp_B: Tensor
    """[B] log-probability of the whole answer under the reference, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceLoss:
    """The loss of judgements of a policy's implicit rewards; each judgement weighs 1 (times its annotator's weight).

    A judgement that may be the wrong way round has the loss that is to be expected: sure L + (1 - sure) L reversed.
    """

    kind: Literal["dpo", "ipo", "kto"]
    beta: float
    """Cost of a nat, in log-odds of winning."""
    reference: float = 0.0
    """KTO's z0, in nats: the gain over the reference that leaves one cold."""
    desirable: float = 1.0
    """KTO's weight of a good answer."""
    undesirable: float = 1.0
    """KTO's weight of a bad answer."""
    needs: Needs = field(default_factory=lambda: Needs(logp=True))

    def __call__(self, outputs: Outputs, batch: PreferenceBatch) -> LossSum:
        """Sum over judgements, and their weights."""
        mask_BT = batch.tree.mask_BT
        logp_B = masked_sum(outputs.logp_BT, mask_BT)
        sizes = [len(lengths) for lengths in batch.tree.answer_lengths]
        ranks = iter(batch.rank_B.tolist())
        pairs = pairs_of_ranks([[next(ranks) for _ in range(size)] for size in sizes])
        reward_B = implicit_reward(logp_B, batch.ref_logp_B, beta=self.beta)
        better_M, worse_M = pairs.better_M.to(logp_B.device), pairs.worse_M.to(logp_B.device)
        loss_P = logp_B.new_zeros(len(sizes))
        match self.kind:
            case "dpo":
                loss_P = pairwise_ranking_loss(reward_B, pairs, sure_J=batch.sure_P)
            case "ipo":
                judgement_M = pairs.judgement_M.to(logp_B.device)
                sure_M, weight_M = batch.sure_P[judgement_M], pairs.weight_M.to(logp_B.device, logp_B.dtype)
                right_M, wrong_M = (
                    ipo_loss(logp_B[up], logp_B[down], batch.ref_logp_B[up], batch.ref_logp_B[down], beta=self.beta)
                    for up, down in ((better_M, worse_M), (worse_M, better_M))
                )
                loss_P = loss_P.index_add(0, judgement_M, weight_M * (sure_M * right_M + (1 - sure_M) * wrong_M))
            case "kto":
                told_B = batch.desirable_B | batch.undesirable_B
                z0 = torch.tensor(self.reference, device=logp_B.device)
                right_B, wrong_B = (
                    kto_loss(
                        logp_B,
                        batch.ref_logp_B,
                        good_B,
                        z0,
                        beta=self.beta,
                        desirable_weight=self.desirable,
                        undesirable_weight=self.undesirable,
                    )
                    for good_B in (batch.desirable_B, ~batch.desirable_B)
                )
                owner_B = torch.tensor(batch.tree.prompt_of_answers(), device=logp_B.device)
                sure_B = batch.sure_P[owner_B]
                loss_B = sure_B * right_B + (1 - sure_B) * wrong_B
                count_P = loss_P.index_add(0, owner_B, told_B.to(loss_P.dtype)).clamp(min=1)
                loss_P = loss_P.index_add(0, owner_B, loss_B.masked_fill(~told_B, 0.0)) / count_P
        total, denominator = (batch.weight_P * loss_P).sum(), float(batch.weight_P.sum())
        gap_M = (reward_B[better_M] - reward_B[worse_M]).detach()
        moved_B = (logp_B - batch.ref_logp_B).detach()
        return LossSum(
            total,
            denominator,
            {
                "loss": (total.detach(), denominator),
                "accuracy": ((gap_M > 0).sum(), float(len(gap_M))),
                "reward_gap": (gap_M.sum(), float(len(gap_M))),
                "log_ratio": (moved_B.sum(), float(len(moved_B))),
            },
        )


def preference_judgements(
    judgements: Sequence[Judgement], settings: Policy, annotators: Mapping[str, float]
) -> list[Judgement]:
    """Those that the loss can learn from: that order answers, and for KTO thumbs.

    Args:
        judgements: what people said.
        settings: the stage's.
        annotators: weights of people's judgements, by their name; 1 where nothing is said.

    Raises:
        RecordError: there is none.
    """
    kind = settings.preference.loss
    found, mix = said_by(judgements, _reading(settings, annotators))
    kept = [one.judgement for one in found if len(set(one.ranks)) > 1 or (kind == "kto" and one.said is Said.THUMB)]
    if not kept:
        thumbs = "; kto learns from thumbs" if kind != "kto" else ""
        raise RecordError(
            f"policy: none of {len(judgements)} judgements is for {kind}, which needs one answer above another "
            f"({mix.describe()}){thumbs}"
        )
    return kept


def preference_items(
    judgements: Sequence[Judgement], words: Words, settings: Policy, annotators: Mapping[str, float]
) -> list[JudgedTokens]:
    """`preference_judgements` as tokens.

    Raises:
        RecordError: nothing says which answer is better.
        TextError: a prompt is too long.
    """
    kept = preference_judgements(judgements, settings, annotators)
    out = len(gathered(judgements)) - len(kept)
    left = f"; {out} left out: no answer above another" if out else ""
    say(f"policy: {len(kept)} judgements for {settings.preference.loss}{left}")
    return judged_tokens(kept, words, _reading(settings, annotators))[0]


def _reading(settings: Policy, annotators: Mapping[str, float]) -> Reward:
    """How judgements are read here: all that order answers, as pairs."""
    smoothing = settings.preference.label_smoothing
    return Reward(
        rankings="pairs",
        choices="pairs",
        ratings="pairs",
        ties=False,
        label_smoothing=smoothing,
        annotators=dict(annotators),
    )


def preference_steps(items: int, settings: Policy) -> int:
    """Optimiser steps in all."""
    return max(1, math.ceil(settings.preference.epochs * items / settings.preference.minibatch))


def train_preference(
    run: Run,
    learner: Learner,
    reference: Reference,
    items: Sequence[JudgedTokens],
    words: Words,
    settings: Policy,
    recipe: Recipe,
) -> None:
    """Tune a policy toward what was judged better, staying near its reference as beta says.

    Raises:
        NumberError: a loss or a gradient is not finite.
    """
    seed, preference = derive(recipe.seed, "policy"), settings.preference
    steps = preference_steps(len(items), settings)
    cold = PreferenceLoss(
        kind=preference.loss,
        beta=settings.kl.beta,
        desirable=preference.desirable,
        undesirable=preference.undesirable,
    )

    def body(step: int) -> dict[str, float]:
        places = minibatch_indices(len(items), preference.minibatch, step, seed=seed)
        chosen = [items[i] for i in places]
        loss = cold
        if preference.loss == "kto":
            gain = mismatched_gain(learner, reference, chosen, words, derive(seed, "mismatched", step))
            loss = dataclasses.replace(loss, reference=gain)
        return learner.step(Part(preference_batch(chosen, reference), loss))

    run_steps(run, "policy", learner, steps, body, save_every=recipe.save_every)


def preference_batch(chosen: Sequence[JudgedTokens], reference: Reference) -> PreferenceBatch:
    """Judgements as one packed batch, with what the reference says of their answers."""
    tree = pack([(item.prompt, item.answers) for item in chosen], names=[item.name for item in chosen])
    thumbs = [item.said is Said.THUMB for item in chosen]
    up = [
        bool(target) if thumb else rank == min(item.ranks)
        for item, thumb in zip(chosen, thumbs, strict=True)
        for rank, target in zip(item.ranks, item.target, strict=True)
    ]
    down = [
        not target if thumb else rank == max(item.ranks)
        for item, thumb in zip(chosen, thumbs, strict=True)
        for rank, target in zip(item.ranks, item.target, strict=True)
    ]
    return PreferenceBatch(
        tree=tree,
        rank_B=torch.tensor([rank for item in chosen for rank in item.ranks]),
        desirable_B=torch.tensor(up),
        undesirable_B=torch.tensor(down),
        sure_P=torch.tensor([item.sure for item in chosen]),
        weight_P=torch.tensor([item.weight for item in chosen]),
        ref_logp_B=_log_probability(reference, tree),
    )


def _log_probability(reference: Reference, tree: TokenTree) -> Tensor:
    return masked_sum(reference.logp_BT(TextBatch(tree=tree)).cpu(), tree.mask_BT)


def mismatched_gain(
    learner: Learner, reference: Reference, chosen: Sequence[JudgedTokens], words: Words, seed: int
) -> float:
    """KTO's z0: how much likelier than the reference the policy finds answers that belong to somebody else's prompt.

    Behind each prompt stands an answer of the next judgement that has another prompt; which of its answers, the seed
    says, for in a file of pairs the first is the better one always.
    """
    names, texts = [], []
    for i, one in enumerate(chosen):
        other = next((other for other in (*chosen[i + 1 :], *chosen[:i]) if other.prompt != one.prompt), None)
        if other is not None:
            answer = other.answers[derive(seed, i) % len(other.answers)]
            names.append(one.name)
            texts.append((one.prompt, [answer[: words.room_behind(one.prompt)]]))
    if not texts:
        return 0.0
    mixed = pack(texts, names)
    said_B = masked_sum(learner.forward(TextBatch(tree=mixed), Needs(logp=True)).logp_BT.cpu(), mixed.mask_BT)
    return float(kto_reference(said_B, _log_probability(reference, mixed)))
