"""Thumbs, ratings, grades, and the centring penalty."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.losses import bradley_terry_loss, centring_penalty, cuts_of, ordinal_loss, rating_loss, thumb_loss

LOG3 = math.log(3)


def test_by_hand():
    # sigmoid(log 3) = 3/4: a thumb up there costs log(4/3), a thumb down log 4; at 0 either costs log 2
    got = thumb_loss(torch.tensor([LOG3, LOG3, 0.0]), torch.tensor([True, False, False]))
    torch.testing.assert_close(got, torch.tensor([4 / 3, 4.0, 2.0]).log())


def test_gradient_is_probability_less_thumb():
    score_B = torch.tensor([LOG3, LOG3], dtype=torch.float64, requires_grad=True)
    thumb_loss(score_B, torch.tensor([True, False])).sum().backward()
    torch.testing.assert_close(score_B.grad, torch.tensor([3 / 4 - 1, 3 / 4 - 0], dtype=torch.float64))


@given(st.floats(-20, 20))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_is_a_comparison_with_zero(score):
    score_B, zero_B = torch.tensor([score], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    up, down = (thumb_loss(score_B, torch.tensor([thumb])) for thumb in (True, False))
    torch.testing.assert_close(up, bradley_terry_loss(score_B, zero_B))
    torch.testing.assert_close(down, bradley_terry_loss(zero_B, score_B))


def test_a_doubted_thumb_by_hand():
    # 0.8 log(4/3) + 0.2 log 4
    got = thumb_loss(*(torch.tensor(x) for x in ([LOG3], [True])), sure_B=torch.tensor([0.8]))
    assert got.item() == pytest.approx(0.8 * math.log(4 / 3) + 0.2 * math.log(4), rel=1e-6)


def test_rating_by_hand():
    score_B = torch.tensor([1.0, -2.0], requires_grad=True)
    loss_B = rating_loss(score_B, torch.tensor([4.0, -2.0]))
    assert loss_B.tolist() == [4.5, 0.0]  # 3^2 / 2
    loss_B.sum().backward()
    assert score_B.grad is not None
    assert score_B.grad.tolist() == [-3.0, 0.0]


def test_grades_by_hand():
    # cuts at -log 3 and log 3, score 0: P(grade 0) = sigmoid(-log 3) = 1/4, P(2) = 1/4, P(1) = 1/2
    got_B = ordinal_loss(torch.zeros(3), torch.tensor([0, 1, 2]), torch.tensor([-LOG3, LOG3]))
    torch.testing.assert_close(got_B, torch.tensor([4.0, 2.0, 4.0]).log())


def test_cuts_by_hand():
    # the second is log(1 + e^0) = log 2 above the first
    torch.testing.assert_close(cuts_of(torch.tensor([-1.0, 0.0])), torch.tensor([-1.0, -1.0 + math.log(2)]))


@given(st.floats(-9, 9), st.lists(st.floats(-5, 5), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_grades_share_out_all_probability_and_cuts_rise(score, free):
    cut_C = cuts_of(torch.tensor(free, dtype=torch.float64))
    assert (cut_C.diff() > 0).all()
    grade_B = torch.arange(len(free) + 1)
    loss_B = ordinal_loss(torch.full((len(grade_B),), score, dtype=torch.float64), grade_B, cut_C)
    assert (-loss_B).exp().sum().item() == pytest.approx(1, abs=1e-9)


@given(st.floats(-20, 20), st.floats(-5, 5))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_two_grades_are_a_thumb(score, cut):
    score_B, cut_C = torch.tensor([score, score], dtype=torch.float64), torch.tensor([cut], dtype=torch.float64)
    got_B = ordinal_loss(score_B, torch.tensor([0, 1]), cut_C)
    torch.testing.assert_close(got_B, thumb_loss(score_B - cut_C, torch.tensor([False, True])))


def test_gradients_are_finite_differences():
    score_B = torch.tensor([-1.3, 0.2, 2.0, 0.4], dtype=torch.float64, requires_grad=True)
    free_C = torch.tensor([-0.5, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    grade_B = torch.tensor([0, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda s, f: ordinal_loss(s, grade_B, cuts_of(f)), (score_B, free_C))
    assert torch.autograd.gradcheck(lambda s: centring_penalty(s, [3, 1]), score_B)


@pytest.mark.parametrize("score", [-1e4, 1e4])
def test_far_scores_stay_finite(score):
    score_B = torch.full((3,), score, requires_grad=True)
    cut_C = torch.tensor([-1.0, 1.0], requires_grad=True)
    loss = ordinal_loss(score_B, torch.tensor([0, 1, 2]), cut_C).sum()
    gradients = torch.autograd.grad(loss, (score_B, cut_C))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_centring_by_hand():
    # means 1 and -2, squared; a pair's (1 + 1)^2 of Eisenstein et al. is 4 times the first
    got_J = centring_penalty(torch.tensor([3.0, -1.0, -2.0, -2.0, -2.0]), [2, 3])
    assert got_J.tolist() == [1.0, 4.0]


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"score_B \(2,\), thumb_B \(3,\)"):
        thumb_loss(torch.zeros(2), torch.ones(3).bool())
    with pytest.raises(ShapeError, match="thumb_B must hold booleans"):
        thumb_loss(torch.zeros(2), torch.ones(2))
    with pytest.raises(ShapeError, match=r"score_B \(2,\), rating_B \(1,\)"):
        rating_loss(torch.zeros(2), torch.zeros(1))
    with pytest.raises(ShapeError, match="grades must be 0 to 2 for 2 cuts; found 1 to 3"):
        ordinal_loss(torch.zeros(2), torch.tensor([1, 3]), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"score_B \(2,\) must hold one score for each of 3 answers"):
        centring_penalty(torch.zeros(2), [1, 2])
