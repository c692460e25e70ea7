"""What discrete soft actor-critic needs at the level of tokens: values, targets and losses over the whole vocabulary.

    B sequences   T tokens   V vocabulary

The state is the prefix, the action the next token, and Q_btv what is to be earned if token v comes next, the cost of KL
at later tokens taken off (that of token v itself is not in it). alpha is the cost of a nat, the beta of the objective
E[r] - beta KL(pi, ref). Against a reference, all is as in soft actor-critic with the policy measured from `ref` where
that measures it from the uniform distribution: leave `ref_logp_BTV` out for plain entropy.

    V(s)     = alpha log sum over v of ref(v|s) exp(Q(s, v) / alpha)
    pi*(v|s) = ref(v|s) exp((Q(s, v) - V(s)) / alpha)
    Q(s, v)  = r(s, v) + discount V(s v)        V is 0 after the last token

With exact Q, V of the empty prefix is J* = alpha log Z, the optimum of the objective (`plaudit.testing` shows it).
Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905; Christodoulou 2019 (discrete actions),
https://arxiv.org/abs/1910.07207; path consistency against a reference: Nachum et al. 2017,
https://arxiv.org/abs/1702.08892.
"""

from __future__ import annotations

from torch import Tensor

from plaudit.advantages import next_selected, reward_to_go
from plaudit.errors import RecipeError, ShapeError
from plaudit.kl import full_kl
from plaudit.losses.value import value_loss
from plaudit.shapes import check_mask, check_same_shape

__all__ = ["q_loss", "q_of", "soft_policy", "soft_policy_loss", "soft_target", "soft_value", "twin_minimum"]


def soft_value(q_BTV: Tensor, ref_logp_BTV: Tensor | None = None, *, alpha: float) -> Tensor:
    """What is to be earned from a prefix on by the best policy for these Q, the cost of KL taken off.

        V_bt = alpha log sum over v of ref_btv exp(q_btv / alpha)

    It lies between the mean of Q under the reference (alpha large) and the largest Q (alpha small), and equals
    E_pi[Q] - alpha KL(pi, ref) at the policy of `soft_policy`. Without a reference, E_pi[Q] + alpha H(pi).

    Args:
        q_BTV: [..., V] values of next tokens, in units of reward.
        ref_logp_BTV: [..., V] log-probabilities of the reference; -inf is a token that cannot come. None: 0 for every
            token, which makes KL minus the entropy.
        alpha: cost of a nat, in units of reward; above 0.

    Returns:
        [...] values. Gradient flows into `q_BTV` only, as the probabilities of `soft_policy`.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `alpha` is not above 0.
    """
    return alpha * _energy(q_BTV, ref_logp_BTV, alpha).logsumexp(-1)


def soft_policy(q_BTV: Tensor, ref_logp_BTV: Tensor | None = None, *, alpha: float) -> Tensor:
    """The best policy for these Q: what the policy is pulled to.

        log pi*_btv = log softmax over v of (q_btv / alpha + log ref_btv)

    Takes and raises what `soft_value` does.

    Returns:
        [..., V] log-probabilities. Gradient flows into `q_BTV` only.
    """
    return _energy(q_BTV, ref_logp_BTV, alpha).log_softmax(-1)


def _energy(q_BTV: Tensor, ref_logp_BTV: Tensor | None, alpha: float) -> Tensor:
    if not alpha > 0:
        raise RecipeError(f"alpha must be above 0, got {alpha}")
    if ref_logp_BTV is None:
        return q_BTV / alpha
    check_same_shape(q_BTV=q_BTV, ref_logp_BTV=ref_logp_BTV)
    return q_BTV / alpha + ref_logp_BTV.detach()


