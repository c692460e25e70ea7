"""Discrete soft actor-critic. That exact Q reach the optimum of the objective: `test_laboratory_gradients`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.advantages import gae
from plaudit.errors import RecipeError, ShapeError
from plaudit.kl import full_kl
from plaudit.losses import entropy, q_loss, soft_policy, soft_policy_loss, soft_target, soft_value, twin_minimum

NAN = float("nan")
LOG2 = math.log(2)
quick = settings(deadline=None, max_examples=40, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_value_and_policy_by_hand():
    # alpha 2, Q = 0, 2 log 2: exp(Q / alpha) = 1, 2
    q_V = numbers(0, 2 * LOG2)
    assert soft_value(q_V, alpha=2.0).item() == pytest.approx(2 * math.log(3))  # 1 + 2
    torch.testing.assert_close(soft_policy(q_V, alpha=2.0).exp(), numbers(1 / 3, 2 / 3))
    # reference 3/4, 1/4: 3/4 + 2/4
    ref_V = numbers(0.75, 0.25).log()
    assert soft_value(q_V, ref_V, alpha=2.0).item() == pytest.approx(2 * math.log(5 / 4))
    torch.testing.assert_close(soft_policy(q_V, ref_V, alpha=2.0).exp(), numbers(3 / 5, 2 / 5))


def test_policy_loss_by_hand():
    # uniform policy against 1/3, 2/3: (log(3/2) + log(3/4)) / 2
    logp_V = numbers(0.5, 0.5).log()
    got = soft_policy_loss(logp_V, numbers(0, 2 * LOG2), alpha=2.0)
    assert got.item() == pytest.approx(math.log(9 / 8) / 2)


def test_target_by_hand():
    # discount 1/2: 1 + 4/2; 3 + nothing. A hole: 1 + 8/2, 3
    reward_BT, value_BT = numbers([1, 3, NAN], [1, NAN, 3]), numbers([2, 4, NAN], [2, NAN, 8])
    q_BT, mask_BT = numbers([7, 2, NAN], [7, NAN, 7]), torch.tensor([[True, True, False], [True, False, True]])
    next_alone = soft_target(reward_BT, value_BT, q_BT, mask_BT, discount=0.5, lambda_=0.0)
    torch.testing.assert_close(next_alone, numbers([3, 3, 0], [5, 0, 3]))
    # lambda 1/2: 1 + (4 + (3 - 2)/2)/2; 1 + (8 + (3 - 7)/2)/2
    mixed = soft_target(reward_BT, value_BT, q_BT, mask_BT, discount=0.5, lambda_=0.5)
    torch.testing.assert_close(mixed, numbers([3.25, 3, 0], [4, 0, 3]))
    for watched in (reward_BT, value_BT, q_BT):
        watched.requires_grad_()
    assert not soft_target(reward_BT, value_BT, q_BT, mask_BT).requires_grad


def test_q_loss_by_hand():
    q_BTV = numbers([[1, 5], [2, -1]]).requires_grad_()
    target_BT = numbers([3, 1]).requires_grad_()
    loss_BT = q_loss(q_BTV, torch.tensor([[0, 1]]), target_BT)
    assert loss_BT.tolist() == [[2.0, 2.0]]  # (1 - 3)^2 / 2, (-1 - 1)^2 / 2
    loss_BT.sum().backward()
    assert q_BTV.grad is not None
    assert q_BTV.grad.tolist() == [[[-2.0, 0.0], [0.0, -2.0]]]
    assert target_BT.grad is None


def test_twins_by_hand():
    assert twin_minimum(numbers(1, 5), numbers(2, 3)).tolist() == [1.0, 3.0]


@given(seed=st.integers(0, 99), alpha=st.floats(0.1, 5))
@quick
def test_value_is_what_the_best_policy_earns(seed, alpha):
    q_BV, other_BV = normal(2, 4, 5, seed=seed)
    ref_BV, any_BV = normal(4, 5, seed=seed + 1).log_softmax(-1), other_BV.log_softmax(-1)
    best_BV = soft_policy(q_BV, ref_BV, alpha=alpha)
    value_B = soft_value(q_BV, ref_BV, alpha=alpha)
    torch.testing.assert_close((best_BV.exp() * q_BV).sum(-1) - alpha * full_kl(best_BV, ref_BV), value_B)
    # any other earns less, by alpha times its distance: the identity in the docstring
    earned_B = (any_BV.exp() * q_BV).sum(-1) - alpha * full_kl(any_BV, ref_BV)
    torch.testing.assert_close(soft_policy_loss(any_BV, q_BV, ref_BV, alpha=alpha), (value_B - earned_B) / alpha)
    # without a reference the cost is minus the entropy
    plain_BV = soft_policy(q_BV, alpha=alpha)
    torch.testing.assert_close(
        (plain_BV.exp() * q_BV).sum(-1) + alpha * entropy(plain_BV), soft_value(q_BV, alpha=alpha)
    )


@given(seed=st.integers(0, 99), shift=st.floats(-9, 9), alpha=st.floats(0.1, 5))
@quick
def test_a_constant_moves_the_value_and_not_the_policy(seed, shift, alpha):
    q_BV, ref_BV = normal(3, 5, seed=seed), normal(3, 5, seed=seed + 1).log_softmax(-1)
    torch.testing.assert_close(
        soft_value(q_BV + shift, ref_BV, alpha=alpha), soft_value(q_BV, ref_BV, alpha=alpha) + shift
    )
    torch.testing.assert_close(soft_policy(q_BV + shift, ref_BV, alpha=alpha), soft_policy(q_BV, ref_BV, alpha=alpha))
    # a uniform reference is plain entropy less alpha log V
    uniform_BV = torch.full_like(q_BV, -math.log(5))
    torch.testing.assert_close(
        soft_value(q_BV, uniform_BV, alpha=alpha), soft_value(q_BV, alpha=alpha) - alpha * math.log(5)
    )
    torch.testing.assert_close(soft_policy(q_BV, uniform_BV, alpha=alpha), soft_policy(q_BV, alpha=alpha))


def test_limits_of_alpha():
    q_BV, ref_BV = normal(3, 5), normal(3, 5, seed=1).log_softmax(-1)
    torch.testing.assert_close(soft_value(q_BV, ref_BV, alpha=1e-4), q_BV.max(-1).values, atol=1e-2, rtol=0.0)
    torch.testing.assert_close(soft_value(q_BV, ref_BV, alpha=1e6), (ref_BV.exp() * q_BV).sum(-1), atol=1e-5, rtol=0.0)


@given(seed=st.integers(0, 99), lambda_=st.sampled_from([0.0, 0.3, 0.95, 1.0]))
@quick
def test_targets_are_those_of_gae(seed, lambda_):
    """On rewards that pay Q - V for each token: what the best policy for these Q pays in KL, alpha log(pi*/ref)."""
    reward_BT, value_BT = normal(2, 4, 5, seed=seed)
    q_BT = normal(4, 5, seed=seed + 100)
    mask_BT = torch.arange(5) < torch.tensor([[5], [1], [3], [2]])
    got = soft_target(reward_BT, value_BT, q_BT, mask_BT, discount=0.9, lambda_=lambda_)
    paid = gae(reward_BT - (q_BT - value_BT), value_BT, mask_BT, discount=0.9, lambda_=lambda_)
    torch.testing.assert_close(got, (paid.advantage_BT + q_BT).masked_fill(~mask_BT, 0.0))
    if lambda_ == 0:
        near = gae(reward_BT, value_BT, mask_BT, discount=0.9, lambda_=0.0)
        torch.testing.assert_close(got, near.return_BT)  # whatever Q


def test_gradients():
    q_V, ref_V = normal(5).requires_grad_(), normal(5, seed=1).log_softmax(-1).requires_grad_()
    soft_value(q_V, ref_V, alpha=0.7).backward()
    torch.testing.assert_close(q_V.grad, soft_policy(q_V, ref_V, alpha=0.7).exp().detach())
    assert ref_V.grad is None
    logit_V, q_V = normal(5, seed=2).requires_grad_(), normal(5).requires_grad_()
    soft_policy_loss(logit_V.log_softmax(-1), q_V, alpha=0.7).backward()
    assert q_V.grad is None
    # dKL / dlogit = p (log p - log p* - KL)
    logp_V, best_V = logit_V.detach().log_softmax(-1), soft_policy(q_V.detach(), alpha=0.7)
    torch.testing.assert_close(logit_V.grad, logp_V.exp() * (logp_V - best_V - full_kl(logp_V, best_V)))


def test_what_the_reference_cannot_say_stays_unsaid():
    q_V, ref_V = numbers(0, 0, 99), numbers(0.5, 0.5, 0).log()
    assert soft_value(q_V, ref_V, alpha=1.0).item() == pytest.approx(0.0)
    assert soft_policy(q_V, ref_V, alpha=1.0).exp().tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_what_is_refused():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(RecipeError, match="alpha must be above 0, got 0"):
        soft_value(x, alpha=0)
    with pytest.raises(ShapeError, match=r"q_BTV \(2, 3\), ref_logp_BTV \(2,\)"):
        soft_policy(x, y, alpha=1.0)
    with pytest.raises(ShapeError, match=r"second_q_BTV \(2,\)"):
        twin_minimum(x, y)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        soft_target(x, x, x, x)
    with pytest.raises(ShapeError, match=r"token_BT \(2, 3\) must have one id for each row of q_BTV \(2, 3\)"):
        q_loss(x, x.long(), x)
