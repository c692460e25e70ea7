"""From rewards to advantages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.advantages import gae, group_mean, last_token, leave_one_out, reward_to_go, token_rewards, whiten
from plaudit.errors import ShapeError

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


# rewards


def test_last_token_by_hand():
    assert last_token(mask("xx..", "xxxx", ".x..", "x.x.")).tolist() == [1, 3, 1, 2]


def test_token_rewards_by_hand():
    kl_BT = torch.tensor([[0.5, 1.0, NAN], [0.25, NAN, NAN], [NAN, -2.0, 4.0]])
    got = token_rewards(torch.tensor([2.0, 5.0, -1.0]), kl_BT, mask("xx.", "x..", ".xx"), beta=0.1)
    # -0.1 kl, and the score on the last token of each row
    close(got, [[-0.05, 2 - 0.1, 0.0], [5 - 0.025, 0.0, 0.0], [0.0, 0.2, -1 - 0.4]])


def test_token_rewards_carry_no_gradient():
    score_B, kl_BT = torch.ones(1, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    assert not token_rewards(score_B, kl_BT, mask("xx"), beta=0.1).requires_grad


@given(seed=st.integers(0, 99), beta=st.floats(0, 2))
@quick
def test_token_rewards_add_up_to_score_less_cost(seed, beta):
    score_B, kl_BT, mask_BT = normal(4, seed=seed), normal(4, 6, seed=seed + 1), lengths(seed, 4, 6)
    got_BT = token_rewards(score_B, kl_BT, mask_BT, beta=beta)
    torch.testing.assert_close(got_BT.sum(-1), score_B - beta * (kl_BT * mask_BT).sum(-1))


def test_the_score_reaches_the_last_token_undiscounted():
    # lambda 0 and values 0: what a token gets is its own reward. One slot later and the last real token would get 0.
    mask_BT = mask("xxx..", "x....")
    reward_BT = token_rewards(torch.tensor([7.0, 3.0]), torch.zeros(2, 5), mask_BT, beta=0.5)
    got = gae(reward_BT, torch.zeros(2, 5), mask_BT, discount=0.5, lambda_=0.0)
    close(got.advantage_BT, [[0, 0, 7, 0, 0], [3, 0, 0, 0, 0]])


# returns and GAE


def test_reward_to_go_by_hand():
    reward_BT = torch.tensor([[1.0, 2.0, 4.0], [1.0, NAN, 4.0], [3.0, NAN, NAN]])
    got = reward_to_go(reward_BT, mask("xxx", "x.x", "x.."), discount=0.5)
    # 4; 2 + 4/2; 1 + 4/2. With a hole: 4; 1 + 4/2. Alone: 3
    close(got, [[3, 4, 4], [3, 0, 4], [3, 0, 0]])


def test_gae_by_hand():
    # discount 1/2, lambda 1/2. Row 0: delta = 1 + 4/2 - 2 = 1 and 3 + 0 - 4 = -1; advantage_1 = -1, advantage_0 =
    # 1 + (1/4)(-1) = 3/4. Row 1 is one token long: 5 - 2 = 3. Row 2 is row 0 with somebody else's token between.
    reward_BT = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN], [1.0, NAN, 3.0]])
    value_BT = torch.tensor([[2.0, 4.0, NAN], [2.0, NAN, NAN], [2.0, NAN, 4.0]])
    got = gae(reward_BT, value_BT, mask("xx.", "x..", "x.x"), discount=0.5, lambda_=0.5)
    close(got.advantage_BT, [[0.75, -1, 0], [3, 0, 0], [0.75, 0, -1]])
    close(got.return_BT, [[2.75, 3, 0], [5, 0, 0], [2.75, 0, 3]])  # advantage + value


def test_gae_carries_no_gradient():
    reward_BT, value_BT = torch.ones(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    got = gae(reward_BT, value_BT, mask("xx"))
    assert not got.advantage_BT.requires_grad
    assert not got.return_BT.requires_grad
    assert not reward_to_go(reward_BT, mask("xx")).requires_grad


@given(seed=st.integers(0, 99), discount=st.floats(0.5, 1))
@quick
def test_gae_limits(seed, discount):
    reward_BT, value_BT, mask_BT = normal(4, 6, seed=seed), normal(4, 6, seed=seed + 1), lengths(seed, 4, 6)
    to_go_BT = reward_to_go(reward_BT, mask_BT, discount=discount)
    far = gae(reward_BT, value_BT, mask_BT, discount=discount, lambda_=1.0)
    torch.testing.assert_close(far.advantage_BT, (to_go_BT - value_BT) * mask_BT)
    torch.testing.assert_close(far.return_BT, to_go_BT)
    near = gae(reward_BT, value_BT, mask_BT, discount=discount, lambda_=0.0)
    next_BT = F.pad((value_BT * mask_BT)[:, 1:], (0, 1))
    torch.testing.assert_close(near.return_BT, (reward_BT + discount * next_BT) * mask_BT)


@given(seed=st.integers(0, 99), lambda_=st.floats(0, 1))
@quick
def test_gae_is_the_sum_of_its_definition(seed, lambda_):
    reward_T, value_T, discount = normal(5, seed=seed), normal(5, seed=seed + 1), 0.9
    next_T = F.pad(value_T[1:], (0, 1))
    delta_T = reward_T + discount * next_T - value_T
    expected_T = torch.stack([sum((discount * lambda_) ** k * delta_T[t + k] for k in range(5 - t)) for t in range(5)])
    got = gae(reward_T[None], value_T[None], torch.ones(1, 5).bool(), discount=discount, lambda_=lambda_)
    torch.testing.assert_close(got.advantage_BT[0], expected_T)


@given(seed=st.integers(0, 99))
@quick
def test_a_right_critic_leaves_nothing_to_gain(seed):
    reward_BT, mask_BT = normal(3, 5, seed=seed), lengths(seed, 3, 5)
    value_BT = reward_to_go(reward_BT, mask_BT, discount=0.9)
    got = gae(reward_BT, value_BT, mask_BT, discount=0.9, lambda_=0.7)
    torch.testing.assert_close(got.advantage_BT, torch.zeros_like(reward_BT))


@given(seed=st.integers(0, 99), left=st.integers(0, 4), right=st.integers(0, 4), order=st.permutations(range(4)))
@quick
def test_padding_on_either_side_and_order_change_nothing(seed, left, right, order):
    reward_BT, value_BT, mask_BT = normal(4, 5, seed=seed), normal(4, 5, seed=seed + 1), lengths(seed, 4, 5)
    around = (left, right)
    base = gae(reward_BT, value_BT, mask_BT)
    moved = gae(
        F.pad(reward_BT, around, value=1e9)[order],
        F.pad(value_BT, around, value=1e9)[order],
        F.pad(mask_BT, around)[order],
    )
    assert torch.equal(moved.advantage_BT, F.pad(base.advantage_BT, around)[order])
    assert torch.equal(moved.return_BT, F.pad(base.return_BT, around)[order])


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


@pytest.mark.parametrize("baseline", [leave_one_out, group_mean])
def test_a_group_of_one_is_refused_by_name(baseline):
    with pytest.raises(ShapeError, match=r"2 or more scored answers.*groups \[5\] of group_B keep 1"):
        baseline(torch.zeros(3), torch.tensor([4, 5, 4]))
    with pytest.raises(ShapeError, match=r"groups \[4, 5\]"):
        baseline(torch.zeros(4), torch.tensor([4, 5, 4, 5]), torch.tensor([True, True, False, False]))


@pytest.mark.parametrize("baseline", [leave_one_out, group_mean])
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
    score_B = torch.ones(2, requires_grad=True)
    assert not leave_one_out(score_B, torch.zeros(2)).requires_grad
    assert not group_mean(score_B, torch.zeros(2)).requires_grad


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


# refusals


def test_what_is_refused():
    x, y, m = torch.zeros(2, 3), torch.zeros(2), mask("xx.", "...")
    with pytest.raises(ShapeError, match=r"mask_BT selects no token in rows \[1\]"):
        token_rewards(y, x, m, beta=0.1)
    with pytest.raises(ShapeError, match=r"kl_BT \(2, 3\), mask_BT \(2, 2\)"):
        token_rewards(y, x, m[:, :2], beta=0.1)
    with pytest.raises(ShapeError, match=r"score_B \(3,\) must hold one score for each row of mask_BT \(2, 3\)"):
        token_rewards(torch.zeros(3), x, mask("xx.", "x.."), beta=0.1)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        last_token(x)
    with pytest.raises(ShapeError, match=r"reward_BT \(2,\), mask_BT \(2, 3\)"):
        reward_to_go(y, m)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        reward_to_go(x, x)
    with pytest.raises(ShapeError, match=r"value_BT \(2,\)"):
        gae(x, y, m)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        gae(x, x, x)
    with pytest.raises(ShapeError, match=r"score_B \(2,\), group_B \(3,\)"):
        leave_one_out(y, torch.zeros(3))
    with pytest.raises(ShapeError, match="keep_B must hold booleans"):
        leave_one_out(y, y, y)
    with pytest.raises(ShapeError, match=r"x_BT \(2,\)"):
        whiten(y, m)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        whiten(x, x)
    with pytest.raises(ShapeError, match="mask_BT selects no token"):
        whiten(x, torch.zeros(2, 3).bool())
