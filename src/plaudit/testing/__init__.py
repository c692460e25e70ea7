"""What tests of RLHF code need: a task in which every expectation is a sum."""

from __future__ import annotations

from plaudit.testing.bias import bias_table, biases
from plaudit.testing.laboratory import (
    Comparison,
    Critic,
    Draws,
    Estimator,
    Laboratory,
    Network,
    Table,
    compare,
    exact_gradient,
    expected_gradient,
    imitate,
    make_laboratory,
    variance,
)

__all__ = [
    "Comparison",
    "Critic",
    "Draws",
    "Estimator",
    "Laboratory",
    "Network",
    "Table",
    "bias_table",
    "biases",
    "compare",
    "exact_gradient",
    "expected_gradient",
    "imitate",
    "make_laboratory",
    "variance",
]
