"""The natural gradient and how far to go along it: conjugate gradients, step size, line search.

    D parameters, as one vector

What TRPO is made of (Schulman et al. 2015, appendix C, https://arxiv.org/abs/1502.05477): the step solves

    maximise g . s   subject to   s . F s / 2 <= bound        s = x sqrt(2 bound / (x . F x)),  x = F^-1 g

where g is the gradient of the surrogate and F the Fisher matrix, the curvature of the KL. F is never built: whoever
calls gives a function that multiplies a vector by it. Nothing here knows of a model; both loops take callables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.errors import NumberError, RecipeError
from plaudit.shapes import check_same_shape

__all__ = ["LineSearch", "Measured", "conjugate_gradient", "line_search", "step_size"]


class Measured(NamedTuple):
    """What a batch says about a policy that has moved."""

    surrogate: float
    """Importance-weighted advantage, in units of reward; larger is better."""
    kl: float
    """Mean KL(old, new) over the prefixes of the batch, in nats."""


class LineSearch(NamedTuple):
    """How far a line search went."""

    fraction: float
    """Share of the full step that was accepted; 0 if none was, and then the old parameters must be put back."""
    measured: Measured | None
    """What was measured there; None if no fraction was accepted."""
    tries: int
    """Fractions measured."""


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b_D: Tensor, *, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = b for a symmetric positive definite matrix that is known by its products only.

    Hestenes and Stiefel 1952, https://doi.org/10.6028/jres.049.044. Exact after as many iterations as A has different
    eigenvalues, up to rounding; a few give most of x. Where rounding, or A, makes the curvature along a later direction
    negative, x is what was found before: Steihaug 1983, https://doi.org/10.1137/0720042, without the step to the edge.

    Args:
        product: from a vector [D] to A times it, [D]; called once an iteration.
        b_D: [D].
        iterations: at most.
        tolerance: stop when the residual |b - A x| is this share of |b|.

    Returns:
        [D] x, without gradient; 0 for b = 0.

    Raises:
        ShapeError: a product has another shape than `b_D`.
        NumberError: `b_D` or a product is not finite, or A is not positive definite along `b_D`.
    """
    b_D = b_D.detach()
    x_D, rest_D, direction_D = torch.zeros_like(b_D), b_D.clone(), b_D.clone()
    square = start = float(b_D @ b_D)
    if not math.isfinite(start):
        raise NumberError(f"the right-hand side has the squared norm {start}: there is nothing to solve for")
    for _ in range(iterations):
        if square <= tolerance**2 * start:
            break
        product_D = product(direction_D).detach()
        check_same_shape(b_D=b_D, product_D=product_D)
        curvature = float(direction_D @ product_D)
        if -math.inf < curvature <= 0 and bool(x_D.any()):
            break
        if not 0 < curvature < math.inf:
            raise NumberError(
                f"the curvature along a direction of squared norm {float(direction_D @ direction_D):.3g} is "
                f"{curvature:.3g}, and must be above 0: add damping, a multiple of the vector, to the product"
            )
        step = square / curvature
        x_D += step * direction_D
        rest_D -= step * product_D
        square, before = float(rest_D @ rest_D), square
        direction_D = rest_D + square / before * direction_D
    return x_D


def step_size(x_D: Tensor, product_x_D: Tensor, *, bound: float) -> float:
    """By what to multiply a direction so that its quadratic estimate of the KL is exactly the bound.

        size = sqrt(2 bound / (x . F x))

    Args:
        x_D: [D] the direction, such as F^-1 g.
        product_x_D: [D] F times it.
        bound: KL allowed, in nats.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: the bound is not above 0.
        NumberError: x . F x is not above 0 or not finite.
    """
    check_same_shape(x_D=x_D, product_x_D=product_x_D)
    if not bound > 0:
        raise RecipeError(f"bound must be above 0 nats, got {bound}")
    curvature = float(x_D.detach() @ product_x_D.detach())
    if not 0 < curvature < math.inf:
        raise NumberError(f"the direction has curvature {curvature:.3g}, which must be above 0: there is no step size")
    return math.sqrt(2 * bound / curvature)


def line_search(
    measure: Callable[[float], Measured], *, start: float, bound: float, shrink: float = 0.8, tries: int = 10
) -> LineSearch:
    """The largest of a row of shrinking steps after which the batch is no worse and the policy not too far away.

        fractions 1, shrink, shrink^2, ...        accept the first with kl <= bound and surrogate >= start

    A quadratic is only an estimate of the KL, and a linear function of the surrogate: both are measured here on the
    policy that has really moved. A measurement that is not finite is not accepted.

    Args:
        measure: moves the policy to old + fraction x full step, and says what the batch thinks of it. It is left there:
            after the search the policy stands at the last fraction tried.
        start: the surrogate of the old policy.
        bound: KL allowed, in nats.
        shrink: each fraction over the one before, in (0, 1).
        tries: fractions to try before giving up.

    Raises:
        RecipeError: `bound` or `tries` is not above 0, or `shrink` not in (0, 1).
    """
    if not bound > 0 or not 0 < shrink < 1 or tries < 1:
        raise RecipeError(f"a line search needs bound > 0, 0 < shrink < 1, tries >= 1; got {bound}, {shrink}, {tries}")
    for done in range(tries):
        found = measure(shrink**done)
        if math.isfinite(found.surrogate) and found.surrogate >= start and found.kl <= bound:
            return LineSearch(shrink**done, found, done + 1)
    return LineSearch(0.0, None, tries)
