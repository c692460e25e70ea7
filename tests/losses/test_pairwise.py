"""Bradley-Terry over pairs and over K ranked answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.losses import bradley_terry_loss, davidson_loss, pairs_of_ranks, pairwise_ranking_loss, tie_loss

quick = settings(deadline=None, max_examples=60, derandomize=True)
ranking = st.lists(st.integers(1, 5), min_size=1, max_size=5)
LOG3 = math.log(3)


def scores(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pair_by_hand():
    # sigmoid(log 3) = 3/4, so -log is log(4/3); at 0 it is 1/2; at -log 3 it is 1/4
    got = bradley_terry_loss(torch.tensor([LOG3, 1.0, -LOG3]), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(got, torch.tensor([4 / 3, 2.0, 4.0]).log())


def test_pair_gradient_by_hand():
    better_M, worse_M = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (LOG3, 0.0))
    bradley_terry_loss(better_M, worse_M).sum().backward()
    torch.testing.assert_close(better_M.grad, torch.tensor([-0.25], dtype=torch.float64))  # -(1 - 3/4)
    torch.testing.assert_close(worse_M.grad, torch.tensor([0.25], dtype=torch.float64))


def test_far_apart_scores_stay_finite():
    got = bradley_terry_loss(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]))
    assert got.tolist() == [2e4, 0.0]


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-99, 99))
@quick
def test_only_differences_matter_and_sides_exchange(better, worse, shift):
    one, other = (torch.tensor([x], dtype=torch.float64) for x in (better, worse))
    torch.testing.assert_close(bradley_terry_loss(one + shift, other + shift), bradley_terry_loss(one, other))
    both = (-bradley_terry_loss(one, other)).exp() + (-bradley_terry_loss(other, one)).exp()
    torch.testing.assert_close(both, torch.ones(1, dtype=torch.float64))  # one of the two wins


def test_pairs_by_hand():
    pairs = pairs_of_ranks([[2, 1, 3], [1, 1], [2, 1, 2], [1]])
    # judgement 0: answer 1 beats 0 and 2, 0 beats 2. 1: tied. 2: answers 5, 6, 7; 6 beats both. 3: alone
    got = list(zip(pairs.better_M.tolist(), pairs.worse_M.tolist(), pairs.judgement_M.tolist(), strict=True))
    assert got == [(1, 0, 0), (0, 2, 0), (1, 2, 0), (6, 5, 2), (6, 7, 2)]
    assert pairs.weight_M.tolist() == [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]
    assert (pairs.answers, pairs.judgements, pairs.paired) == (9, 4, 2)


def test_ranking_by_hand():
    score_B = torch.tensor([LOG3, 0.0, 0.0, 5.0, -5.0, 0.0, LOG3, 0.0], dtype=torch.float64)
    pairs = pairs_of_ranks([[1, 2, 3], [1, 1], [2, 1, 2]])
    # judgement 0: log(4/3) twice and log 2, over 3. 1: tied. 2: log(4/3) twice, over 2
    expected = [(2 * math.log(4 / 3) + math.log(2)) / 3, 0.0, math.log(4 / 3)]
    expected_J = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(pairwise_ranking_loss(score_B, pairs), expected_J, rtol=1e-12, atol=0.0)


@given(ranks=st.lists(ranking, min_size=1, max_size=4))
@quick
def test_equals_a_double_loop(ranks):
    score_B = scores(sum(map(len, ranks)))
    expected, rest = [], score_B.tolist()
    for given_ranks in ranks:
        own, rest = rest[: len(given_ranks)], rest[len(given_ranks) :]
        losses = [
            math.log1p(math.exp(own[lose] - own[win]))
            for win, lose in itertools.permutations(range(len(own)), 2)
            if given_ranks[win] < given_ranks[lose]
        ]
        expected.append(sum(losses) / len(losses) if losses else 0.0)
    pairs = pairs_of_ranks(ranks)
    torch.testing.assert_close(pairwise_ranking_loss(score_B, pairs), torch.tensor(expected, dtype=torch.float64))
    assert pairs.paired == sum(len(set(r)) > 1 for r in ranks)


@given(ranks=st.lists(ranking, min_size=1, max_size=4), shift=st.floats(-50, 50), seed=st.integers(0, 9))
@quick
def test_a_constant_per_judgement_changes_nothing(ranks, shift, seed):
    score_B, pairs = scores(sum(map(len, ranks)), seed), pairs_of_ranks(ranks)
    shift_B = torch.cat([torch.full((len(r),), shift * j, dtype=torch.float64) for j, r in enumerate(ranks)])
    moved = pairwise_ranking_loss(score_B + shift_B, pairs)
    torch.testing.assert_close(moved, pairwise_ranking_loss(score_B, pairs), atol=1e-9, rtol=1e-9)


@given(ranks=st.lists(ranking, min_size=2, max_size=4), order=st.randoms(use_true_random=False))
@quick
def test_order_of_judgements_and_of_answers_changes_nothing(ranks, order):
    score_J = list(scores(sum(map(len, ranks))).split([len(r) for r in ranks]))
    base_J = pairwise_ranking_loss(torch.cat(score_J), pairs_of_ranks(ranks))
    js = list(range(len(ranks)))
    order.shuffle(js)
    ks = [order.sample(range(len(r)), len(r)) for r in ranks]
    moved_J = pairwise_ranking_loss(
        torch.cat([score_J[j][ks[j]] for j in js]), pairs_of_ranks([[ranks[j][k] for k in ks[j]] for j in js])
    )
    torch.testing.assert_close(moved_J, base_J[js])


@given(ranks=st.lists(ranking, min_size=2, max_size=5), cut=st.integers(1, 4))
@quick
def test_a_split_into_micro_batches_changes_nothing(ranks, cut):
    parts = [part for part in (ranks[:cut], ranks[cut:]) if part]
    whole_B = scores(sum(map(len, ranks))).requires_grad_()
    split_B = whole_B.detach().clone().requires_grad_()
    pieces = split_B.split([sum(map(len, part)) for part in parts])
    losses = [pairwise_ranking_loss(s, pairs_of_ranks(p)) for s, p in zip(pieces, parts, strict=True)]
    whole_J = pairwise_ranking_loss(whole_B, pairs_of_ranks(ranks))
    assert torch.equal(torch.cat(losses), whole_J)
    whole_J.sum().backward()
    torch.cat(losses).sum().backward()
    assert split_B.grad is not None
    assert whole_B.grad is not None
    assert torch.equal(split_B.grad, whole_B.grad)
    assert sum(pairs_of_ranks(p).paired for p in parts) == pairs_of_ranks(ranks).paired


def test_gradient_of_a_judgement_adds_up_to_zero_and_stays_inside_it():
    score_B = scores(7).requires_grad_()
    pairwise_ranking_loss(score_B, pairs_of_ranks([[3, 1, 2], [1, 2, 2, 4]]))[0].backward()
    assert score_B.grad is not None
    assert score_B.grad[:3].sum().abs() < 1e-15
    assert score_B.grad[0] > 0 > score_B.grad[1]  # minimising lowers the last and raises the first
    assert score_B.grad[3:].tolist() == [0, 0, 0, 0]


def test_keeps_the_type_of_the_scores():
    assert pairwise_ranking_loss(torch.zeros(2), pairs_of_ranks([[1, 2]])).dtype == torch.float32


def test_two_answers_are_a_comparison():
    score_B = scores(2)
    pair = pairwise_ranking_loss(score_B, pairs_of_ranks([[2, 1]]))
    torch.testing.assert_close(pair, bradley_terry_loss(score_B[1:], score_B[:1]))


def test_wins_and_losses_fix_the_score_in_closed_form():
    # one prompt, two answers; 3 of 4 people prefer the first: score difference log(3/1)
    difference = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([difference], line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0)
    pairs = pairs_of_ranks([[1, 2]] * 3 + [[2, 1]])

    def closure() -> Tensor:
        optimiser.zero_grad()
        score_B = torch.cat([difference, torch.zeros(1, dtype=torch.float64)]).repeat(4)
        loss = pairwise_ranking_loss(score_B, pairs).sum() / pairs.paired
        loss.backward()
        return loss

    optimiser.step(closure)
    assert difference.item() == pytest.approx(LOG3, abs=1e-6)


# ties


def test_ties_by_hand():
    # worths 4 and 1, nu = e^tie = 1: 4 / (4 + 1 + sqrt 4) = 4/7, 1/7 for the other, 2/7 for a tie
    one, other, tie = (torch.tensor(x, dtype=torch.float64) for x in ([math.log(4)], [0.0], 0.0))
    losses = (davidson_loss(one, other, tie), davidson_loss(other, one, tie), tie_loss(one, other, tie))
    torch.testing.assert_close(torch.cat(losses), torch.tensor([7 / 4, 7.0, 7 / 2], dtype=torch.float64).log())


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-9, 9))
@quick
def test_of_the_three_outcomes_one_happens(first, second, tied):
    one, other, tie = (torch.tensor(x, dtype=torch.float64) for x in ([first], [second], tied))
    losses = (davidson_loss(one, other, tie), davidson_loss(other, one, tie), tie_loss(one, other, tie))
    assert sum((-loss).exp().item() for loss in losses) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(tie_loss(one, other, tie), tie_loss(other, one, tie))
    given_a_winner = losses[0] - torch.log1p(-(-losses[2]).exp()).neg()
    torch.testing.assert_close(given_a_winner, bradley_terry_loss(one, other), atol=1e-6, rtol=1e-6)


def test_where_nobody_ties_it_is_bradley_terry():
    one_M, other_M = scores(5), scores(5, seed=1)
    without = davidson_loss(one_M, other_M, torch.tensor(-torch.inf, dtype=torch.float64))
    torch.testing.assert_close(without, bradley_terry_loss(one_M, other_M), rtol=1e-12, atol=1e-12)


def test_pairs_with_ties_by_hand():
    pairs = pairs_of_ranks([[2, 1, 2], [1, 1]], ties=True)
    got = list(zip(pairs.better_M.tolist(), pairs.worse_M.tolist(), pairs.tie_M.tolist(), strict=True))
    assert got == [(1, 0, False), (0, 2, True), (1, 2, False), (3, 4, True)]
    assert pairs.weight_M.tolist() == [1 / 3, 1 / 3, 1 / 3, 1.0]
    assert pairs.paired == 2


def test_ranking_with_ties_by_hand():
    # worths 1, 4, 1 and nu = 1: twice 4/7, and a tie of equals 1/3
    score_B = torch.tensor([0.0, math.log(4), 0.0], dtype=torch.float64)
    pairs = pairs_of_ranks([[2, 1, 2]], ties=True)
    got = pairwise_ranking_loss(score_B, pairs, tie=torch.zeros((), dtype=torch.float64))
    assert got.item() == pytest.approx((2 * math.log(7 / 4) + math.log(3)) / 3, rel=1e-12)


@given(ranks=st.lists(ranking, min_size=1, max_size=4), seed=st.integers(0, 9))
@quick
def test_a_tie_parameter_of_minus_infinity_changes_nothing(ranks, seed):
    score_B, pairs = scores(sum(map(len, ranks)), seed), pairs_of_ranks(ranks)
    never = torch.tensor(-torch.inf, dtype=torch.float64)
    torch.testing.assert_close(
        pairwise_ranking_loss(score_B, pairs, tie=never), pairwise_ranking_loss(score_B, pairs), rtol=1e-12, atol=1e-12
    )


def test_gradients_of_ties_are_finite_differences():
    score_B = scores(6).requires_grad_()
    tie = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    pairs = pairs_of_ranks([[1, 2, 2], [3, 1, 1]], ties=True)
    sure_J, margin_J = torch.tensor([0.9, 1.0]), torch.tensor([0.0, 0.5])
    assert torch.autograd.gradcheck(
        lambda s, t: pairwise_ranking_loss(s, pairs, tie=t, sure_J=sure_J, margin_J=margin_J), (score_B, tie)
    )


# margins and doubt


def test_margin_and_doubt_by_hand():
    # gap log 3 + 1 less a margin of 1 is log 3: log(4/3); doubted by 1/4, the other way round is -log 3 - 2
    score_B = torch.tensor([LOG3 + 1, 0.0], dtype=torch.float64)
    pairs, one = pairs_of_ranks([[1, 2]]), torch.ones(1, dtype=torch.float64)
    sure = pairwise_ranking_loss(score_B, pairs, margin_J=one).item()
    assert sure == pytest.approx(math.log(4 / 3), rel=1e-12)
    doubted = pairwise_ranking_loss(score_B, pairs, margin_J=one, sure_J=one * 0.75).item()
    assert doubted == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log1p(3 * math.e**2), rel=1e-12)


def test_doubt_is_what_the_other_verdict_would_say():
    # 3 of 4 people: the same as three verdicts one way and one the other
    score_B = scores(2)
    soft = pairwise_ranking_loss(score_B, pairs_of_ranks([[1, 2]]), sure_J=torch.tensor([0.75]))
    four = pairwise_ranking_loss(score_B.repeat(4), pairs_of_ranks([[1, 2]] * 3 + [[2, 1]]))
    torch.testing.assert_close(soft, four.mean()[None])


def test_what_is_refused():
    with pytest.raises(ShapeError, match="tie must be a scalar"):
        davidson_loss(torch.zeros(2), torch.zeros(2), torch.zeros(1))
    with pytest.raises(ShapeError, match="these pairs hold ties: give the tie parameter"):
        pairwise_ranking_loss(torch.zeros(2), pairs_of_ranks([[1, 1]], ties=True))
    with pytest.raises(ShapeError, match=r"margin_J \(2,\) must hold one number per judgement \(1\)"):
        pairwise_ranking_loss(torch.zeros(2), pairs_of_ranks([[1, 2]]), margin_J=torch.zeros(2))
    with pytest.raises(ShapeError, match=r"better_M \(3,\), worse_M \(2,\)"):
        bradley_terry_loss(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ShapeError, match=r"score_B \(4,\) must hold one score for each of 5 judged answers"):
        pairwise_ranking_loss(torch.zeros(4), pairs_of_ranks([[1, 2], [1, 2, 3]]))
    with pytest.raises(ShapeError, match="judgement 1 ranks no answer"):
        pairs_of_ranks([[1, 2], []])
