"""Losses: pure functions on tensors, one value per element, no reduction inside.

| module | holds |
|---|---|
| `language` | log-probabilities of tokens, negative log-likelihood |
| `pairwise` | Bradley-Terry over pairs and over K ranked answers, with ties (Davidson), margins, doubt |
| `listwise` | the choice of the best of K, Plackett-Luce over rankings |
| `pointwise` | thumbs, ratings, grades; the centring penalty |
| `policy` | REINFORCE, importance weights, the surrogates of TRPO, PPO (also with two clips) and GSPO, entropy |
| `divergence` | the KL from the reference as a term of a loss, per token or per answer |
| `preference` | DPO, IPO, KTO: a policy straight from comparisons or thumbs |
| `soft` | discrete soft actor-critic over the vocabulary: values, targets, losses |
| `trust_region` | the natural gradient: conjugate gradients, step size, line search |
| `value` | a critic's squared error, with or without a clip; explained variance |
| `reduction` | masked sums with their denominators |
"""

from __future__ import annotations

from plaudit.losses.divergence import KlEstimator, sequence_full_kl_loss, sequence_kl_loss, token_kl_loss
from plaudit.losses.language import negative_log_likelihood, token_log_probs
from plaudit.losses.listwise import choice_loss, plackett_luce_loss
from plaudit.losses.pairwise import (
    PairIndex,
    bradley_terry_loss,
    davidson_loss,
    pairs_of_ranks,
    pairwise_ranking_loss,
    tie_loss,
)
from plaudit.losses.pointwise import centring_penalty, cuts_of, ordinal_loss, rating_loss, thumb_loss
from plaudit.losses.policy import (
    SequenceSurrogate,
    Surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    entropy,
    ratio_surrogate,
    reinforce_loss,
    sequence_clipped_surrogate,
    sequence_ratio,
    sequence_weights,
    token_weights,
    weighted_reinforce_loss,
)
from plaudit.losses.preference import dpo_loss, implicit_reward, ipo_loss, kto_loss, kto_reference
from plaudit.losses.reduction import (
    Portion,
    constant_portion,
    masked_sum,
    mean_of,
    sequence_portion,
    token_count,
    token_portion,
)
from plaudit.losses.soft import q_loss, q_of, soft_policy, soft_policy_loss, soft_target, soft_value, twin_minimum
from plaudit.losses.trust_region import LineSearch, Measured, conjugate_gradient, line_search, step_size
from plaudit.losses.value import ClippedValue, clipped_value_loss, explained_variance, value_loss

__all__ = [
    "ClippedValue",
    "KlEstimator",
    "LineSearch",
    "Measured",
    "PairIndex",
    "Portion",
    "SequenceSurrogate",
    "Surrogate",
    "bradley_terry_loss",
    "centring_penalty",
    "choice_loss",
    "clipped_surrogate",
    "clipped_value_loss",
    "conjugate_gradient",
    "constant_portion",
    "cuts_of",
    "davidson_loss",
    "dpo_loss",
    "dual_clipped_surrogate",
    "entropy",
    "explained_variance",
    "implicit_reward",
    "ipo_loss",
    "kto_loss",
    "kto_reference",
    "line_search",
    "masked_sum",
    "mean_of",
    "negative_log_likelihood",
    "ordinal_loss",
    "pairs_of_ranks",
    "pairwise_ranking_loss",
    "plackett_luce_loss",
    "q_loss",
    "q_of",
    "rating_loss",
    "ratio_surrogate",
    "reinforce_loss",
    "sequence_clipped_surrogate",
    "sequence_full_kl_loss",
    "sequence_kl_loss",
    "sequence_portion",
    "sequence_ratio",
    "sequence_weights",
    "soft_policy",
    "soft_policy_loss",
    "soft_target",
    "soft_value",
    "step_size",
    "thumb_loss",
    "tie_loss",
    "token_count",
    "token_kl_loss",
    "token_log_probs",
    "token_portion",
    "token_weights",
    "twin_minimum",
    "value_loss",
    "weighted_reinforce_loss",
]
