"""Thumbs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.losses import bradley_terry_loss, thumb_loss

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


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"score_B \(2,\), thumb_B \(3,\)"):
        thumb_loss(torch.zeros(2), torch.ones(3).bool())
    with pytest.raises(ShapeError, match="thumb_B must hold booleans"):
        thumb_loss(torch.zeros(2), torch.ones(2))
