"""Rewards, returns and GAE."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.advantages import (
    gae,
    last_token,
    next_selected,
    per_token,
    per_turn,
    reward_to_go,
    token_rewards,
    turn_returns,
)
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


# turns and whole answers


def test_next_selected_by_hand():
    x_BT = torch.tensor([[1.0, 2.0, 4.0], [1.0, NAN, 4.0], [NAN, 3.0, NAN]])
    close(next_selected(x_BT, mask("xxx", "x.x", ".x.")), [[2, 4, 0], [4, 4, 0], [3, 0, 0]])


def test_turn_returns_by_hand():
    # discount 1/2: 4; 2 + 4/2; 1 + 4/2. A conversation of one turn has its own reward
    reward_BU = torch.tensor([[1.0, 2.0, 4.0], [3.0, NAN, NAN]])
    return_BU = turn_returns(reward_BU, mask("xxx", "x.."), discount=0.5)
    close(return_BU, [[3, 4, 4], [3, 0, 0]])
    # tokens: turn 0, somebody's question, turn 1, turn 2; padding at the end
    turn_BT = torch.tensor([[0, 0, -1, 1, 2], [-1, 0, 0, -1, -1]])
    close(per_turn(return_BU, turn_BT), [[3, 3, 0, 4, 4], [0, 3, 3, 0, 0]])


@given(seed=st.integers(0, 99))
@quick
def test_without_discount_a_turn_earns_what_its_tokens_earn(seed):
    # rewards on the last token of each turn: what is to be earned from any token of it on is the turn's return
    mask_BU = lengths(seed, 4, 3)
    reward_BU = normal(4, 3, seed=seed)
    turn_BT = torch.tensor([0, -1, 1, 1, -1, 2, 2, 2]).expand(4, -1)
    turn_BT = torch.where(turn_BT < mask_BU.sum(-1, keepdim=True), turn_BT, -1)
    last_T = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1]).bool()
    token_reward_BT = per_turn(reward_BU, turn_BT).masked_fill(~last_T, 0.0)
    got_BT = per_turn(turn_returns(reward_BU, mask_BU), turn_BT)
    torch.testing.assert_close(got_BT, reward_to_go(token_reward_BT, turn_BT >= 0))


def test_one_number_for_every_token():
    advantage_B = torch.tensor([2.0, -1.0], requires_grad=True)
    got_BT = per_token(advantage_B, mask("xx.", ".x."))
    close(got_BT, [[2, 2, 0], [0, -1, 0]])
    assert not got_BT.requires_grad
    turn_BT = torch.tensor([[0, 0, -1], [-1, 0, -1]])
    assert torch.equal(per_turn(advantage_B.unsqueeze(-1), turn_BT), got_BT)  # a conversation of one turn
    assert not per_turn(advantage_B.unsqueeze(-1), turn_BT).requires_grad
    assert not turn_returns(advantage_B.unsqueeze(-1), mask("x", "x")).requires_grad


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
    with pytest.raises(ShapeError, match=r"x_BT \(2, 3\), mask_BT \(2, 2\)"):
        next_selected(x, m[:, :2])
    with pytest.raises(ShapeError, match=r"advantage_B \(3,\) must hold one for each row of mask_BT \(2, 3\)"):
        per_token(torch.zeros(3), m)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        per_token(y, x)
    with pytest.raises(ShapeError, match=r"reward_BU \(2, 3\), mask_BU \(2, 2\)"):
        turn_returns(x, m[:, :2])
    with pytest.raises(ShapeError, match="mask_BU must hold booleans"):
        turn_returns(x, x)
    with pytest.raises(ShapeError, match=r"x_BU \(2, 3\) and turn_BT \(1, 3\) must have the same rows"):
        per_turn(x, torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"turn_BT names turns 0 to 3; x_BU \(2, 3\) has 0 to 2"):
        per_turn(x, torch.tensor([[0, 3], [1, 1]]))
    with pytest.raises(ShapeError, match=r"turn_BT names turns -2 to 1"):
        per_turn(x, torch.tensor([[0, -2], [1, 1]]))
