"""Baselines from the group, the batch and the past; whitening."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.advantages import (
    RunningMean,
    batch_mean,
    group_mean,
    group_normalised,
    leave_one_out,
    minus_baseline,
    whiten,
)
from plaudit.errors import NumberError, RecipeError, ShapeError

NAN = float("nan")
quick = settings(deadline=None, max_examples=40, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(*rows: str) -> Tensor:
    return torch.tensor([[c == "x" for c in row] for row in rows])


def lengths(seed: int, rows: int, steps: int) -> Tensor:
    return torch.arange(steps) < torch.randint(1, steps + 1, (rows, 1), generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, expected: Sequence[object]) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype))


# baselines from the group


def test_leave_one_out_by_hand():
    # group 7: scores 1, 2, 6 less the means of the others 4, 3.5, 1.5. Group 3: 10 - 20, 20 - 10
    score_B, group_B = torch.tensor([1.0, 10.0, 2.0, 6.0, 20.0]), torch.tensor([7, 3, 7, 7, 3])
    close(leave_one_out(score_B, group_B), [-3.0, -10.0, -1.5, 4.5, 10.0])
    # less the mean of all: 3 and 15
    close(group_mean(score_B, group_B), [-2.0, -5.0, -1.0, 3.0, 5.0])


def test_answers_left_out_are_in_nobodys_baseline():
    score_B, group_B = torch.tensor([1.0, NAN, 2.0, 6.0, NAN, NAN]), torch.tensor([0, 0, 0, 0, 1, 1])
    keep_B = torch.tensor([True, False, True, True, False, False])
    close(leave_one_out(score_B, group_B, keep_B), [-3.0, 0.0, -1.5, 4.5, 0.0, 0.0])
    close(group_mean(score_B, group_B, keep_B), [-2.0, 0.0, -1.0, 3.0, 0.0, 0.0])


@pytest.mark.parametrize("baseline", [leave_one_out, group_mean, group_normalised])
def test_a_group_of_one_is_refused_by_name(baseline):
    with pytest.raises(ShapeError, match=r"2 or more scored answers.*groups \[5\] of group_B keep 1"):
        baseline(torch.zeros(3), torch.tensor([4, 5, 4]))
    with pytest.raises(ShapeError, match=r"groups \[4, 5\]"):
        baseline(torch.zeros(4), torch.tensor([4, 5, 4, 5]), torch.tensor([True, True, False, False]))


@pytest.mark.parametrize("baseline", [leave_one_out, group_mean, group_normalised])
@given(seed=st.integers(0, 99), shift=st.floats(-9, 9), order=st.permutations(range(8)))
@quick
def test_baselines_take_away_what_a_group_shares(baseline, seed, shift, order):
    score_B, group_B = normal(8, seed=seed), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    base_B = baseline(score_B, group_B)
    torch.testing.assert_close(baseline(score_B + shift * group_B, group_B), base_B)
    torch.testing.assert_close(baseline(score_B[order], group_B[order]), base_B[order])
    total_P = torch.zeros(3, dtype=torch.float64).index_add(0, group_B, base_B)
    torch.testing.assert_close(total_P, torch.zeros(3, dtype=torch.float64))


@given(seed=st.integers(0, 99), size=st.integers(2, 6))
@quick
def test_group_mean_is_leave_one_out_shrunk(seed, size):
    score_B, group_B = normal(3 * size, seed=seed), torch.arange(3 * size) % 3
    torch.testing.assert_close(group_mean(score_B, group_B), leave_one_out(score_B, group_B) * (size - 1) / size)


def test_baselines_carry_no_gradient():
    score_B = torch.tensor([1.0, 2.0], requires_grad=True)
    baseline_B = torch.ones(2, requires_grad=True)
    assert not leave_one_out(score_B, torch.zeros(2)).requires_grad
    assert not group_mean(score_B, torch.zeros(2)).requires_grad
    assert not group_normalised(score_B, torch.zeros(2)).requires_grad
    assert not batch_mean(score_B).requires_grad
    assert not minus_baseline(score_B, baseline_B).requires_grad


# the group's standard deviation


def test_group_normalised_by_hand():
    # group 7: scores 1, 2, 6, mean 3, squares 4 + 1 + 9 = 14; group 3: 10 and 20, mean 15, squares 25 + 25
    score_B, group_B = torch.tensor([1.0, 10.0, 2.0, 6.0, 20.0]), torch.tensor([7, 3, 7, 7, 3])
    seven, three = math.sqrt(14 / 3), 5.0
    got_B = group_normalised(score_B, group_B, deviation="population", epsilon=0.0)
    close(got_B, [-2 / seven, -5 / three, -1 / seven, 3 / seven, 5 / three])
    seven, three = math.sqrt(14 / 2), math.sqrt(50)
    got_B = group_normalised(score_B, group_B, deviation="sample", epsilon=0.0)
    close(got_B, [-2 / seven, -5 / three, -1 / seven, 3 / seven, 5 / three])
    got_B = group_normalised(score_B, group_B, deviation="population", epsilon=5.0)  # added to the deviation
    close(got_B[[1, 4]], [-0.5, 0.5])


@pytest.mark.parametrize("epsilon", [0.0, 1e-4])
def test_a_group_without_variance_gets_zero(epsilon):
    # 0.1 three times has a mean that is not exactly 0.1
    score_B, group_B = torch.tensor([0.1, 0.1, 0.1, 1.0, 2.0], dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1])
    got_B = group_normalised(score_B, group_B, epsilon=epsilon)
    assert got_B[:3].tolist() == [0.0, 0.0, 0.0]
    assert got_B[4] == -got_B[3] > 0.7
    # the one that differs is left out
    keep_B = torch.tensor([True, True, False, True, True])
    got_B = group_normalised(torch.tensor([5.0, 5.0, 9.0, NAN, 2.0]), torch.zeros(5), keep_B & (score_B < 1))
    assert got_B.tolist() == [0.0] * 5


def test_answers_left_out_are_in_nobodys_deviation():
    score_B, group_B = torch.tensor([1.0, NAN, 2.0, 6.0, NAN]), torch.tensor([0, 0, 0, 0, 1])
    keep_B = torch.tensor([True, False, True, True, False])
    got_B = group_normalised(score_B, group_B, keep_B, epsilon=0.0)
    close(got_B, [-2 / math.sqrt(7), 0.0, -1 / math.sqrt(7), 3 / math.sqrt(7), 0.0])


@given(seed=st.integers(0, 99), scale=st.floats(0.5, 9))
@quick
def test_group_normalised_forgets_the_scale_of_each_group(seed, scale):
    score_B, group_B = normal(9, seed=seed), torch.arange(9) % 3
    base_B = group_normalised(score_B, group_B, epsilon=0.0)
    stretched_B = torch.where(group_B == 1, scale * score_B, score_B)
    torch.testing.assert_close(group_normalised(stretched_B, group_B, epsilon=0.0), base_B)
    torch.testing.assert_close(
        group_normalised(score_B, group_B, deviation="population", epsilon=0.0), base_B * math.sqrt(3 / 2)
    )
    of_group_B = score_B.view(3, 3).std(0)[group_B]  # an independent formula
    torch.testing.assert_close(base_B, group_mean(score_B, group_B) / of_group_B)


def test_one_group_normalised_is_whitened():
    score_B = normal(6)
    got_B = group_normalised(score_B, torch.zeros(6), deviation="population", epsilon=0.0)
    torch.testing.assert_close(got_B, whiten(score_B, torch.ones(6).bool(), epsilon=0.0))


# the batch, the past, and what is known beforehand


def test_batch_mean_by_hand():
    close(batch_mean(torch.tensor([1.0, 2.0, 6.0])), [-2.0, -1.0, 3.0])
    close(batch_mean(torch.tensor([1.0, NAN, 5.0]), torch.tensor([True, False, True])), [-2.0, 0.0, 2.0])
    with pytest.raises(ShapeError, match="2 or more scored answers"):
        batch_mean(torch.zeros(1))


@given(seed=st.integers(0, 99), shift=st.floats(-9, 9))
@quick
def test_batch_mean_takes_away_what_all_share(seed, shift):
    score_B = normal(5, seed=seed)
    torch.testing.assert_close(batch_mean(score_B + shift), batch_mean(score_B))
    torch.testing.assert_close(batch_mean(score_B), leave_one_out(score_B, torch.zeros(5)) * 4 / 5)


def test_minus_baseline_by_hand():
    score_B, baseline_B = torch.tensor([1.0, 2.0, NAN]), torch.tensor([3.0, -1.0, 0.5])
    keep_B = torch.tensor([True, True, False])
    close(minus_baseline(score_B, baseline_B, keep_B), [-2.0, 3.0, 0.0])
    close(minus_baseline(score_B, 0.5, keep_B), [0.5, 1.5, 0.0])


def test_running_mean_by_hand():
    # decay 1/2. Round 1: 1, 3. Round 2: 8. (4/2 + 8) / (2/2 + 1)
    running = RunningMean(decay=0.5, start=7.0)
    assert running.baseline == 7.0
    first = running.update(torch.tensor([1.0, 3.0]))
    assert (first.baseline, first.total, first.weight) == (2.0, 4.0, 2.0)
    assert first.update(torch.tensor([8.0, NAN]), torch.tensor([True, False])).baseline == 5.0
    assert first.update(torch.tensor([NAN]), torch.tensor([False])) == first
    assert running.baseline == 7.0  # a new value, not a change


@given(rounds=st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=4), min_size=1, max_size=5))
@quick
def test_running_mean_limits(rounds):
    forever, last = RunningMean(decay=1.0), RunningMean(decay=0.0)
    for scores in rounds:
        forever, last = forever.update(torch.tensor(scores)), last.update(torch.tensor(scores))
    everything = [score for scores in rounds for score in scores]
    assert forever.baseline == pytest.approx(sum(everything) / len(everything), abs=1e-6)
    assert last.baseline == pytest.approx(sum(rounds[-1]) / len(rounds[-1]), abs=1e-6)


def test_running_mean_comes_back_from_json():
    on = RunningMean(decay=0.9).update(torch.tensor([0.1, 0.7])).update(torch.tensor([1 / 3]))
    back = RunningMean(decay=0.9).restored(json.loads(json.dumps(on.state())))
    assert back == on
    assert back.update(torch.ones(2)) == on.update(torch.ones(2))


# whitening


def test_whiten_by_hand():
    x_BT, mask_BT = torch.tensor([[0.0, NAN], [4.0, 9.0]]), mask("x.", "x.")
    # mean 2, variance ((-2)^2 + 2^2) / 2 = 4, standard deviation 2 (with n - 1 it would be 2.83)
    close(whiten(x_BT, mask_BT), [[-1, 0], [1, 0]])
    close(whiten(x_BT, mask_BT, shift_mean=False), [[1, 0], [3, 0]])
    close(whiten(x_BT, mask_BT, epsilon=12.0), [[-0.5, 0], [0.5, 0]])  # sqrt(4 + 12) = 4


def test_whiten_of_equal_numbers_is_zero():
    close(whiten(torch.full((1, 3), 5.0), mask("xxx")), [[0, 0, 0]])
    close(whiten(torch.full((1, 3), 5.0), mask("xxx"), shift_mean=False), [[5, 5, 5]])


@pytest.mark.parametrize("value", [1.1, 12.7, 1000.1])
def test_whiten_does_not_blow_up_rounding(value):
    x_BT = torch.full((64, 20), value, dtype=torch.float32)  # whose mean in fp32 is another number
    assert x_BT.mean() != value
    white_BT = whiten(x_BT, torch.ones(64, 20).bool())
    assert white_BT.dtype is torch.float32
    assert not white_BT.any()


@given(seed=st.integers(0, 99), scale=st.floats(0.5, 9), shift=st.floats(-9, 9), pad=st.integers(0, 5))
@quick
def test_whiten_forgets_scale_shift_and_padding(seed, scale, shift, pad):
    x_BT, mask_BT = normal(4, 5, seed=seed), lengths(seed, 4, 5)
    mask_BT[0] = True  # two entries at least
    base_BT = whiten(x_BT, mask_BT)
    moved_BT = whiten(F.pad(scale * x_BT + shift, (0, pad), value=1e9), F.pad(mask_BT, (0, pad)))
    torch.testing.assert_close(moved_BT, F.pad(base_BT, (0, pad)), atol=1e-6, rtol=1e-6)  # epsilon is not scaled
    selected_N = base_BT[mask_BT]
    assert abs(selected_N.mean()) < 1e-9
    assert abs(selected_N.square().mean() - 1) < 1e-6
    kept_BT = whiten(x_BT, mask_BT, shift_mean=False)
    torch.testing.assert_close(kept_BT[mask_BT], selected_N + x_BT[mask_BT].mean())


def test_whiten_carries_no_gradient():
    assert not whiten(torch.ones(1, 2, requires_grad=True), mask("xx")).requires_grad


def test_whiten_takes_one_score_per_answer():
    # mean 2, standard deviation 2; the answer left out is in neither
    close(whiten(torch.tensor([0.0, NAN, 4.0]), torch.tensor([True, False, True])), [-1.0, 0.0, 1.0])


# refusals


def test_what_is_refused():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"score_B \(2,\), group_B \(3,\)"):
        leave_one_out(y, torch.zeros(3))
    with pytest.raises(ShapeError, match="keep_B must hold booleans"):
        leave_one_out(y, y, y)
    with pytest.raises(RecipeError, match="deviation must be population or sample, got 'biased'"):
        group_normalised(y, y, deviation="biased")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"score_B \(2,\), baseline_B \(3,\)"):
        minus_baseline(y, torch.zeros(3))
    with pytest.raises(ShapeError, match="keep_B must hold booleans"):
        minus_baseline(y, 0.0, y)
    with pytest.raises(RecipeError, match=r"decay must lie in \[0, 1\], got 1.5"):
        RunningMean(decay=1.5)
    with pytest.raises(NumberError, match="add up to nan"):
        RunningMean().update(torch.tensor([1.0, NAN]))
    with pytest.raises(ShapeError, match=r"score_B \(2,\), keep_B \(3,\)"):
        RunningMean().update(y, torch.ones(3).bool())
    with pytest.raises(ShapeError, match=r"x_BT \(2,\)"):
        whiten(y, torch.ones(2, 3).bool())
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        whiten(x, x)
    with pytest.raises(ShapeError, match="mask_BT selects no token"):
        whiten(x, torch.zeros(2, 3).bool())
