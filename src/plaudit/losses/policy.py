"""What moves a policy: REINFORCE, importance weights, the surrogates of TRPO, PPO and GSPO, entropy.

    B sequences   T tokens   V vocabulary

All are to be *minimised*. A loss per token is reduced by `losses.reduction`, which says which tokens count; a loss per
answer is averaged over answers.

Answers that an older policy sampled can be used with the ratio of probabilities in two forms:

| | loss | gradient | where the ratio passes its cap |
|---|---|---|---|
| a weight | `weighted_reinforce_loss`: -[w] A log pi, [w] held fixed | -w A grad log pi | still pushes, by the cap |
| a surrogate | `ratio_surrogate`: -w A | -w A grad log pi | constant: no gradient |

As long as nothing is truncated the gradients are equal. They estimate the gradient of the expected reward without bias
if w is the ratio of *whole answers* (`sequence_weights`); with a ratio for each token (`token_weights`) a token is
weighed, but not the prefix it came after.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.errors import RecipeError, ShapeError
from plaudit.losses.reduction import masked_sum
from plaudit.shapes import check_rows, check_same_shape

__all__ = [
    "SequenceSurrogate",
    "Surrogate",
    "clipped_surrogate",
    "dual_clipped_surrogate",
    "entropy",
    "ratio_surrogate",
    "reinforce_loss",
    "sequence_clipped_surrogate",
    "sequence_ratio",
    "sequence_weights",
    "token_weights",
    "weighted_reinforce_loss",
]


class Surrogate(NamedTuple):
    """PPO's loss and what happened inside."""

    loss_BT: Tensor
    """[B, T] loss; the only field with a gradient."""
    ratio_BT: Tensor
    """[B, T] new over old probability; exactly 1 before the first optimiser step."""
    held_BT: Tensor
    """[B, T] bool: the clip decided this token, which then has no gradient."""


class SequenceSurrogate(NamedTuple):
    """The loss of GSPO and what happened inside."""

    loss_B: Tensor
    """[B] loss; the only field with a gradient."""
    ratio_B: Tensor
    """[B] new over old probability per token, the geometric mean; exactly 1 before the first optimiser step."""
    held_B: Tensor
    """[B] bool: the clip decided this answer, which then has no gradient."""


def reinforce_loss(logp_BT: Tensor, advantage_BT: Tensor) -> Tensor:
    """The score-function estimator, negated, per token.

        loss_bt = -advantage_bt log pi(token_bt)

    Its gradient is an unbiased estimate of the negative gradient of the expected reward if the advantage is what is
    earned from this token on, less a baseline that does not depend on this token. The value of the loss means nothing.
    Williams 1992, https://doi.org/10.1007/BF00992696.

    Args:
        logp_BT: [B, T] log-probabilities of the tokens that were sampled, in nats.
        advantage_BT: [B, T] advantages, in units of reward.

    Returns:
        [B, T] losses. Gradient flows into `logp_BT` only.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, advantage_BT=advantage_BT)
    return -advantage_BT.detach() * logp_BT


def weighted_reinforce_loss(logp_BT: Tensor, advantage_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """REINFORCE on answers that another policy sampled, negated, per token.

        loss_bt = -weight_bt advantage_bt log pi(token_bt)        nothing flows through the weight

    With `sequence_weights`, not truncated, unbiased. With `token_weights` truncated it is CISPO, MiniMax 2025, eq. 4,
    https://arxiv.org/abs/2506.13585: unlike PPO's clip it lets no token go without a gradient.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        advantage_BT: [B, T] advantages, in units of reward.
        weight_BT: [B, T] importance weights; those of whole answers by way of `advantages.per_token`.

    Returns:
        [B, T] losses. Gradient flows into `logp_BT` only.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, advantage_BT=advantage_BT, weight_BT=weight_BT)
    return reinforce_loss(logp_BT, weight_BT * advantage_BT)


def token_weights(logp_BT: Tensor, old_logp_BT: Tensor, *, truncate: float | None = None) -> Tensor:
    """How much more probable each token is than when it was sampled.

        w_bt = min(pi(token_bt) / pi_old(token_bt), truncate)

    It corrects what was chosen after a prefix and leaves how often the prefix is reached as it was under pi_old: biased
    over several tokens, but of far less variance than `sequence_weights`. The cap lowers the variance further and adds
    its own bias; it is the rho-bar of V-trace, Espeholt et al. 2018, https://arxiv.org/abs/1802.01561.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        truncate: the largest weight; None for no limit, and then a weight may overflow.

    Returns:
        [B, T] weights without gradient.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `truncate` is not above 0.
    """
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT)
    return _truncated((logp_BT - old_logp_BT).detach().exp(), truncate)


