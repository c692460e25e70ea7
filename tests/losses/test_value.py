"""A critic's squared error."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.losses import clipped_value_loss, explained_variance, value_loss

NAN = float("nan")
quick = settings(deadline=None, max_examples=40, derandomize=True)


def test_by_hand():
    value_BT = torch.tensor([[3.0, -1.0]], requires_grad=True)
    return_BT = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss_BT = value_loss(value_BT, return_BT)
    assert loss_BT.tolist() == [[2.0, 0.5]]  # 2^2 / 2, 1^2 / 2
    loss_BT.sum().backward()
    assert value_BT.grad is not None
    assert value_BT.grad.tolist() == [[2.0, -1.0]]  # value - return
    assert return_BT.grad is None


def test_clipped_by_hand():
    value_BT = torch.tensor([[1.0, 1.0, -1.0, 0.1]], dtype=torch.float64, requires_grad=True)
    old_BT = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    return_BT = torch.tensor([[2.0, -1.0, -2.0, 2.0]], dtype=torch.float64, requires_grad=True)
    got = clipped_value_loss(value_BT, old_BT, return_BT, clip=0.2)
    # near is 0.2, 0.2, -0.2, 0.1
    # max(1, 1.8^2) / 2, max(2^2, 1.2^2) / 2, max(1, 1.8^2) / 2, 1.9^2 / 2
    torch.testing.assert_close(got.loss_BT, torch.tensor([[1.62, 2.0, 1.62, 1.805]], dtype=torch.float64))
    assert got.held_BT.tolist() == [[True, False, True, False]]
    got.loss_BT.sum().backward()
    torch.testing.assert_close(value_BT.grad, torch.tensor([[0.0, 2.0, 0.0, -1.9]], dtype=torch.float64))
    assert old_BT.grad is None
    assert return_BT.grad is None


@given(seed=st.integers(0, 99))
@quick
def test_clip_limits(seed):
    value_BT, old_BT, return_BT = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    free_BT = value_loss(value_BT, return_BT)
    assert (clipped_value_loss(value_BT, old_BT, return_BT).loss_BT >= free_BT).all()
    wide = clipped_value_loss(value_BT, old_BT, return_BT, clip=1e9)
    torch.testing.assert_close(wide.loss_BT, free_BT)
    still = clipped_value_loss(old_BT, old_BT, return_BT)
    torch.testing.assert_close(still.loss_BT, value_loss(old_BT, return_BT))
    assert not still.held_BT.any()


def test_explained_variance_by_hand():
    return_BT = torch.tensor([[1.0, 3.0, NAN]])
    value_BT = torch.tensor([[1.0, 2.0, NAN]], requires_grad=True)
    mask_BT = torch.tensor([[True, True, False]])
    got = explained_variance(value_BT, return_BT, mask_BT)
    assert got.item() == 0.75  # residuals 0 and 1 have variance 1/4, returns 1
    assert not got.requires_grad
    assert explained_variance(value_BT + 7, return_BT, mask_BT).item() == 0.75
    assert explained_variance(return_BT, return_BT, mask_BT).item() == 1.0
    assert explained_variance(torch.zeros(1, 3), return_BT, mask_BT).item() == 0.0
    assert explained_variance(-return_BT, return_BT, mask_BT).item() == -3.0  # residual 2 r: variance 4
    assert math.isnan(explained_variance(value_BT, torch.ones(1, 3), mask_BT).item())


def test_what_is_refused():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"value_BT \(2, 3\), return_BT \(2,\)"):
        value_loss(x, y)
    with pytest.raises(ShapeError, match=r"old_value_BT \(2,\)"):
        clipped_value_loss(x, y, x)
    with pytest.raises(ShapeError, match=r"mask_BT \(2,\)"):
        explained_variance(x, x, y.bool())
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        explained_variance(x, x, x)
    with pytest.raises(ShapeError, match="mask_BT selects no token"):
        explained_variance(x, x, x.bool())
