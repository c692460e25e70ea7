"""TRPO: the step of steepest ascent inside a ball of KL, found by conjugate gradients, kept by a line search.

Schulman et al. 2015, https://arxiv.org/abs/1502.05477. The KL is KL(old, new), the mean over the prefixes of the batch,
from whole distributions: what is bounded is measured exactly, on these prefixes.

Shape letters:  B answers   T tokens   V vocabulary   D weights of the policy
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree, select
from plaudit.errors import NumberError, RecipeError
from plaudit.losses.policy import ratio_surrogate
from plaudit.losses.reduction import constant_portion, token_portion
from plaudit.losses.trust_region import Measured, conjugate_gradient, line_search, step_size
from plaudit.losses.value import value_loss
from plaudit.training.learner import Curvature, Learner, Part
from plaudit.training.policy_loss import PolicyBatch, apart, check_agreement
from plaudit.tuning import Trust

__all__ = ["ValueLoss", "trust_region_step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ball:
    """KL(old, new) over the prefixes of a batch, in nats per token."""

    needs: Needs = field(default_factory=lambda: Needs(distribution=True))

    def __call__(self, outputs: Outputs, batch: _BallBatch) -> LossSum:
        # as KL(pi, ref) of the old policy from the new one, the gradient in what stands second
        new_BTV, old_BTV = outputs.distribution_BTV, batch.old_logp_BTV
        kl_BT = (old_BTV.exp() * (old_BTV - new_BTV)).sum(-1)
        portion = token_portion(kl_BT, batch.tree.mask_BT)
        return LossSum(portion.total, portion.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BallBatch:
    tree: TokenTree
    old_logp_BTV: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surrogate:
    """Minus the importance-weighted advantage, the sum over an answer's tokens by the longest answer there may be."""

    longest: float
    needs: Needs = field(default_factory=lambda: Needs(logp=True))

    def __call__(self, outputs: Outputs, batch: PolicyBatch) -> LossSum:
        loss_BT = ratio_surrogate(outputs.logp_BT, batch.old_logp_BT, batch.advantage_BT)
        portion = constant_portion(loss_BT, batch.tree.mask_BT, budget=self.longest)
        return LossSum(portion.total, portion.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueLoss:
    """A critic's squared error alone; every token weighs the same."""

    needs: Needs = field(default_factory=lambda: Needs(value=True))

    def __call__(self, outputs: Outputs, batch: PolicyBatch) -> LossSum:
        """Sum over tokens, and their number."""
        portion = token_portion(value_loss(outputs.value_BT, batch.return_BT), batch.tree.mask_BT)
        metrics = {"value_loss": (portion.total.detach(), portion.denominator)}
        return LossSum(portion.total, portion.denominator, metrics)


def trust_region_step(
    learner: Learner, batch: PolicyBatch, settings: Trust, *, longest: float, share: float = 1.0
) -> dict[str, float]:
    """Move the policy once; where nothing that was tried is better and near enough, it stays as it was, bit for bit.

    Args:
        learner: what holds the policy; it must know its `Curvature`.
        batch: sampled answers with their advantages.
        settings: the bound, and how hard to search.
        longest: tokens of the longest answer there may be.
        share: of the bound, what is left of it in this round.

    Returns:
        `trust/kl` (nats per token, of the accepted step), `trust/gain` of the surrogate, `trust/fraction` of the full
        step, `trust/tries`; `kl_to_old` and `ratio_moved`, how far the learner's policy is from the sampler's.

    Raises:
        RecipeError: the learner cannot do this.
        NumberError: the learner's policy is not the sampler's, or the gradient is not finite; nothing has moved.
    """
    if not isinstance(learner, Curvature):
        raise RecipeError(f"policy.algorithm trpo needs gradients as vectors, which {type(learner).__name__} lacks")
    # before anything moves, the old policy is the one there is
    here = _on_cpu(learner.forward(batch, Needs(logp=True, distribution=True)))
    moved = apart(here.logp_BT, batch.old_logp_BT, batch.tree.mask_BT)
    told = {name: float(total) / count for name, (total, count) in moved.items()}
    check_agreement(told, full_precision=learner.full_precision)
    ball = Part(_BallBatch(tree=batch.tree, old_logp_BTV=here.distribution_BTV), _Ball())
    gain = Part(batch, _Surrogate(longest=longest))
    some = Part(_some_prompts(ball.batch, settings.fisher_share), ball.loss)
    bound = share * settings.bound
    uphill_D = -learner.gradient(gain, group="policy")
    nothing = {**told, "trust/kl": 0.0, "trust/gain": 0.0, "trust/fraction": 0.0, "trust/tries": 0.0}
    if not (bound > 0 and float(uphill_D.norm()) > 0):
        return nothing

    def product(vector_D: Tensor) -> Tensor:
        return learner.fisher_product(some, vector_D, group="policy") + settings.damping * vector_D

    direction_D = conjugate_gradient(product, uphill_D, iterations=settings.iterations, tolerance=1e-6)
    full_D = step_size(direction_D, product(direction_D), bound=bound) * direction_D
    kept = learner.snapshot(group="policy")

    def measure(fraction: float) -> Measured:
        learner.restore(kept, group="policy")
        learner.add(fraction * full_D, group="policy")
        return Measured(surrogate=-_mean(learner, gain), kl=_mean(learner, ball))

    start = -_mean_of(here, gain)
    try:
        found = line_search(measure, start=start, bound=bound, shrink=settings.shrink, tries=settings.tries)
    except NumberError:
        learner.restore(kept, group="policy")
        raise
    if found.measured is None:
        learner.restore(kept, group="policy")
        return {**nothing, "trust/tries": float(found.tries)}
    return {
        **told,
        "trust/kl": found.measured.kl,
        "trust/gain": found.measured.surrogate - start,
        "trust/fraction": found.fraction,
        "trust/tries": float(found.tries),
    }


def _some_prompts(batch: _BallBatch, share: float) -> _BallBatch:
    """That share of the prompts, one at least, evenly from first to last, with all of their answers."""
    count = max(1, round(share * batch.tree.prompts))
    chosen = {k * batch.tree.prompts // count for k in range(count)}
    return select(batch, [row for row, p in enumerate(batch.tree.prompt_of_answers()) if p in chosen])


def _mean(learner: Learner, part: Part) -> float:
    return _mean_of(_on_cpu(learner.forward(part.batch, part.loss.needs)), part)


def _mean_of(outputs: Outputs, part: Part) -> float:
    found = part.loss(outputs, part.batch)
    return float(found.total) / float(found.denominator)


def _on_cpu(outputs: Outputs) -> Outputs:
    return Outputs(
        **{f.name: v.cpu() for f in dataclasses.fields(outputs) if (v := getattr(outputs, f.name)) is not None}
    )