def sequence_weights(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor, *, truncate: float | None = None) -> Tensor:
    """How much more probable each whole answer is than when it was sampled.

        w_b = min(product over selected t of pi(token_bt) / pi_old(token_bt), truncate)

    Without a cap, the exact correction: E_old[w f] = E_pi[f] for everything that an answer tells. Its variance grows
    exponentially with the length.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        mask_BT: [B, T] bool, the tokens of the answer.
        truncate: the largest weight; None for no limit, and then a weight may overflow.

    Returns:
        [B] weights without gradient; 1 for an answer without a token.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
        RecipeError: `truncate` is not above 0.
    """
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, mask_BT=mask_BT)
    return _truncated(masked_sum((logp_BT - old_logp_BT).detach(), mask_BT).exp(), truncate)


def _truncated(ratio: Tensor, truncate: float | None) -> Tensor:
    if truncate is None:
        return ratio
    if not truncate > 0:
        raise RecipeError(f"truncate must be above 0, or None for no limit; got {truncate}")
    return ratio.clamp(max=truncate)


def ratio_surrogate(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, *, truncate: float | None = None
) -> Tensor:
    """The importance-weighted advantage, negated, per token: what a trust region is drawn around.

        loss_bt = -min(pi(token_bt) / pi_old(token_bt), truncate) advantage_bt

    Schulman et al. 2015 (TRPO), eq. 14, https://arxiv.org/abs/1502.05477, without a cap. At ratio 1 its gradient is
    that of `reinforce_loss`. Nothing in it keeps the policy near the old one.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        advantage_BT: [B, T] advantages, in units of reward.
        truncate: the largest ratio; None for no limit.

    Returns:
        [B, T] losses. Gradient flows into `logp_BT` only, and nowhere that the ratio is truncated.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `truncate` is not above 0.
    """
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, advantage_BT=advantage_BT)
    return -_truncated((logp_BT - old_logp_BT.detach()).exp(), truncate) * advantage_BT.detach()


def clipped_surrogate(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, *, low: float = 0.2, high: float = 0.2
) -> Surrogate:
    """PPO's clipped objective, negated, per token.

        ratio_bt = pi(token_bt) / pi_old(token_bt)
        loss_bt  = -min(ratio_bt advantage_bt, clip(ratio_bt, 1 - low, 1 + high) advantage_bt)

    Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347. `high` above `low` is the "clip-higher" of DAPO,
    https://arxiv.org/abs/2503.14476. At ratio 1 its gradient is that of `reinforce_loss`. The ratio is not clamped:
    one that overflows where no clip holds gives an infinite loss, which the caller must refuse.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        advantage_BT: [B, T] advantages.
        low: how far below 1 the ratio may fall before a negative advantage stops pushing it down.
        high: how far above 1 it may rise before a positive advantage stops pushing it up.

    Returns:
        Loss, ratio and where the clip held. Gradient flows into `logp_BT` only, and nowhere that the clip holds.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, advantage_BT=advantage_BT)
    return Surrogate(*_clipped(logp_BT - old_logp_BT.detach(), advantage_BT.detach(), low, high))


def dual_clipped_surrogate(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
    bound: float = 3.0,
) -> Surrogate:
    """PPO's clipped objective with a floor under it, negated, per token.

        objective_bt = min(ratio_bt advantage_bt, clip(ratio_bt, 1 - low, 1 + high) advantage_bt)
        loss_bt      = -max(objective_bt, bound advantage_bt)        where the advantage is negative
        loss_bt      = -objective_bt                                 elsewhere

    Ye et al. 2020, https://arxiv.org/abs/1912.09729. PPO's clip leaves one side open: a token that has become much more
    probable and turns out bad has a loss without limit. Where the ratio is above `bound` it now stands still.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        advantage_BT: [B, T] advantages.
        low: how far below 1 the ratio may fall before a negative advantage stops pushing it down.
        high: how far above 1 it may rise before a positive advantage stops pushing it up.
        bound: the ratio above which a negative advantage stops pushing it down too; above 1 + high.

    Returns:
        Loss, ratio and where one of the two clips held. Gradient flows into `logp_BT` only, and nowhere that they hold.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `bound` is not above 1 + high.
    """
    if not bound > 1 + high:
        raise RecipeError(f"bound must be above 1 + high = {1 + high}, got {bound}")
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, advantage_BT=advantage_BT)
    return Surrogate(*_clipped(logp_BT - old_logp_BT.detach(), advantage_BT.detach(), low, high, bound))


def _clipped(
    log_ratio: Tensor, advantage: Tensor, low: float, high: float, bound: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, ratio and where a clip holds; there, and without an advantage, a ratio that overflows leaves no NaN."""
    ratio = log_ratio.detach().exp()
    still = ratio.clamp(1 - low, 1 + high)
    beyond = (advantage < 0) & (ratio > bound)
    held = (still * advantage < ratio * advantage) | beyond
    free = log_ratio.masked_fill(held | (advantage == 0), 0.0).exp()
    return -torch.where(held, still.masked_fill(beyond, bound), free) * advantage, ratio, held


