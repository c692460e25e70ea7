"""PPG's auxiliary phase: the policy's trunk learns what returns are to be expected, and the policy stays where it is.

Cobbe et al. 2020, https://arxiv.org/abs/2009.04416. Between two phases the answers of all rounds are kept, as tokens.

Shape letters:  B answers   T tokens   V vocabulary
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree, pack
from plaudit.losses.reduction import token_portion
from plaudit.losses.value import value_loss
from plaudit.training.learner import Learner, Part
from plaudit.training.objectives import TextBatch
from plaudit.training.policy_loss import PolicyBatch
from plaudit.tuning import Auxiliary

__all__ = ["AuxiliaryBatch", "AuxiliaryLoss", "Kept", "auxiliary_phase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryBatch:
    """Answers of earlier rounds."""

    tree: TokenTree
    return_BT: Tensor
    """[B, T] what a critic should guess, in units of reward."""
    old_logp_BTV: Tensor
    """[B, T, V] the policy at the beginning of the phase, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryLoss:
    """Squared errors of the auxiliary head and of the critic, and KL(before, now) to hold the policy; by token."""

    clone: float
    """Weight of the KL."""
    needs: Needs = field(default_factory=lambda: Needs(distribution=True, value=True, auxiliary=True))

    def __call__(self, outputs: Outputs, batch: AuxiliaryBatch) -> LossSum:
        """Sum over tokens, and their number."""
        mask_BT = batch.tree.mask_BT
        old_BTV = batch.old_logp_BTV
        kl_BT = (old_BTV.exp() * (old_BTV - outputs.distribution_BTV)).sum(-1)
        taught = token_portion(value_loss(outputs.auxiliary_BT, batch.return_BT), mask_BT)
        critic = token_portion(value_loss(outputs.value_BT, batch.return_BT), mask_BT)
        moved = token_portion(kl_BT, mask_BT)
        tokens = taught.denominator
        return LossSum(
            taught.total + critic.total + self.clone * moved.total,
            tokens,
            {
                "auxiliary/value_loss": (taught.total.detach(), tokens),
                "auxiliary/critic_loss": (critic.total.detach(), tokens),
                "auxiliary/kl": (moved.total.detach(), tokens),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A round's answers as plain values, so that a checkpoint can hold them.

    What top-p left to draw from is not among them: the phase holds the policy in place on all tokens.
    """

    prompts: tuple[tuple[str, tuple[int, ...], tuple[tuple[int, ...], ...]], ...]
    """Name, tokens, and the tokens of each answer."""
    returns: tuple[tuple[float, ...], ...]
    """Of each token of each answer."""

    @classmethod
    def of(cls, batch: PolicyBatch) -> Kept:
        """A round's batch."""
        tree, tokens = batch.tree, batch.tree.token_N.tolist()
        prompts, here = [], 0
        for name, length, answers in zip(tree.names, tree.prompt_lengths, tree.answer_lengths, strict=True):
            prompt, here = tuple(tokens[here : here + length]), here + length
            rows = []
            for size in answers:
                rows.append(tuple(tokens[here : here + size]))
                here += size
            prompts.append((name, prompt, tuple(rows)))
        returns = tuple(tuple(row[:n]) for row, n in zip(batch.return_BT.tolist(), tree.lengths, strict=True))
        return cls(prompts=tuple(prompts), returns=returns)

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {"prompts": self.prompts, "returns": self.returns}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Kept:
        """From `state()`."""
        return cls(
            prompts=tuple((name, tuple(p), tuple(tuple(a) for a in answers)) for name, p, answers in state["prompts"]),
            returns=tuple(tuple(row) for row in state["returns"]),
        )

    def tensors(self) -> tuple[TokenTree, Tensor]:
        """The tree, and [B, T] the returns, 0 after an answer's end."""
        tree = pack([(p, answers) for _, p, answers in self.prompts], names=[name for name, _, _ in self.prompts])
        mask_BT = tree.mask_BT
        return_BT = torch.zeros(mask_BT.shape).masked_scatter(
            mask_BT, torch.tensor([value for row in self.returns for value in row])
        )
        return tree, return_BT

    def batch(self, learner: Learner) -> AuxiliaryBatch:
        """As tensors, with the policy as it is now."""
        tree, return_BT = self.tensors()
        old_BTV = learner.forward(TextBatch(tree=tree), Needs(distribution=True)).distribution_BTV.cpu()
        return AuxiliaryBatch(tree=tree, return_BT=return_BT, old_logp_BTV=old_BTV)


def auxiliary_phase(learner: Learner, kept: Sequence[Kept], settings: Auxiliary) -> dict[str, float]:
    """Teach the policy's trunk; one step for each round and epoch. Metrics are means over the last epoch."""
    loss = AuxiliaryLoss(clone=settings.clone)
    batches = [round_.batch(learner) for round_ in kept]
    found: list[dict[str, float]] = []
    for _ in range(settings.epochs):
        found = [learner.step(Part(batch, loss)) for batch in batches]
    names = ("auxiliary/value_loss", "auxiliary/critic_loss", "auxiliary/kl")
    return {name: statistics.fmean(metrics[name] for metrics in found) for name in names}
