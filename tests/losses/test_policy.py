"""REINFORCE, importance weights, the surrogates of TRPO, PPO and GSPO, entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.advantages import per_token
from plaudit.errors import RecipeError, ShapeError
from plaudit.losses import (
    clipped_surrogate,
    dual_clipped_surrogate,
    entropy,
    mean_of,
    ratio_surrogate,
    reinforce_loss,
    sequence_clipped_surrogate,
    sequence_portion,
    sequence_ratio,
    sequence_weights,
    token_weights,
    weighted_reinforce_loss,
)

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


@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_where_a_clip_holds_a_ratio_that_overflows_has_no_gradient(advantage):
    old_BT, mask_BT, high = torch.zeros(1, 200), torch.ones(1, 200).bool(), 0.2
    still = {1.0: 1 + high, 0.0: 0.0, -1.0: -3.0}[advantage]

    def gradient(loss):
        logp_BT = torch.full((1, 200), 94.0, requires_grad=True)
        found = loss(logp_BT)
        found.sum().backward()
        assert torch.equal(found.detach(), torch.full_like(found, -still))
        return logp_BT.grad

    advantage_BT = torch.full((1, 200), advantage)
    assert not gradient(lambda logp_BT: dual_clipped_surrogate(logp_BT, old_BT, advantage_BT).loss_BT).any()
    if advantage >= 0:
        assert not gradient(lambda logp_BT: clipped_surrogate(logp_BT, old_BT, advantage_BT).loss_BT).any()
        assert not gradient(
            lambda logp_BT: (
                sequence_clipped_surrogate(
                    logp_BT, old_BT, advantage_BT[:, 0], mask_BT, low=high, high=high, rooted=False
                ).loss_B
            )
        ).any()


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


# answers that an older policy sampled

NAN = float("nan")


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def numbers(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_importance_weights_by_hand():
    logp_BT, old_logp_BT = logs([0.6, 0.2, NAN], [0.1, 0.5, 0.9]), logs([0.2, 0.4, NAN], [0.4, 0.5, 0.3])
    mask_BT = torch.tensor([[True, True, False], [True, False, True]])
    # 0.6/0.2, 0.2/0.4; 0.1/0.4, 0.5/0.5, 0.9/0.3
    torch.testing.assert_close(token_weights(logp_BT, old_logp_BT)[0, :2], numbers([3, 0.5])[0])
    torch.testing.assert_close(token_weights(logp_BT, old_logp_BT)[1], numbers([0.25, 1, 3])[0])
    torch.testing.assert_close(token_weights(logp_BT, old_logp_BT, truncate=2.0)[1], numbers([0.25, 1, 2])[0])
    # 3 x 0.5; 0.25 x 3: the middle token is another speaker's
    torch.testing.assert_close(sequence_weights(logp_BT, old_logp_BT, mask_BT), numbers([1.5, 0.75])[0])
    torch.testing.assert_close(sequence_weights(logp_BT, old_logp_BT, mask_BT, truncate=1.0), numbers([1, 0.75])[0])


def test_weights_carry_no_gradient():
    logp_BT, old_logp_BT = logs([0.6, 0.2]).requires_grad_(), logs([0.2, 0.4]).requires_grad_()
    assert not token_weights(logp_BT, old_logp_BT).requires_grad
    assert not sequence_weights(logp_BT, old_logp_BT, torch.ones(1, 2).bool()).requires_grad


@pytest.mark.parametrize("truncate", [None, 1.5])
def test_a_weight_pushes_where_a_surrogate_stands_still(truncate):
    # ratios 3 and 0.5, advantages 2 and -1
    weighted_BT, surrogate_BT = logs([0.6, 0.2]).requires_grad_(), logs([0.6, 0.2]).requires_grad_()
    old_logp_BT, advantage_BT = logs([0.2, 0.4]).requires_grad_(), numbers([2, -1]).requires_grad_()
    weight_BT = token_weights(weighted_BT, old_logp_BT, truncate=truncate)
    weighted_reinforce_loss(weighted_BT, advantage_BT, weight_BT).sum().backward()
    loss_BT = ratio_surrogate(surrogate_BT, old_logp_BT, advantage_BT, truncate=truncate)
    loss_BT.sum().backward()
    cap = 3.0 if truncate is None else truncate
    torch.testing.assert_close(loss_BT.detach(), numbers([-cap * 2, 0.5]))
    torch.testing.assert_close(weighted_BT.grad, numbers([-cap * 2, 0.5]))  # -weight x advantage
    torch.testing.assert_close(surrogate_BT.grad, numbers([-6.0 if truncate is None else 0.0, 0.5]))
    assert old_logp_BT.grad is None
    assert advantage_BT.grad is None


@given(seed=st.integers(0, 99))
@quick
def test_at_ratio_one_every_surrogate_is_reinforce(seed):
    logp_BT, advantage_BT = normal(2, 4, 5, seed=seed)
    losses = {
        "weight": lambda x: weighted_reinforce_loss(x, advantage_BT, token_weights(x, logp_BT)),
        "ratio": lambda x: ratio_surrogate(x, logp_BT, advantage_BT),
        "two clips": lambda x: dual_clipped_surrogate(x, logp_BT, advantage_BT).loss_BT,
    }
    for loss in losses.values():
        x_BT = logp_BT.clone().requires_grad_()
        loss(x_BT).sum().backward()
        assert x_BT.grad is not None
        torch.testing.assert_close(x_BT.grad, -advantage_BT)


def test_two_clips_by_hand():
    ratio_BT = numbers([5, 2, 0.5, 5, 0.5])
    advantage_BT = numbers([-1, -1, -1, 1, 1])
    logp_BT = ratio_BT.log().requires_grad_()
    got = dual_clipped_surrogate(logp_BT, torch.zeros_like(ratio_BT), advantage_BT, bound=3.0)
    # below the floor 3 x -1; above it; PPO's clips at 0.8 and 1.2; free
    torch.testing.assert_close(got.loss_BT, numbers([3, 2, 0.8, -1.2, -0.5]))
    assert got.held_BT.tolist() == [[True, False, True, True, False]]
    torch.testing.assert_close(got.ratio_BT, ratio_BT)
    got.loss_BT.sum().backward()
    torch.testing.assert_close(logp_BT.grad, numbers([0, 2, 0, 0, -0.5]))


@given(seed=st.integers(0, 99))
@quick
def test_two_clips_are_the_maximum_of_their_definition(seed):
    logp_BT, old_logp_BT, advantage_BT = 2 * normal(3, 4, 5, seed=seed)
    inner_BT = -clipped_surrogate(logp_BT, old_logp_BT, advantage_BT).loss_BT
    floored_BT = torch.where(advantage_BT < 0, torch.maximum(inner_BT, 2.0 * advantage_BT), inner_BT)
    got = dual_clipped_surrogate(logp_BT, old_logp_BT, advantage_BT, bound=2.0)
    torch.testing.assert_close(got.loss_BT, -floored_BT)
    far = dual_clipped_surrogate(logp_BT, old_logp_BT, advantage_BT, bound=1e9)
    torch.testing.assert_close(far.loss_BT, -inner_BT)


# one ratio for each answer


def test_sequence_ratio_by_hand():
    logp_BT, old_logp_BT = logs([0.8, 0.2, NAN], [0.3, NAN, NAN]), logs([0.2, 0.2, NAN], [0.1, NAN, NAN])
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    # sqrt(4 x 1); 3
    torch.testing.assert_close(sequence_ratio(logp_BT, old_logp_BT, mask_BT), numbers([2, 3])[0])
    whole_B = sequence_ratio(logp_BT, old_logp_BT, mask_BT, rooted=False)  # 4 x 1; 3
    torch.testing.assert_close(whole_B, sequence_weights(logp_BT, old_logp_BT, mask_BT))
    torch.testing.assert_close(whole_B, numbers([4, 3])[0])


def test_sequence_surrogate_by_hand():
    # answers of 2, 1, 2, 1 tokens with ratios 2, 2, 0.5, 0.5
    logp_BT = logs([4, 1], [2, 1], [0.5, 0.5], [0.5, 1]).requires_grad_()
    mask_BT = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    advantage_B = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    got = sequence_clipped_surrogate(
        logp_BT, torch.zeros(4, 2, dtype=torch.float64), advantage_B, mask_BT, low=0.2, high=0.3
    )
    # -min(2, 1.3), -min(-2, -1.3), -min(0.5, 0.8), -min(-0.5, -0.8)
    torch.testing.assert_close(got.loss_B, numbers([-1.3, 2, -0.5, 0.8])[0])
    torch.testing.assert_close(got.ratio_B, numbers([2, 2, 0.5, 0.5])[0])
    assert got.held_B.tolist() == [True, False, False, True]
    got.loss_B.sum().backward()
    # -advantage x ratio / length where free
    torch.testing.assert_close(logp_BT.grad, numbers([0, 0], [2, 0], [-0.25, -0.25], [0, 0]))
    assert advantage_B.grad is None


def test_surrogate_of_whole_answers_by_hand():
    """As above, with ratios of 4, 2, 0.25, 0.5; where free the gradient is -advantage x ratio on every token."""
    logp_BT = logs([4, 1], [2, 1], [0.5, 0.5], [0.5, 1]).requires_grad_()
    mask_BT = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    old_logp_BT, advantage_B = torch.zeros(4, 2, dtype=torch.float64), numbers([1, -1, 1, -1])[0]
    got = sequence_clipped_surrogate(logp_BT, old_logp_BT, advantage_B, mask_BT, low=0.2, high=0.3, rooted=False)
    torch.testing.assert_close(got.loss_B, numbers([-1.3, 2, -0.25, 0.8])[0])
    got.loss_B.sum().backward()
    torch.testing.assert_close(logp_BT.grad, numbers([0, 0], [2, 0], [-0.25, -0.25], [0, 0]))


@given(seed=st.integers(0, 99), pad=st.integers(0, 4))
@quick
def test_before_the_first_step_one_ratio_is_reinforce_averaged_over_each_answer(seed, pad):
    logp_BT, advantage_B = normal(4, 5, seed=seed), normal(4, seed=seed + 1)
    mask_BT = torch.arange(5) < torch.tensor([[5], [3], [1], [2]])
    one_BT, other_BT = logp_BT.clone().requires_grad_(), logp_BT.clone().requires_grad_()
    around = torch.nn.functional.pad
    got = sequence_clipped_surrogate(
        around(one_BT, (0, pad), value=9.0), around(logp_BT, (0, pad)), advantage_B, around(mask_BT, (0, pad))
    )
    got.loss_B.mean().backward()
    mean_of([sequence_portion(reinforce_loss(other_BT, per_token(advantage_B, mask_BT)), mask_BT)]).backward()
    torch.testing.assert_close(one_BT.grad, other_BT.grad)
    assert torch.equal(got.ratio_B, torch.ones(4, dtype=torch.float64))


def test_answers_of_one_token_have_ppos_ratio():
    logp_BT, old_logp_BT, advantage_BT = normal(3, 6, 1)
    mask_BT = torch.ones(6, 1).bool()
    one = sequence_clipped_surrogate(logp_BT, old_logp_BT, advantage_BT[:, 0], mask_BT, low=0.2, high=0.2)
    ppo = clipped_surrogate(logp_BT, old_logp_BT, advantage_BT)
    torch.testing.assert_close(one.loss_B, ppo.loss_BT[:, 0])
    assert torch.equal(one.held_B, ppo.held_BT[:, 0])
    assert one.held_B.any()


# entropy


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
    with pytest.raises(ShapeError, match=r"weight_BT \(2,\)"):
        weighted_reinforce_loss(x, x, y)
    with pytest.raises(ShapeError, match=r"logp_BT \(2, 3\), old_logp_BT \(2,\)"):
        token_weights(x, y)
    with pytest.raises(RecipeError, match=r"truncate must be above 0, or None for no limit; got 0"):
        token_weights(x, x, truncate=0.0)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        sequence_weights(x, x, x)
    with pytest.raises(ShapeError, match=r"advantage_BT \(2,\)"):
        ratio_surrogate(x, x, y)
    with pytest.raises(RecipeError, match=r"bound must be above 1 \+ high = 1.2, got 1.1"):
        dual_clipped_surrogate(x, x, x, bound=1.1)
    with pytest.raises(ShapeError, match=r"mask_BT selects no token in rows \[1\]"):
        sequence_ratio(x, x, torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(ShapeError, match=r"advantage_B \(2, 3\) must hold one for each row of mask_BT \(2, 3\)"):
        sequence_clipped_surrogate(x, x, x, torch.ones(2, 3).bool())
