"""Checks that tensors agree, made once at the public border; each names its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.errors import ShapeError

__all__ = ["check_mask", "check_rows", "check_same_shape"]


def check_same_shape(**named: Tensor) -> None:
    """Refuse tensors of different shapes: nothing here is ever broadcast.

    Raises:
        ShapeError: names every argument with its shape.
    """
    if len({tensor.shape for tensor in named.values()}) > 1:
        listed = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named.items())
        raise ShapeError(f"these must have one shape: {listed}")


def check_mask(name: str, mask: Tensor) -> None:
    """Refuse a mask that is not of booleans: a mask selects, it never multiplies.

    Raises:
        ShapeError: names the argument and its type.
    """
    if mask.dtype != torch.bool:
        raise ShapeError(f"{name} must hold booleans, True where a token counts; found {mask.dtype}")


def check_rows(name: str, mask_BT: Tensor) -> None:
    """Refuse a mask with a row in which nothing is selected.

    Raises:
        ShapeError: names the argument and the rows.
    """
    empty = (~mask_BT.any(-1)).nonzero().flatten().tolist()
    if empty:
        raise ShapeError(f"{name} selects no token in rows {empty}: drop these answers first")
