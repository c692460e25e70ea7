"""What tokens are worth to a language model: log-probabilities and the negative log-likelihood.

N positions   V vocabulary
"""

from __future__ import annotations

from torch import Tensor

from plaudit.errors import RecipeError, ShapeError

__all__ = ["negative_log_likelihood", "token_log_probs"]


def token_log_probs(logits_NV: Tensor, token_N: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The log-probability of each token, in nats, in float32 or better.

        logp_n = log softmax(logits_n / temperature)[token_n]

    The logits of a row must be those that *predict* its token: the model's output one position earlier. The
    temperature must be the one the tokens were sampled at, or the numbers belong to another policy. A half-precision
    log-softmax alone moves probability ratios by several percent, so the logits are lifted to float32 first.

    Args:
        logits_NV: [..., V] logits; any floating type.
        token_N: [...] token ids.
        temperature: above 0.

    Returns:
        [...] log-probabilities, float32 (float64 for float64 logits). Gradient flows into `logits_NV`.

    Raises:
        ShapeError: the tokens' shape is not that of the logits without V.
        RecipeError: the temperature is not above 0.
    """
    if logits_NV.shape[:-1] != token_N.shape:
        raise ShapeError(
            f"token_N {tuple(token_N.shape)} must have one id for each row of logits_NV {tuple(logits_NV.shape)}"
        )
    if not temperature > 0:
        raise RecipeError(f"temperature must be above 0, got {temperature}")
    lifted_NV = logits_NV if logits_NV.itemsize >= 4 else logits_NV.float()
    return (lifted_NV / temperature).log_softmax(-1).gather(-1, token_N.unsqueeze(-1)).squeeze(-1)


def negative_log_likelihood(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    """How surprised a language model is by each token, in nats: what raw text and demonstrations minimise.

        loss_n = -log softmax(logits_n)[token_n]

    Takes, returns and raises what `token_log_probs` does; exp of its token mean is the perplexity.
    """
    return -token_log_probs(logits_NV, token_N)
