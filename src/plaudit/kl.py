"""How far a policy has moved from its reference, and what that costs.

    B sequences   T tokens   V vocabulary

Three estimates of KL(pi || ref) in nats from one sampled token, with d = log pi - log ref
(John Schulman, http://joschu.net/blog/kl-approx.html):

| | formula | as a number | as a loss, summed over an answer: expected gradient |
|---|---|---|---|
| `k1` | d | unbiased, may be negative | exactly 0: never put it in a loss |
| `k2` | d^2 / 2 | biased, >= 0 | that of KL(pi, ref) |
| `k3` | exp(-d) - 1 + d | unbiased, >= 0 | that of KL(ref, pi), the other direction |

The last column is exact for whole answers (d summed over the answer's tokens first); summed token by token, k2 and k3
forget what a token does to later ones. In the *reward* each nat is a number and k1 is the right one; terms of a loss
are in `losses.divergence`. `plaudit.testing` shows every line of the table by enumeration.

A controller holds beta, the cost of a nat in units of reward, and is a plain frozen value: `update` gives the next
one, `state()` what a checkpoint must keep, `restored(state)` the controller as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from plaudit.errors import NumberError, RecipeError
from plaudit.shapes import check_same_shape

__all__ = ["AdaptiveKl", "AnnealedKl", "FixedKl", "KlController", "full_kl", "k1", "k2", "k3"]


def k1(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """The log-ratio: an unbiased estimate of KL(pi || ref) per sampled token, in nats.

        k1_bt = log pi(token_bt) - log ref(token_bt)

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy that sampled them.
        ref_logp_BT: [B, T] the same under the reference.

    Returns:
        [B, T] estimates; one may be negative, their mean must not stay so (then sampling and scoring disagree).
        Gradient flows into `logp_BT` only, and its expectation is 0: use it in the reward, not in a loss.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, ref_logp_BT=ref_logp_BT)
    return logp_BT - ref_logp_BT.detach()