def twin_minimum(first_q_BTV: Tensor, second_q_BTV: Tensor) -> Tensor:
    """The more pessimistic of two critics, token by token: a maximum over guesses overestimates.

    Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477.

    Args:
        first_q_BTV: [..., V] values of one critic.
        second_q_BTV: [..., V] values of the other.

    Returns:
        [..., V]. Gradient flows into the smaller of the two.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(first_q_BTV=first_q_BTV, second_q_BTV=second_q_BTV)
    return first_q_BTV.minimum(second_q_BTV)


def soft_target(
    reward_BT: Tensor,
    value_BT: Tensor,
    q_BT: Tensor,
    mask_BT: Tensor,
    *,
    discount: float = 1.0,
    lambda_: float = 0.95,
) -> Tensor:
    """What Q of the token that came should have been, by what came after it.

        y_bt = r_bt + discount (V_b,t+1 + lambda (y_b,t+1 - Q_b,t+1))        V, y and Q are 0 after the last token

    lambda = 0 asks the next value alone, which brings the score of an answer one token nearer to its beginning in a
    step; lambda = 1 asks what the whole answer earned, less what the best policy for these Q pays for it in KL. Where
    Q is right, y = Q along any answer, whoever wrote it: Q - V = alpha log(pi*/ref), the consistency along paths of
    Nachum et al. 2017, https://arxiv.org/abs/1702.08892. Paths of all lengths are weighted as in GAE.

    Args:
        reward_BT: [B, T] rewards *without* a cost of KL, which the value holds: often only the score on the last token.
        value_BT: [B, T] `soft_value` of the prefix *before* each token, from slow copies of the critics.
        q_BT: [B, T] their Q of the token that came.
        mask_BT: [B, T] bool, the tokens that the policy chose.
        discount: weight of what comes one selected token later (gamma).
        lambda_: trust in what the answer earned (1) against the value of the next prefix (0).

    Returns:
        [B, T] targets without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(reward_BT=reward_BT, value_BT=value_BT, q_BT=q_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    q_BT = q_BT.detach().masked_fill(~mask_BT, 0.0)
    delta_BT = reward_BT.detach() + discount * next_selected(value_BT.detach(), mask_BT) - q_BT
    return q_BT + reward_to_go(delta_BT, mask_BT, discount=discount * lambda_)


def q_of(q_BTV: Tensor, token_BT: Tensor) -> Tensor:
    """[B, T] the values of the tokens that came.

    Args:
        q_BTV: [B, T, V] values of next tokens.
        token_BT: [B, T] ids; a legal id on padding too.

    Raises:
        ShapeError: the shapes do not fit.
    """
    if q_BTV.shape[:-1] != token_BT.shape:
        raise ShapeError(
            f"token_BT {tuple(token_BT.shape)} must have one id for each row of q_BTV {tuple(q_BTV.shape)}"
        )
    return q_BTV.gather(-1, token_BT.unsqueeze(-1)).squeeze(-1)


def q_loss(q_BTV: Tensor, token_BT: Tensor, target_BT: Tensor) -> Tensor:
    """Half the squared error of a critic at the tokens that came, in reward squared.

        loss_bt = (q_bt,token_bt - y_bt)^2 / 2

    Args:
        q_BTV: [B, T, V] values of next tokens.
        token_BT: [B, T] ids of the tokens that came; a legal id on padding too.
        target_BT: [B, T] from `soft_target`; the same for both twins.

    Returns:
        [B, T] losses. Gradient flows into `q_BTV` only, at the tokens that came.

    Raises:
        ShapeError: the shapes do not fit.
    """
    return value_loss(q_of(q_BTV, token_BT), target_BT)


def soft_policy_loss(logp_BTV: Tensor, q_BTV: Tensor, ref_logp_BTV: Tensor | None = None, *, alpha: float) -> Tensor:
    """How far the policy is from the best one for these Q, over the whole vocabulary, in nats.

        loss_bt = KL(pi, pi*)        pi* = `soft_policy`
                = (V_bt - sum over v of pi_btv (q_btv - alpha log(pi_btv / ref_btv))) / alpha

    No token is sampled in it, so it has no noise of its own. Haarnoja et al. 2018, eq. 7, is alpha times this, up to
    what does not depend on the policy: here a step is as large whatever the scale of rewards and alpha.

    Args:
        logp_BTV: [..., V] log-softmax of the policy's logits.
        q_BTV: [..., V] values of next tokens, such as the `twin_minimum`.
        ref_logp_BTV: [..., V] log-probabilities of the reference; None for plain entropy.
        alpha: cost of a nat, in units of reward; above 0.

    Returns:
        [...] losses, >= 0. Gradient flows into `logp_BTV` only.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `alpha` is not above 0.
    """
    return full_kl(logp_BTV, soft_policy(q_BTV, ref_logp_BTV, alpha=alpha))
