"""DPO, IPO and KTO."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import RecipeError, ShapeError
from plaudit.losses import bradley_terry_loss, dpo_loss, implicit_reward, ipo_loss, kto_loss, kto_reference

LOG3 = math.log(3)
quick = settings(deadline=None, max_examples=40, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair(gap_M: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities of pairs whose log-ratio gap is given, none of the four 0."""
    return -3 + gap_M, torch.full_like(gap_M, -4.0), torch.full_like(gap_M, -3.5), torch.full_like(gap_M, -4.5)


def test_implicit_reward_by_hand():
    got_B = implicit_reward(numbers(-1, -5), numbers(-3, -4.5), beta=0.5)
    torch.testing.assert_close(got_B, numbers(1, -0.25))  # half of 2 and of -0.5


def test_dpo_by_hand():
    # beta 1/2 and gaps 0, 2 log 3, -2 log 3: h = 0, log 3, -log 3, sigmoid 1/2, 3/4, 1/4
    gap_M = numbers(0, 2 * LOG3, -2 * LOG3)
    torch.testing.assert_close(dpo_loss(*pair(gap_M), beta=0.5), -numbers(1 / 2, 3 / 4, 1 / 4).log())
    # a tenth of the labels wrong
    expected_M = -0.9 * numbers(1 / 2, 3 / 4, 1 / 4).log() - 0.1 * numbers(1 / 2, 1 / 4, 3 / 4).log()
    torch.testing.assert_close(dpo_loss(*pair(gap_M), beta=0.5, smoothing=0.1), expected_M)


def test_ipo_by_hand():
    # beta 1/2: the gap that is aimed at is 1 nat
    torch.testing.assert_close(ipo_loss(*pair(numbers(0, 1, 3)), beta=0.5), numbers(1, 0, 4))


def test_kto_by_hand():
    # beta 1, z0 1: gains log(pi / ref) - 1 of log 3 and -log 3, each with a thumb up and down
    logp_B = numbers(LOG3, LOG3, -LOG3, -LOG3) - 2
    desirable_B = torch.tensor([True, False, True, False])
    got_B = kto_loss(logp_B, numbers(-3, -3, -3, -3), desirable_B, numbers(1)[0], beta=1.0, desirable_weight=2.0)
    torch.testing.assert_close(got_B, numbers(2 / 4, 3 / 4, 2 * 3 / 4, 1 / 4))


def test_kto_reference_by_hand():
    assert kto_reference(numbers(-1, -4), numbers(-3, -3)).item() == 0.5  # (2 - 1) / 2
    assert kto_reference(numbers(-4, -4), numbers(-3, -3)).item() == 0.0  # -1, held at 0
    assert not kto_reference(numbers(-1).requires_grad_(), numbers(-3)).requires_grad


@given(seed=st.integers(0, 99), beta=st.floats(0.05, 2))
@quick
def test_dpo_is_bradley_terry_of_implicit_rewards(seed, beta):
    better_M, worse_M, ref_better_M, ref_worse_M = normal(4, 6, seed=seed)
    rewards = implicit_reward(better_M, ref_better_M, beta=beta), implicit_reward(worse_M, ref_worse_M, beta=beta)
    got_M = dpo_loss(better_M, worse_M, ref_better_M, ref_worse_M, beta=beta)
    torch.testing.assert_close(got_M, bradley_terry_loss(*rewards))
    # and so a logistic regression: labels 1, no intercept, one feature, the log-ratio gap, of weight beta
    gap_M = better_M - ref_better_M - worse_M + ref_worse_M
    entropy_M = torch.nn.functional.binary_cross_entropy_with_logits(
        beta * gap_M, torch.ones_like(gap_M), reduction="none"
    )
    torch.testing.assert_close(got_M, entropy_M)
    smoothed_M = torch.nn.functional.binary_cross_entropy_with_logits(
        beta * gap_M, torch.full_like(gap_M, 0.8), reduction="none"
    )
    torch.testing.assert_close(
        dpo_loss(better_M, worse_M, ref_better_M, ref_worse_M, beta=beta, smoothing=0.2), smoothed_M
    )


@given(seed=st.integers(0, 99), shift=st.floats(-9, 9))
@quick
def test_what_a_prompt_adds_to_both_answers_changes_nothing(seed, shift):
    better_M, worse_M, ref_better_M, ref_worse_M = normal(4, 6, seed=seed)
    for loss in (dpo_loss, ipo_loss):
        base_M = loss(better_M, worse_M, ref_better_M, ref_worse_M, beta=0.3)
        torch.testing.assert_close(loss(better_M + shift, worse_M + shift, ref_better_M, ref_worse_M, beta=0.3), base_M)
        # the policy is the reference: nothing is preferred yet
        start_M = loss(ref_better_M, ref_worse_M, ref_better_M, ref_worse_M, beta=0.3)
        expected = math.log(2) if loss is dpo_loss else (1 / 0.6) ** 2
        torch.testing.assert_close(start_M, torch.full_like(start_M, expected))