def sequence_ratio(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor, *, rooted: bool = True) -> Tensor:
    """How much more probable an answer is than when it was sampled, per token of it or as a whole.

        s_b = (pi(answer_b) / pi_old(answer_b))^(1 / |answer_b|)        without the root where not `rooted`

    Zheng et al. 2025 (GSPO), eq. 7, https://arxiv.org/abs/2507.18071. The root makes answers of all lengths comparable;
    it is the geometric mean of the tokens' ratios, and no importance weight. Without it, it is one.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        mask_BT: [B, T] bool, the tokens of the answer.
        rooted: take the root, as GSPO does.

    Returns:
        [B] ratios. Gradient flows into `logp_BT` only.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean, or a row of it selects nothing.
    """
    return _answers_log_ratio(logp_BT, old_logp_BT, mask_BT, rooted=rooted).exp()


def _answers_log_ratio(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor, *, rooted: bool) -> Tensor:
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, mask_BT=mask_BT)
    total_B = masked_sum(logp_BT - old_logp_BT.detach(), mask_BT)
    check_rows("mask_BT", mask_BT)
    return total_B / mask_BT.sum(-1) if rooted else total_B


def sequence_clipped_surrogate(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_B: Tensor,
    mask_BT: Tensor,
    *,
    low: float = 3e-4,
    high: float = 4e-4,
    rooted: bool = True,
) -> SequenceSurrogate:
    """The clipped objective with one ratio for each answer, negated, per answer.

        loss_b = -min(s_b advantage_b, clip(s_b, 1 - low, 1 + high) advantage_b)        s_b = `sequence_ratio`

    Zheng et al. 2025 (GSPO), eq. 5, https://arxiv.org/abs/2507.18071, with the clips of their section 5.1. A mean moves
    far less than a token does, so the clips are much tighter than PPO's. At ratio 1 the gradient is that of
    `reinforce_loss` averaged over each answer's tokens (`sequence_portion`), or summed over them where not `rooted`:
    that is PPO's objective with whole answers for actions, as TRL's RLOO has it.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        advantage_B: [B] one advantage per answer.
        mask_BT: [B, T] bool, the tokens of the answer.
        low: how far below 1 the ratio may fall before a negative advantage stops pushing it down.
        high: how far above 1 it may rise before a positive advantage stops pushing it up.
        rooted: take the root of the ratio, as GSPO does.

    Returns:
        Loss, ratio and where the clip held. Gradient flows into `logp_BT` only, and nowhere that the clip holds.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean, or a row of it selects nothing.
    """
    log_ratio_B = _answers_log_ratio(logp_BT, old_logp_BT, mask_BT, rooted=rooted)
    if advantage_B.shape != log_ratio_B.shape:
        raise ShapeError(
            f"advantage_B {tuple(advantage_B.shape)} must hold one for each row of mask_BT {tuple(mask_BT.shape)}"
        )
    return SequenceSurrogate(*_clipped(log_ratio_B, advantage_B.detach(), low, high))


def entropy(logp_BTV: Tensor) -> Tensor:
    """The entropy of the next token, in nats, per position; add `-weight * entropy` to a loss to reward it.

        H_bt = -sum over v of p_btv log p_btv

    Args:
        logp_BTV: [..., V] log-softmax of the logits; -inf is a token that cannot come.

    Returns:
        [...] entropies, between 0 and log V. Gradient flows into `logp_BTV`.
    """
    finite_BTV = logp_BTV.masked_fill(logp_BTV == -torch.inf, 0.0)  # 0 log 0 = 0
    return -(logp_BTV.exp() * finite_BTV).sum(-1)
