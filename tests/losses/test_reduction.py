"""Masked sums with their denominators."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import RecipeError, ShapeError
from plaudit.losses import (
    Portion,
    constant_portion,
    masked_sum,
    mean_of,
    sequence_portion,
    token_count,
    token_portion,
)

NAN = float("nan")
quick = settings(deadline=None, max_examples=40, derandomize=True)


def of_five(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> Portion:
    return constant_portion(x_BT, mask_BT, budget=5)


PORTIONS = [token_portion, sequence_portion, of_five]


def ragged(seed: int, rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_BT = torch.randn(rows, steps, generator=generator, dtype=torch.float64)
    length_B = torch.randint(1, steps + 1, (rows, 1), generator=generator)
    return x_BT, torch.arange(steps) < length_B


def test_by_hand():
    x_BT = torch.tensor([[1.0, NAN], [3.0, 5.0]])
    mask_BT = torch.tensor([[True, False], [True, True]])
    assert masked_sum(x_BT, mask_BT).tolist() == [1.0, 8.0]
    assert token_count(mask_BT) == 3
    total, denominator = token_portion(x_BT, mask_BT)
    assert (total.item(), denominator) == (9.0, 3)  # 1 + 3 + 5
    total, denominator = sequence_portion(x_BT, mask_BT)
    assert (total.item(), denominator) == (5.0, 2)  # 1 + (3 + 5) / 2
    total, denominator = constant_portion(x_BT, mask_BT, budget=10)
    assert (total.item(), denominator) == (9.0, 20)  # 1 + 3 + 5; 2 answers of 10 tokens


def test_the_two_means_differ_by_length():
    x_BT, mask_BT = torch.tensor([[6.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    assert mean_of([token_portion(x_BT, mask_BT)]) == 3.0  # (6 + 1 + 2 + 3) / 4
    assert mean_of([sequence_portion(x_BT, mask_BT)]) == 4.0  # (6 + 2) / 2


@pytest.mark.parametrize(
    ("portion", "expected"),
    [
        (token_portion, [[1 / 3, 0.0], [1 / 3, 1 / 3]]),
        (sequence_portion, [[1 / 2, 0.0], [1 / 4, 1 / 4]]),
        (of_five, [[1 / 10, 0.0], [1 / 10, 1 / 10]]),
    ],
)
def test_gradient_reaches_selected_entries_only(portion, expected):
    x_BT = torch.tensor([[1.0, NAN], [3.0, 5.0]], requires_grad=True)
    mean_of([portion(x_BT, torch.tensor([[True, False], [True, True]]))]).backward()
    torch.testing.assert_close(x_BT.grad, torch.tensor(expected))


@pytest.mark.parametrize("portion", PORTIONS)
@given(seed=st.integers(0, 99), pad=st.integers(0, 9), order=st.permutations(range(5)))
@quick
def test_padding_and_order_change_nothing(portion, seed, pad, order):
    x_BT, mask_BT = ragged(seed, 5, 4)
    moved = portion(F.pad(x_BT, (0, pad), value=1e9)[order], F.pad(mask_BT, (0, pad))[order])
    torch.testing.assert_close(mean_of([moved]), mean_of([portion(x_BT, mask_BT)]))


@pytest.mark.parametrize("portion", PORTIONS)
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 5)))
@quick
def test_a_split_into_micro_batches_changes_nothing(portion, seed, cuts):
    x_BT, mask_BT = ragged(seed, 6, 4)
    whole_BT, split_BT = x_BT.clone().requires_grad_(), x_BT.clone().requires_grad_()
    edges = [0, *sorted(cuts), 6]
    parts = [portion(split_BT[a:b], mask_BT[a:b]) for a, b in itertools.pairwise(edges)]
    whole, split = mean_of([portion(whole_BT, mask_BT)]), mean_of(parts)
    torch.testing.assert_close(split, whole)
    whole.backward()
    split.backward()
    torch.testing.assert_close(split_BT.grad, whole_BT.grad)


def test_a_constant_denominator_does_not_see_the_other_answers():
    x_BT = torch.tensor([[6.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    short, long = torch.tensor([[1, 0, 0], [1, 1, 1]]).bool(), torch.tensor([[1, 1, 1], [1, 1, 1]]).bool()
    for portion, same in ((of_five, True), (token_portion, False)):
        weights = []
        for mask_BT in (short, long):
            leaf_BT = x_BT.clone().requires_grad_()
            mean_of([portion(leaf_BT, mask_BT)]).backward()
            assert leaf_BT.grad is not None
            weights.append(leaf_BT.grad[1])
        assert torch.equal(*weights) is same
    # where all answers are as long as the budget, it is the mean over tokens
    full_BT = torch.ones(2, 3).bool()
    assert mean_of([constant_portion(x_BT, full_BT, budget=3)]) == mean_of([token_portion(x_BT, full_BT)])


def test_what_is_refused():
    x_BT, mask_BT = torch.zeros(2, 3), torch.tensor([[True, True, False], [False] * 3])
    with pytest.raises(ShapeError, match=r"x_BT \(2, 3\), mask_BT \(2, 2\)"):
        masked_sum(x_BT, mask_BT[:, :2])
    with pytest.raises(ShapeError, match=r"mask_BT must hold booleans.*float32"):
        masked_sum(x_BT, mask_BT.float())
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        token_count(mask_BT.long())
    with pytest.raises(ShapeError, match=r"mask_BT selects no token in rows \[1\]"):
        sequence_portion(x_BT, mask_BT)
    with pytest.raises(ShapeError, match="any of the 1 portions"):
        mean_of([token_portion(x_BT[1:], mask_BT[1:])])
    with pytest.raises(RecipeError, match="budget must be above 0 tokens, got 0"):
        constant_portion(x_BT, mask_BT, budget=0)