@given(seed=st.integers(0, 99))
@quick
def test_dpo_weighs_a_pair_by_how_wrong_it_is(seed):
    leaves = [row.clone().requires_grad_() for row in normal(4, 6, seed=seed)]
    better_M, worse_M, ref_better_M, ref_worse_M = leaves
    dpo_loss(better_M, worse_M, ref_better_M, ref_worse_M, beta=0.7).sum().backward()
    wrong_M = torch.sigmoid(0.7 * (worse_M - ref_worse_M) - 0.7 * (better_M - ref_better_M)).detach()
    torch.testing.assert_close(better_M.grad, -0.7 * wrong_M)
    torch.testing.assert_close(worse_M.grad, 0.7 * wrong_M)
    assert ref_better_M.grad is None
    assert ref_worse_M.grad is None


def test_where_the_gradient_vanishes():
    # smoothing 1/4: h = log 3. IPO, beta 1/4: a gap of 2 nats. DPO without smoothing: nowhere
    for loss, gap in (
        (lambda *pair: dpo_loss(*pair, beta=0.5, smoothing=0.25), 2 * LOG3),
        (lambda *pair: ipo_loss(*pair, beta=0.25), 2.0),
    ):
        slopes = []
        for at in (gap - 0.5, gap, gap + 0.5):
            better_M, *rest = pair(numbers(at))
            better_M.requires_grad_()
            loss(better_M, *rest).sum().backward()
            assert better_M.grad is not None
            slopes.append(float(better_M.grad))
        assert slopes[0] < -1e-3
        assert abs(slopes[1]) < 1e-12
        assert slopes[2] > 1e-3


def test_ipo_gradient_by_hand():
    better_M, worse_M, *rest = pair(numbers(3))
    better_M.requires_grad_()
    worse_M.requires_grad_()
    ipo_loss(better_M, worse_M, *rest, beta=0.5).sum().backward()
    assert better_M.grad is not None
    assert worse_M.grad is not None
    assert (better_M.grad.item(), worse_M.grad.item()) == pytest.approx((4.0, -4.0))  # 2 (3 - 1)


@given(seed=st.integers(0, 99))
@quick
def test_a_thumb_up_is_a_thumb_down_mirrored(seed):
    gain_B = normal(5, seed=seed)
    up, down = torch.ones(5).bool(), torch.zeros(5).bool()
    zero, at_zero = torch.zeros(5, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    one_B = kto_loss(gain_B, zero, up, at_zero, beta=0.7)
    torch.testing.assert_close(one_B, kto_loss(-gain_B, zero, down, at_zero, beta=0.7))
    torch.testing.assert_close(one_B + kto_loss(gain_B, zero, down, at_zero, beta=0.7), torch.ones_like(gain_B))


def test_kto_gradient():
    logp_B, ref_B = numbers(1, 1, 9).requires_grad_(), numbers(1, 1, 1).requires_grad_()
    z0 = numbers(0)[0].requires_grad_()
    kto_loss(logp_B, ref_B, torch.tensor([True, False, True]), z0, beta=2.0, undesirable_weight=3.0).sum().backward()
    assert logp_B.grad is not None
    # -beta sigmoid(0) (1 - sigmoid(0)) = -1/2 up; three times that down; hardly anything far away
    assert logp_B.grad[:2].tolist() == pytest.approx([-0.5, 1.5])
    assert -1e-5 < logp_B.grad[2] < 0
    assert ref_B.grad is None
    assert z0.grad is None


def test_what_is_refused():
    x, y = torch.zeros(2), torch.zeros(3)
    with pytest.raises(ShapeError, match=r"logp_B \(2,\), ref_logp_B \(3,\)"):
        dpo_loss(x, x, y, x, beta=0.1)
    with pytest.raises(ShapeError, match=r"better_M \(2,\), worse_M \(3,\)"):
        dpo_loss(x, y, x, y, beta=0.1)
    with pytest.raises(ShapeError, match=r"better_logp_M \(2,\), worse_logp_M \(3,\)"):
        ipo_loss(x, y, x, y, beta=0.1)
    with pytest.raises(RecipeError, match="beta must be above 0, got 0"):
        dpo_loss(x, x, x, x, beta=0)
    with pytest.raises(RecipeError, match=r"smoothing must lie in \[0, 0.5\), got 0.5"):
        dpo_loss(x, x, x, x, beta=0.1, smoothing=0.5)
    with pytest.raises(ShapeError, match=r"ref_mismatched_logp_B \(3,\)"):
        kto_reference(x, y)
    with pytest.raises(ShapeError, match="desirable_B must hold booleans"):
        kto_loss(x, x, x, x[0], beta=0.1)
    with pytest.raises(RecipeError, match=r"got desirable_weight 1.0, undesirable_weight -1"):
        kto_loss(x, x, torch.ones(2).bool(), x[0], beta=0.1, undesirable_weight=-1)
