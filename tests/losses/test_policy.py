"""REINFORCE, PPO's clipped surrogate, entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.losses import clipped_surrogate, entropy, reinforce_loss

quick = settings(deadline=None, max_examples=40, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_reinforce_by_hand():
    logp_BT = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantage_BT = torch.tensor([[3.0, -0.5]], requires_grad=True)
    loss_BT = reinforce_loss(logp_BT, advantage_BT)
    assert loss_BT.tolist() == [[3.0, -1.0]]  # -(3)(-1), -(-0.5)(-2)
    loss_BT.sum().backward()
    assert logp_BT.grad is not None
    assert logp_BT.grad.tolist() == [[-3.0, 0.5]]  # descent raises what did well
    assert advantage_BT.grad is None


def test_surrogate_by_hand():
    ratio_BT = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1]], dtype=torch.float64)
    advantage_BT = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]], dtype=torch.float64)
    got = clipped_surrogate(ratio_BT.log(), torch.zeros_like(ratio_BT), advantage_BT)
    # -min(1.5, 1.2), -min(-1.5, -1.2), -min(0.5, 0.8), -min(-0.5, -0.8), -min(2.2, 2.2)
    expected_BT = torch.tensor([[-1.2, 1.5, -0.5, 0.8, -2.2]], dtype=torch.float64)
    torch.testing.assert_close(got.loss_BT, expected_BT)
    assert got.held_BT.tolist() == [[True, False, False, True, False]]
    torch.testing.assert_close(got.ratio_BT, ratio_BT)


def test_low_and_high_are_their_own():
    ratio_BT = torch.tensor([[1.45, 0.55]], dtype=torch.float64)
    advantage_BT = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    zero_BT = torch.zeros_like(ratio_BT)
    wide_above = clipped_surrogate(ratio_BT.log(), zero_BT, advantage_BT, low=0.1, high=0.5)
    wide_below = clipped_surrogate(ratio_BT.log(), zero_BT, advantage_BT, low=0.5, high=0.1)
    torch.testing.assert_close(wide_above.loss_BT, torch.tensor([[-1.45, 0.9]], dtype=torch.float64))
    torch.testing.assert_close(wide_below.loss_BT, torch.tensor([[-1.1, 0.55]], dtype=torch.float64))
    assert wide_above.held_BT.tolist() == [[False, True]]
    assert wide_below.held_BT.tolist() == [[True, False]]


def test_surrogate_gradient_stops_where_the_clip_holds():
    logp_BT = torch.tensor([[1.5, 1.5, 0.5, 0.5]], dtype=torch.float64).log().requires_grad_()
    old_logp_BT = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    advantage_BT = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    got = clipped_surrogate(logp_BT, old_logp_BT, advantage_BT)
    got.loss_BT.sum().backward()
    # free: -advantage x ratio; held: 0
    torch.testing.assert_close(logp_BT.grad, torch.tensor([[0.0, 1.5, -0.5, 0.0]], dtype=torch.float64))
    assert old_logp_BT.grad is None
    assert advantage_BT.grad is None
    assert not got.ratio_BT.requires_grad


def test_before_the_first_step_ppo_is_reinforce_bit_for_bit():
    old_logp_BT, advantage_BT = normal(8, 5, seed=1) - 3, normal(8, 5, seed=2)
    ppo_BT, reinforce_BT = old_logp_BT.clone().requires_grad_(), old_logp_BT.clone().requires_grad_()
    surrogate = clipped_surrogate(ppo_BT, old_logp_BT, advantage_BT)
    surrogate.loss_BT.sum().backward()
    reinforce_loss(reinforce_BT, advantage_BT).sum().backward()
    assert ppo_BT.grad is not None
    assert reinforce_BT.grad is not None
    assert torch.equal(ppo_BT.grad, reinforce_BT.grad)
    assert torch.equal(surrogate.ratio_BT, torch.ones_like(surrogate.ratio_BT))
    assert not surrogate.held_BT.any()


@given(seed=st.integers(0, 99))
@quick
def test_the_clip_never_lowers_the_loss(seed):
    logp_BT, old_logp_BT, advantage_BT = normal(3, 4, 5, seed=seed)
    free_BT = -(logp_BT - old_logp_BT).exp() * advantage_BT
    got = clipped_surrogate(logp_BT, old_logp_BT, advantage_BT)
    assert (got.loss_BT >= free_BT).all()
    assert torch.equal(got.held_BT, got.loss_BT > free_BT)
    wide = clipped_surrogate(logp_BT, old_logp_BT, advantage_BT, low=1.0, high=1e9)
    torch.testing.assert_close(wide.loss_BT, free_BT)
    assert not wide.held_BT.any()


def test_entropy_by_hand():
    p_BTV = torch.tensor([[[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    # log 4; log 2; log(2)/2 + 2 log(4)/4 = 1.5 log 2; 0
    torch.testing.assert_close(entropy(p_BTV.log()), torch.tensor([[2.0, 1.0, 1.5, 0.0]]) * math.log(2))


def test_entropy_gradient():
    logit_V = normal(5).requires_grad_()
    logp_V = logit_V.log_softmax(-1)
    h = entropy(logp_V)
    h.backward()
    p_V = logp_V.detach().exp()
    torch.testing.assert_close(logit_V.grad, -p_V * (logp_V.detach() + h.detach()))  # dH / dlogit = -p (log p + H)


def test_entropy_of_what_cannot_come_has_a_finite_gradient():
    logit_V = torch.tensor([0.3, 0.1, -torch.inf], dtype=torch.float64, requires_grad=True)
    entropy(logit_V.log_softmax(-1)).backward()
    pair_V = torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)
    entropy(pair_V.log_softmax(-1)).backward()
    assert logit_V.grad is not None
    assert pair_V.grad is not None
    torch.testing.assert_close(logit_V.grad, torch.cat([pair_V.grad, torch.zeros(1, dtype=torch.float64)]))


def test_what_is_refused():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(ShapeError, match=r"logp_BT \(2, 3\), advantage_BT \(2,\)"):
        reinforce_loss(x, y)
    with pytest.raises(ShapeError, match=r"logp_BT \(2, 3\), old_logp_BT \(2, 3\), advantage_BT \(2,\)"):
        clipped_surrogate(x, x, y)
