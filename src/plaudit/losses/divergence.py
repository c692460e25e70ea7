"""The KL divergence from the reference as a term of a loss.

    B sequences   T tokens   V vocabulary

A term in a loss acts through its *gradient*, and a good estimate of a number can have the gradient of something else.
What each gives on average, over answers that the policy itself sampled (shown by enumeration with `plaudit.testing`):

| estimator | `token_kl_loss`, summed over an answer | `sequence_kl_loss` |
|---|---|---|
| `k1` | nothing, so it is refused | nothing, so it is refused |
| `k2` | grad of KL(pi, ref) after each prefix, the visits held fixed | grad of KL(pi, ref) |
| `k3` | grad of KL(ref, pi) after each prefix, the visits held fixed | grad of KL(ref, pi), the other direction |
| `ratio_k3` | as `k2` | grad of KL(pi, ref), and for answers of any older policy too |
| whole vocabulary | as `k2`, without sampling noise: `kl.full_kl` | grad of KL(pi, ref): `sequence_full_kl_loss` |

"The visits held fixed" means that a token does not pay for the KL of the tokens that it leads to: a different
objective, cheaper in variance. KL in the *reward* (`advantages.token_rewards` with `kl.k1`) pays for all of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plaudit.advantages import reward_to_go
from plaudit.errors import RecipeError, ShapeError
from plaudit.kl import full_kl, k2, k3
from plaudit.losses.reduction import masked_sum
from plaudit.shapes import check_same_shape

__all__ = ["KlEstimator", "sequence_full_kl_loss", "sequence_kl_loss", "token_kl_loss"]

KlEstimator = Literal["k2", "k3", "ratio_k3"]
"""What may stand in a loss."""


def token_kl_loss(
    logp_BT: Tensor, ref_logp_BT: Tensor, *, estimator: KlEstimator, old_logp_BT: Tensor | None = None
) -> Tensor:
    """The cost of leaving the reference, per token, in nats.

        k2: d^2 / 2      k3: exp(-d) - 1 + d      ratio_k3: rho (exp(-d) - 1 + d)      d = log pi - log ref

    k3 is GRPO's, Shao et al. 2024, eq. 4, https://arxiv.org/abs/2402.03300. `ratio_k3` is DeepSeek-V3.2's, 2025,
    eq. 7, https://arxiv.org/abs/2512.02556: rho = pi / pi_old of the token, and gradient flows through it.
    E_old[rho k3] is KL(pi, ref) after the prefix itself, whatever pi_old was, so its gradient is the gradient.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        ref_logp_BT: [B, T] the same under the reference.
        estimator: see the table above.
        old_logp_BT: [B, T] the same under the policy that sampled them, for `ratio_k3`; `logp_BT` when left out.

    Returns:
        [B, T] losses, >= 0. Gradient flows into `logp_BT` only.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: the estimator is k1, whose expected gradient is 0, or there is none of that name.
    """
    return _estimate(logp_BT, ref_logp_BT, estimator, old_logp_BT)


def sequence_kl_loss(
    logp_BT: Tensor,
    ref_logp_BT: Tensor,
    mask_BT: Tensor,
    *,
    estimator: KlEstimator,
    old_logp_BT: Tensor | None = None,
) -> Tensor:
    """The cost of leaving the reference, per answer, in nats.

    As `token_kl_loss`, with d and log rho summed over the answer's tokens first.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        ref_logp_BT: [B, T] the same under the reference.
        mask_BT: [B, T] bool, the tokens of the answer.
        estimator: see the table above.
        old_logp_BT: [B, T] the same under the policy that sampled them, for `ratio_k3`; `logp_BT` when left out.

    Returns:
        [B] losses, >= 0. Gradient flows into `logp_BT` only. k3 and `ratio_k3` hold a ratio of whole answers, which
        overflows where pi is far from ref.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
        RecipeError: the estimator is k1, whose expected gradient is 0, or there is none of that name.
    """
    check_same_shape(logp_BT=logp_BT, ref_logp_BT=ref_logp_BT, mask_BT=mask_BT)
    old_B = None if old_logp_BT is None else masked_sum(old_logp_BT, mask_BT)
    return _estimate(masked_sum(logp_BT, mask_BT), masked_sum(ref_logp_BT, mask_BT), estimator, old_B)


def sequence_full_kl_loss(logp_BT: Tensor, logp_BTV: Tensor, ref_logp_BTV: Tensor, mask_BT: Tensor) -> Tensor:
    """A loss per answer whose expected gradient is that of KL(pi, ref), from the whole vocabulary at each token.

        loss_b = sum over t of KL_bt + log pi(token_bt) [sum over u > t of KL_bu]        nothing flows through [ ]

    KL_bt is `kl.full_kl` after the prefix. Its first term alone forgets that a token leads to others; the second is
    REINFORCE for that, with the KL to come as its cost. The value of the loss means nothing.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy that sampled them, in nats.
        logp_BTV: [B, T, V] of every token that could have come.
        ref_logp_BTV: [B, T, V] the same under the reference.
        mask_BT: [B, T] bool, the tokens of the answer.

    Returns:
        [B] losses. Gradient flows into `logp_BT` and `logp_BTV`.

    Raises:
        ShapeError: the shapes do not fit, or the mask is not boolean.
    """
    check_same_shape(logp_BT=logp_BT, mask_BT=mask_BT)
    if logp_BTV.shape[:-1] != mask_BT.shape:
        raise ShapeError(f"logp_BTV {tuple(logp_BTV.shape)} must have one row for each entry of {tuple(mask_BT.shape)}")
    kl_BT = full_kl(logp_BTV, ref_logp_BTV)
    later_BT = reward_to_go(kl_BT, mask_BT) - kl_BT.detach()
    return masked_sum(kl_BT + logp_BT * later_BT, mask_BT)


def _estimate(logp: Tensor, ref_logp: Tensor, estimator: str, old_logp: Tensor | None) -> Tensor:
    if estimator == "k2":
        return k2(logp, ref_logp)
    if estimator == "k3":
        return k3(logp, ref_logp)
    if estimator == "ratio_k3":
        old_logp = logp if old_logp is None else old_logp
        check_same_shape(logp=logp, old_logp=old_logp)
        return torch.exp(logp - old_logp.detach()) * k3(logp, ref_logp)
    if estimator == "k1":
        raise RecipeError(
            "k1 cannot stand in a loss: its expected gradient is 0, so it adds noise and holds nothing; "
            "put k1 in the reward, or use k2, k3 or ratio_k3"
        )
    raise RecipeError(f"no KL estimator for a loss is called {estimator!r}: there are k2, k3 and ratio_k3")
