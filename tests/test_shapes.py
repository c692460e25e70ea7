"""Checks at the border name what came."""

from __future__ import annotations

import pytest
import torch

from plaudit.errors import ShapeError
from plaudit.shapes import check_mask, check_rows, check_same_shape


def test_one_shape_passes():
    check_same_shape()
    check_same_shape(a_BT=torch.zeros(2, 3), b_BT=torch.ones(2, 3), c_BT=torch.ones(2, 3).bool())


@pytest.mark.parametrize("other", [(2, 1), (1, 3), (3,), ()])
def test_nothing_is_broadcast(other):
    with pytest.raises(ShapeError, match=r"these must have one shape: a_BT \(2, 3\), b_BT \("):
        check_same_shape(a_BT=torch.zeros(2, 3), b_BT=torch.zeros(other))


def test_masks_hold_booleans():
    check_mask("mask_BT", torch.ones(2, 3).bool())
    with pytest.raises(ShapeError, match=r"answer_BT must hold booleans, .* found torch.int64"):
        check_mask("answer_BT", torch.ones(2, 3).long())


def test_empty_rows_are_named():
    check_rows("mask_BT", torch.tensor([[False, True], [True, True]]))
    with pytest.raises(ShapeError, match=r"mask_BT selects no token in rows \[1\]"):
        check_rows("mask_BT", torch.tensor([[False, True], [False, False]]))
    with pytest.raises(ShapeError, match=r"answer_BT selects no token in rows \[0, 2\]: drop"):
        check_rows("answer_BT", torch.tensor([[False, False], [True, False], [False, False]]))
