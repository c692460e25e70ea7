"""Conjugate gradients, step size, line search."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import NumberError, RecipeError, ShapeError
from plaudit.losses import LineSearch, Measured, conjugate_gradient, line_search, step_size

quick = settings(deadline=None, max_examples=40, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive_definite(size: int, seed: int) -> Tensor:
    root_DD = normal(size, size, seed=seed)
    return root_DD @ root_DD.T + 0.5 * torch.eye(size, dtype=torch.float64)


def test_two_by_two_by_hand():
    # 4x + y = 1, x + 3y = 2: x = 1/11, y = 7/11. The first step is along b: |b|^2 / b.Ab = 5 / 20, so (1/4, 1/2)
    a_DD, b_D = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([1.0, 2.0]).double()
    torch.testing.assert_close(conjugate_gradient(a_DD.mv, b_D), torch.tensor([1 / 11, 7 / 11]).double())
    torch.testing.assert_close(
        conjugate_gradient(a_DD.mv, b_D, iterations=1), torch.tensor([0.25, 0.5], dtype=torch.float64)
    )
    assert b_D.tolist() == [1.0, 2.0]


@given(seed=st.integers(0, 999), size=st.integers(1, 8))
@quick
def test_it_solves_what_a_direct_solver_solves(seed, size):
    a_DD, b_D = positive_definite(size, seed), normal(size, seed=seed + 1)
    x_D = conjugate_gradient(a_DD.mv, b_D, iterations=4 * size, tolerance=1e-12)
    torch.testing.assert_close(x_D, torch.linalg.solve(a_DD, b_D), rtol=1e-7, atol=1e-9)


@given(seed=st.integers(0, 99), tolerance=st.floats(1e-8, 0.5))
@quick
def test_it_stops_when_it_is_near_enough(seed, tolerance):
    a_DD, b_D = positive_definite(8, seed), normal(8, seed=seed + 1)
    calls = []

    def product(x_D: Tensor) -> Tensor:
        calls.append(1)
        return a_DD.mv(x_D)

    x_D = conjugate_gradient(product, b_D, iterations=99, tolerance=tolerance)
    assert (b_D - a_DD.mv(x_D)).norm() <= 1.001 * tolerance * b_D.norm()
    before_D = conjugate_gradient(a_DD.mv, b_D, iterations=len(calls) - 1, tolerance=0.0)
    assert (b_D - a_DD.mv(before_D)).norm() > tolerance * b_D.norm()  # it did not do more than it had to


def test_it_needs_as_many_iterations_as_there_are_eigenvalues():
    a_DD = torch.diag(torch.tensor([2.0, 2.0, 2.0, 5.0, 5.0], dtype=torch.float64))
    x_D = conjugate_gradient(a_DD.mv, torch.ones(5, dtype=torch.float64), iterations=2)
    torch.testing.assert_close(x_D, torch.tensor([0.5, 0.5, 0.5, 0.2, 0.2], dtype=torch.float64))


def test_nothing_to_solve():
    assert conjugate_gradient(lambda x_D: x_D, torch.zeros(3)).tolist() == [0.0] * 3


def test_step_size_by_hand():
    # F = 2, 8 on the diagonal, x = (1, 1/2): x.Fx = 2 + 2
    x_D, product_D = torch.tensor([1.0, 0.5]), torch.tensor([2.0, 4.0])
    assert step_size(x_D, product_D, bound=0.02) == pytest.approx(0.1)


@given(seed=st.integers(0, 99), bound=st.floats(1e-4, 1))
@quick
def test_the_step_spends_the_bound_and_no_step_that_does_gains_more(seed, bound):
    f_DD, g_D, other_D = positive_definite(5, seed), normal(5, seed=seed + 1), normal(5, seed=seed + 2)
    x_D = conjugate_gradient(f_DD.mv, g_D, iterations=50, tolerance=1e-13)
    step_D = step_size(x_D, f_DD.mv(x_D), bound=bound) * x_D
    assert float(step_D @ f_DD.mv(step_D)) / 2 == pytest.approx(bound)
    other_D *= step_size(other_D, f_DD.mv(other_D), bound=bound)
    assert float(g_D @ step_D) >= abs(float(g_D @ other_D)) - 1e-9
    assert float(g_D @ step_D) == pytest.approx(math.sqrt(2 * bound * float(g_D @ torch.linalg.solve(f_DD, g_D))))


def measured_by(asked: list[float], surrogate, kl):
    def measure(fraction: float) -> Measured:
        asked.append(fraction)
        return Measured(surrogate(fraction), kl(fraction))

    return measure


def test_line_search_by_hand():
    # KL 0.08 f^2 within 0.02 from f = 1/2 on; the surrogate 1 + f - 3 f^2 is at least 1 from f = 1/3 on
    asked: list[float] = []
    measure = measured_by(asked, lambda f: 1 + f - 3 * f * f, lambda f: 0.08 * f * f)
    found = line_search(measure, start=1.0, bound=0.02, shrink=0.5)
    assert asked == [1.0, 0.5, 0.25]
    assert found == LineSearch(0.25, Measured(1.0625, 0.005), 3)


@pytest.mark.parametrize(
    ("surrogate", "kl", "fraction"),
    [
        (lambda f: 1.0, lambda f: 0.02, 1.0),  # neither better nor further than allowed
        (lambda f: 2.0, lambda f: 0.02 if f <= 0.125 else 0.03, 0.125),  # the KL decides
        (lambda f: 2.0 if f <= 0.125 else 0.9, lambda f: 0.0, 0.125),  # the surrogate decides
        (lambda f: 2.0 if f < 1 else math.nan, lambda f: 0.0, 0.5),  # not finite
        (lambda f: 2.0 if f < 1 else math.inf, lambda f: 0.0, 0.5),
        (lambda f: 2.0, lambda f: 0.0 if f < 1 else math.nan, 0.5),
    ],
)
def test_what_a_line_search_accepts(surrogate, kl, fraction):
    found = line_search(measured_by([], surrogate, kl), start=1.0, bound=0.02, shrink=0.5)
    assert found.fraction == fraction


def test_a_line_search_gives_up():
    asked: list[float] = []
    found = line_search(measured_by(asked, lambda f: 0.9, lambda f: 0.0), start=1.0, bound=0.02, shrink=0.8, tries=3)
    assert found == LineSearch(0.0, None, 3)
    assert asked == pytest.approx([1.0, 0.8, 0.64])


def test_negative_curvature_on_the_way_keeps_what_was_found():
    # diag(1, -1) along (1, 0.1) curves by 0.99, so one step of 1.01 / 0.99; the direction after it bends down
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    found = conjugate_gradient(lambda x_D: flip * x_D, torch.tensor([1.0, 0.1], dtype=torch.float64))
    torch.testing.assert_close(found, 1.01 / 0.99 * torch.tensor([1.0, 0.1], dtype=torch.float64))


def test_what_is_refused():
    one = torch.ones(2)
    with pytest.raises(NumberError, match=r"curvature along a direction of squared norm 2 is -2, .* add damping"):
        conjugate_gradient(lambda x_D: -x_D, one)
    with pytest.raises(NumberError, match="nan, and must be above 0"):
        conjugate_gradient(lambda x_D: x_D * math.nan, one)
    with pytest.raises(NumberError, match="squared norm inf"):
        conjugate_gradient(lambda x_D: x_D, torch.tensor([1.0, math.inf]))
    with pytest.raises(ShapeError, match=r"b_D \(2,\), product_D \(1,\)"):
        conjugate_gradient(lambda x_D: x_D[:1], one)
    with pytest.raises(ShapeError, match=r"x_D \(2,\), product_x_D \(1,\)"):
        step_size(one, one[:1], bound=0.1)
    with pytest.raises(RecipeError, match="bound must be above 0 nats, got 0"):
        step_size(one, one, bound=0)
    with pytest.raises(NumberError, match="curvature -2"):
        step_size(one, -one, bound=0.1)
    with pytest.raises(RecipeError, match=r"got 0.1, 1.0, 10"):
        line_search(lambda f: Measured(1.0, 0.0), start=1.0, bound=0.1, shrink=1.0)
