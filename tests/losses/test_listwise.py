"""The choice of the best of K, and Plackett-Luce over rankings with ties."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.losses import bradley_terry_loss, choice_loss, plackett_luce_loss
from plaudit.losses.listwise import LARGEST_TIE

quick = settings(deadline=None, max_examples=60, derandomize=True)
ranking = st.lists(st.integers(1, 4), min_size=1, max_size=6)
LOG2, LOG3 = math.log(2), math.log(3)


def scores(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def placed_one_by_one(score: list[float], ranks: list[int]) -> float:
    """The probability of a ranking by its definition: the sum over all orders that agree with it."""
    worth = [math.exp(s) for s in score]
    total = 0.0
    for order in itertools.permutations(range(len(score))):
        if any(ranks[a] > ranks[b] for a, b in itertools.pairwise(order)):
            continue
        chance, left = 1.0, sum(worth)
        for one in order:
            chance *= worth[one] / left
            left -= worth[one]
        total += chance
    return total


# the choice of the best


def test_choice_by_hand():
    # worths 3, 2, 1: the first is chosen with 3/6, the last with 1/6; of two equal ones each with 1/2
    score_B = torch.tensor([LOG3, LOG2, 0.0, LOG3, LOG2, 0.0, 7.0, 7.0])
    got_J = choice_loss(score_B, best=[0, 2, 1], sizes=[3, 3, 2])
    torch.testing.assert_close(got_J, torch.tensor([2.0, 6.0, 2.0]).log())


def test_doubted_choice_by_hand():
    # 0.7 of log(6/3), and 0.15 each of log(6/2) and log(6/1)
    score_B = torch.tensor([LOG3, LOG2, 0.0], dtype=torch.float64)
    got = choice_loss(score_B, best=[0], sizes=[3], sure_J=torch.tensor([0.7], dtype=torch.float64))
    assert got.item() == pytest.approx(0.7 * LOG2 + 0.15 * LOG3 + 0.15 * math.log(6), rel=1e-12)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
@quick
def test_gradient_of_the_choice_is_the_best_less_what_was_expected(sizes, seed):
    # -1/N sum (grad R_b - sum over k of P_k grad R_k): with grad R_k = e_k, entry k is -(1[k = b] - P_k) / N
    score_B = scores(sum(sizes), seed).requires_grad_()
    best = [seed % k for k in sizes]
    choice_loss(score_B, best, sizes).mean().backward()
    parts = []
    for own, b in zip(score_B.detach().split(sizes), best, strict=True):
        expected = own.exp() / own.exp().sum()
        expected[b] -= 1
        parts.append(expected / len(sizes))
    torch.testing.assert_close(score_B.grad, torch.cat(parts), rtol=1e-12, atol=1e-12)


def test_gradient_of_the_choice_through_a_reward_model():
    # the same identity for a linear reward R = w . x: the gradient of w, by hand and by autograd
    x_BD = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    w_D = scores(5, 4).requires_grad_()
    sizes, best = [4, 3], [2, 0]
    choice_loss(x_BD @ w_D, best, sizes).mean().backward()
    by_hand_D = torch.zeros(5, dtype=torch.float64)
    for x_KD, b in zip(x_BD.split(sizes), best, strict=True):
        probability_K = (x_KD @ w_D.detach()).softmax(0)
        by_hand_D -= (x_KD[b] - probability_K @ x_KD) / len(sizes)
    torch.testing.assert_close(w_D.grad, by_hand_D, rtol=1e-12, atol=1e-12)


@given(st.floats(-30, 30), st.floats(-30, 30), st.sampled_from([0, 1]))
@quick
def test_of_two_answers_the_choice_is_a_comparison(first, second, best):
    score_B = torch.tensor([first, second], dtype=torch.float64)
    one = choice_loss(score_B, [best], [2])
    torch.testing.assert_close(one, bradley_terry_loss(score_B[[best]], score_B[[1 - best]]))


# rankings


def test_ranking_by_hand():
    # worths 3, 2, 1 in this order: 3/6 * 2/3 * 1 = 1/3; the other way round 1/6 * 2/5 * 1 = 1/15
    score_B = torch.tensor([LOG3, LOG2, 0.0, LOG3, LOG2, 0.0])
    got_J = plackett_luce_loss(score_B, [[1, 2, 3], [3, 2, 1]])
    torch.testing.assert_close(got_J, torch.tensor([3.0, 15.0]).log())


def test_tied_ranking_by_hand():
    # worths 3, 2, 1, the first two tied before the last: 3/6 * 2/3 + 2/6 * 3/4 = 1/3 + 1/4 = 7/12
    got = plackett_luce_loss(torch.tensor([LOG3, LOG2, 0.0]), [[1, 1, 2]])
    torch.testing.assert_close(got, torch.tensor([12 / 7]).log())


@given(ranks=st.lists(ranking, min_size=1, max_size=3), seed=st.integers(0, 99))
@quick
def test_equals_the_sum_over_all_orders(ranks, seed):
    score_B = scores(sum(map(len, ranks)), seed)
    parts = score_B.split([len(given) for given in ranks])
    expected = [-math.log(placed_one_by_one(own.tolist(), given)) for own, given in zip(parts, ranks, strict=True)]
    got_J = plackett_luce_loss(score_B, ranks)
    torch.testing.assert_close(got_J, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_probabilities_of_all_rankings_add_up_to_one():
    score_B = scores(4)
    orders = list(itertools.permutations(range(1, 5)))
    assert (-plackett_luce_loss(score_B.repeat(len(orders)), orders)).exp().sum().item() == pytest.approx(1, abs=1e-12)
    pairs_first = [[1 if k in two else 2 for k in range(4)] for two in itertools.combinations(range(4), 2)]
    tied = plackett_luce_loss(score_B.repeat(len(pairs_first)), pairs_first)
    assert (-tied).exp().sum().item() == pytest.approx(1, abs=1e-12)  # some two of the four come first


@given(st.integers(2, 6), st.integers(0, 99))
@quick
def test_its_first_factor_is_the_choice(k, seed):
    score_B = scores(k, seed)
    first = plackett_luce_loss(score_B, [[1 if i == seed % k else 2 for i in range(k)]])
    torch.testing.assert_close(first, choice_loss(score_B, [seed % k], [k]))


@given(ranks=ranking, shift=st.floats(-50, 50), seed=st.integers(0, 9))
@quick
def test_a_constant_per_judgement_changes_nothing(ranks, shift, seed):
    score_B = scores(len(ranks), seed)
    moved, base = (plackett_luce_loss(score, [ranks]) for score in (score_B + shift, score_B))
    torch.testing.assert_close(moved, base, atol=1e-9, rtol=1e-9)


@given(ranks=st.lists(ranking, min_size=1, max_size=3), order=st.randoms(use_true_random=False))
@quick
def test_order_of_answers_changes_nothing(ranks, order):
    score_J = scores(sum(map(len, ranks))).split([len(r) for r in ranks])
    ks = [order.sample(range(len(r)), len(r)) for r in ranks]
    moved_J = plackett_luce_loss(
        torch.cat([own[k] for own, k in zip(score_J, ks, strict=True)]),
        [[r[i] for i in k] for r, k in zip(ranks, ks, strict=True)],
    )
    torch.testing.assert_close(moved_J, plackett_luce_loss(torch.cat(score_J), ranks))


@given(ranks=st.lists(ranking, min_size=2, max_size=4), cut=st.integers(1, 3))
@quick
def test_a_split_into_micro_batches_changes_nothing(ranks, cut):
    whole_B = scores(sum(map(len, ranks))).requires_grad_()
    parts = [part for part in (ranks[:cut], ranks[cut:]) if part]
    pieces = whole_B.split([sum(map(len, part)) for part in parts])
    split_J = torch.cat([plackett_luce_loss(s, p) for s, p in zip(pieces, parts, strict=True)])
    torch.testing.assert_close(split_J, plackett_luce_loss(whole_B, ranks))
    (of_split,) = torch.autograd.grad(split_J.sum(), whole_B, retain_graph=True)
    (of_whole,) = torch.autograd.grad(plackett_luce_loss(whole_B, ranks).sum(), whole_B)
    torch.testing.assert_close(of_split, of_whole)


@pytest.mark.parametrize("ranks", [[1, 2, 3], [1, 1, 2], [2, 1, 2, 1, 3], [1, 1, 1]])
def test_gradient_is_a_finite_difference_and_adds_up_to_zero(ranks):
    score_B = scores(len(ranks)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: plackett_luce_loss(s, [ranks]), score_B)
    plackett_luce_loss(score_B, [ranks]).sum().backward()
    assert score_B.grad is not None
    assert score_B.grad.sum().abs() < 1e-12


@pytest.mark.parametrize("gap", [1e3, 1e4])
def test_far_apart_scores_stay_finite(gap):
    score_B = torch.tensor([0.0, gap, 0.0, gap / 2], requires_grad=True)
    for ranks in ([1, 2, 3, 4], [1, 2, 1, 3], [1, 1, 1, 2], [2, 1, 2, 2]):
        loss = plackett_luce_loss(score_B, [ranks])
        (gradient,) = torch.autograd.grad(loss.sum(), score_B)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"score_B \(4,\) must hold one score for each of 5 answers"):
        choice_loss(torch.zeros(4), [0, 0], [2, 3])
    with pytest.raises(ShapeError, match="found 3 of 3"):
        choice_loss(torch.zeros(5), [0, 3], [2, 3])
    with pytest.raises(ShapeError, match=r"found the sizes \[2, 0\]"):
        plackett_luce_loss(torch.zeros(2), [[1, 2], []])
    many = LARGEST_TIE + 1
    with pytest.raises(ShapeError, match=f"judgement 0: {many} answers share the rank 1"):
        plackett_luce_loss(torch.zeros(many + 1), [[1] * many + [2]])