def k2(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """Half the squared log-ratio, in nats: biased, never negative.

        k2_bt = (log pi(token_bt) - log ref(token_bt))^2 / 2

    Takes, returns and raises what `k1` does. In a loss over whole answers its expected gradient is that of
    KL(pi || ref).
    """
    return k1(logp_BT, ref_logp_BT).square() / 2


def k3(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """An unbiased estimate of KL(pi || ref) that is never negative, in nats.

        k3_bt = exp(-d) - 1 + d        d = log pi(token_bt) - log ref(token_bt)

    Takes, returns and raises what `k1` does. In a loss over whole answers its expected gradient is that of
    KL(ref || pi), the other direction. Good for showing, because it varies less than `k1` where pi is near ref.
    """
    d_BT = k1(logp_BT, ref_logp_BT)
    return torch.expm1(-d_BT) + d_BT


def full_kl(logp_BTV: Tensor, ref_logp_BTV: Tensor) -> Tensor:
    """KL(pi || ref) over the whole vocabulary, in nats, per position: no sampling noise.

        KL_bt = sum over v of pi_btv (log pi_btv - log ref_btv)

    Args:
        logp_BTV: [..., V] log-softmax of the policy's logits; -inf is a token that cannot come and adds 0.
        ref_logp_BTV: [..., V] the same for the reference.

    Returns:
        [...] divergences, >= 0, infinite where the policy gives probability to what the reference cannot say.
        Gradient flows into `logp_BTV` only.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BTV=logp_BTV, ref_logp_BTV=ref_logp_BTV)
    d_BTV = (logp_BTV - ref_logp_BTV.detach()).masked_fill(logp_BTV == -torch.inf, 0.0)
    return (logp_BTV.exp() * d_BTV).sum(-1)


class KlController(Protocol):
    """Something that says what a nat costs, now and after the next round."""

    @property
    def beta(self) -> float:
        """Cost of one nat, in units of reward."""
        ...

    def update(self, kl: float, answers: int) -> Self:
        """The controller for the next round.

        Args:
            kl: mean over the round's answers of the KL summed over an answer's tokens, in nats.
            answers: how many answers that is the mean of.
        """
        ...

    def state(self) -> dict[str, float]:
        """What changes from round to round, as JSON values."""
        ...

    def restored(self, state: Mapping[str, float]) -> Self:
        """This controller with the `state()` of another moment."""
        ...


@dataclass(frozen=True, slots=True)
class FixedKl:
    """A cost that stays."""

    beta: float
    """Cost of one nat, in units of reward; 0 or more."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta < math.inf:
            raise RecipeError(f"beta must be 0 or more, got {self.beta}")

    def update(self, kl: float, answers: int) -> Self:
        """Itself."""
        return self

    def state(self) -> dict[str, float]:
        """The cost."""
        return {"beta": self.beta}

    def restored(self, state: Mapping[str, float]) -> Self:
        """This controller at the cost that `state` holds."""
        return replace(self, beta=state["beta"])


@dataclass(frozen=True, slots=True)
class AdaptiveKl:
    """A cost that rises while answers stray too far and falls while they stay too near.

        error = clip(kl / target - 1, -0.2, 0.2)
        beta <- beta (1 + error answers / horizon)

    Ziegler et al. 2019, section 2.2, https://arxiv.org/abs/1909.08593. Update once per round of sampling, with the KL
    *summed* over each answer: a mean per token would make long answers free.
    """

    beta: float
    """Cost of one nat, in units of reward; above 0, since a product never leaves 0."""
    target: float
    """Nats per answer to steer to."""
    horizon: float
    """Answers over which beta reacts: at the largest error it changes by a factor e in 5 horizons."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be above 0, got {value}"
            for name, value in (("beta", self.beta), ("target", self.target), ("horizon", self.horizon))
            if not 0 < value < math.inf
        ]
        if problems:
            raise RecipeError("; ".join(problems))

    def update(self, kl: float, answers: int) -> Self:
        """The controller after a round.

        Raises:
            NumberError: `kl` is not finite.
            RecipeError: a round has 5 horizons of answers or more, so that one step could make beta 0 or negative.
        """
        if not math.isfinite(kl):
            raise NumberError(f"the mean KL of the round is {kl} nats: beta cannot follow it")
        if answers >= 5 * self.horizon:
            raise RecipeError(f"horizon {self.horizon} must be more than a fifth of the {answers} answers of a round")
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return replace(self, beta=self.beta * (1 + error * answers / self.horizon))

    def state(self) -> dict[str, float]:
        """The cost."""
        return {"beta": self.beta}

    def restored(self, state: Mapping[str, float]) -> Self:
        """This controller at the cost that `state` holds."""
        return replace(self, beta=state["beta"])


@dataclass(frozen=True, slots=True)
class AnnealedKl:
    """A cost that falls geometrically to its final value and stays there.

        beta_s = start (end / start)^min(s / rounds, 1)

    Coming down from a large beta, a policy follows the optimum from the reference outward, and gets stuck less often
    than at a small constant beta from the beginning.
    """

    start: float
    """Cost of one nat in the first round, in units of reward; above 0."""
    end: float
    """Cost from round `rounds` on; above 0."""
    rounds: int
    """Rounds over which it changes."""
    step: int = 0
    """Rounds done."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be above 0, got {value}"
            for name, value in (("start", self.start), ("end", self.end), ("rounds", self.rounds))
            if not 0 < value < math.inf
        ]
        if problems:
            raise RecipeError("; ".join(problems))

    @property
    def beta(self) -> float:
        """Cost of one nat in this round."""
        if self.step >= self.rounds:
            return self.end
        return self.start * math.pow(self.end / self.start, self.step / self.rounds)

    def update(self, kl: float, answers: int) -> Self:
        """The controller after a round, whatever its KL was."""
        return replace(self, step=self.step + 1)

    def state(self) -> dict[str, float]:
        """The rounds done."""
        return {"step": self.step}

    def restored(self, state: Mapping[str, float]) -> Self:
        """This controller after the rounds that `state` tells."""
        return replace(self, step=int(state["step"]))
