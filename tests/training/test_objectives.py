"""What the stages minimise: sums and denominators by hand, gradients by formula."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import torch
from torch import Tensor

from plaudit.batch import LossSum, Outputs, pack, select
from plaudit.training.objectives import (
    JudgedBatch,
    JudgementLoss,
    LanguageLoss,
    Said,
    TextBatch,
)
from plaudit.training.policy_loss import PolicyBatch, PolicyLoss

TREE = pack([((1, 2), [(3, 4, 5), (6,)]), ((7,), [(8, 9)])])
MASK_BT = TREE.mask_BT


def surprise(gap):
    """-log sigmoid(gap)."""
    return math.log1p(math.exp(-gap))


def gradient_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def metric(found: LossSum, name: str) -> tuple[float, float]:
    total, count = found.metrics[name]
    return float(total), count


def test_language_loss_by_hand():
    logp_BT = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -99.0, torch.nan], [-5.0, -6.0, 0.0]], requires_grad=True)
    found = LanguageLoss()(Outputs(logp=logp_BT), TextBatch(tree=TREE))
    assert float(found.total.detach()) == 21.0
    assert found.denominator == 6
    assert found.metrics["loss"][1] == 6
    found.total.backward()
    assert gradient_of(logp_BT).tolist() == [[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.0], [-1.0, -1.0, 0.0]]


def judged(*items, **changes):
    """Judgements as (kind, ranks or targets); one token for each answer."""
    sizes = [len(given) for _, given in items]
    ordered = [kind not in (Said.THUMB, Said.GRADE, Said.RATING) for kind, _ in items]
    given = {
        "tree": pack([((1,), [(2,)] * size) for size in sizes]),
        "said_P": torch.tensor([int(kind) for kind, _ in items]),
        "rank_B": torch.tensor([x if o else 0 for (_, own), o in zip(items, ordered, strict=True) for x in own]),
        "target_B": torch.tensor([0.0 if o else x for (_, own), o in zip(items, ordered, strict=True) for x in own]),
        "weight_P": torch.ones(len(items)),
        "margin_P": torch.zeros(len(items)),
        "sure_P": torch.ones(len(items)),
        "quality_P": torch.zeros(len(items), dtype=torch.long),
        "offset_B": torch.zeros(sum(sizes)),
    }
    return JudgedBatch(**{**given, **changes})


EVERY_KIND = (
    (Said.PAIRS, (1, 2, 2)),  # scores 1, 0, -1
    (Said.THUMB, (1.0,)),  # 0.5
    (Said.TIED_PAIRS, (2, 1, 1)),  # 0.3, 0.3, 2
    (Said.BEST_PAIRS, (2, 1, 2)),  # 0, 1, 1
    (Said.CHOICE, (2, 1, 2)),  # 0, 1, 1
    (Said.WHOLE, (3, 1, 2)),  # 0, 1, 1
    (Said.GRADE, (0.0, 2.0)),  # -1, 1
    (Said.RATING, (0.5, -1.0)),  # 1, -1
    (Said.THUMB, (0.0,)),  # 2
)
SCORES = (1.0, 0.0, -1.0, 0.5, 0.3, 0.3, 2.0, *(0.0, 1.0, 1.0) * 3, -1.0, 1.0, 1.0, -1.0, 2.0)
OTHERS = {"tie": torch.tensor(0.0), "cut": torch.tensor([-1.0, 1.0])}


def outputs(*scores: float) -> Outputs:
    return Outputs(score=torch.tensor(scores, requires_grad=True), **OTHERS)


def test_judgements_of_every_kind_in_one_batch():
    batch, said = judged(*EVERY_KIND), outputs(*SCORES)
    found = JudgementLoss(apart=True)(said, batch)
    e = math.exp
    expected = [
        (surprise(1.0) + surprise(2.0)) / 2,  # two ordered pairs of the three; the tie is none
        surprise(0.5),
        # Davidson with nu = 1: of 0.3 and 0.3 the second wins, 2 beats 0.3, and 0.3 and 2 are tied
        (math.log(3) + 2 * math.log(1 + e(0.85) + e(-0.85)) - 0.85) / 3,
        (surprise(1.0) + surprise(0.0)) / 2,
        math.log(1 + 2 * e(1)) - 1,
        math.log(1 + 2 * e(1)) - 1 + math.log(1 + e(1)) - 1,
        (surprise(0.0) + surprise(0.0)) / 2,  # at the cuts themselves
        (0.125 + 0.0) / 2,
        surprise(-2.0),
    ]
    for kind, name in ((Said.CHOICE, "choice of the best"), (Said.WHOLE, "whole ranking")):
        place = [own for own, _ in EVERY_KIND].index(kind)
        assert metric(found, f"loss/{name}") == pytest.approx((expected[place], 1), abs=1e-5)
    assert metric(found, "loss/thumb") == pytest.approx((expected[1] + expected[-1], 2), abs=1e-5)
    assert float(found.total.detach()) == pytest.approx(sum(expected), abs=1e-5)
    assert found.denominator == 9
    # of pairs: 2 of 2; 1.5 of 2; 1.5 of 2; 1.5 of 2; 2.5 of 3; of thumbs 1 of 2
    assert metric(found, "accuracy") == (10.0, 13.0)
    found.total.backward()
    grads = gradient_of(said.score_B).tolist()
    for start, size in ((0, 3), (4, 3), (7, 3), (10, 3), (13, 3)):
        assert sum(grads[start : start + size]) == pytest.approx(0, abs=1e-6)  # only differences matter
    assert grads[3] == pytest.approx(-1 / (1 + math.exp(0.5)))


def test_weight_margin_doubt_and_what_is_known_beforehand():
    batch = judged(
        (Said.PAIRS, (1, 2)),
        (Said.THUMB, (1.0,)),
        weight_P=torch.tensor([2.0, 0.5]),
        margin_P=torch.tensor([0.5, 0.0]),
        sure_P=torch.tensor([0.9, 0.8]),
        offset_B=torch.tensor([0.25, 0.0, 1.0]),
    )
    found = JudgementLoss()(outputs(1.0, 0.0, 0.5), batch)
    pair = 0.9 * surprise(1.25 - 0.5) + 0.1 * surprise(-1.25 - 0.5)
    thumb = 0.8 * surprise(1.5) + 0.2 * surprise(-1.5)
    assert float(found.total.detach()) == pytest.approx(2 * pair + 0.5 * thumb, abs=1e-5)
    assert found.denominator == 2.5
    assert "loss/thumb" not in found.metrics


def test_centring_pulls_the_mean_of_what_was_compared():
    batch = judged((Said.PAIRS, (1, 2)), (Said.THUMB, (1.0,)))
    plain, pulled = (JudgementLoss(centring=c)(outputs(3.0, 1.0, 5.0), batch) for c in (0.0, 0.1))
    assert float((pulled.total - plain.total).detach()) == pytest.approx(0.1 * 2.0**2, abs=1e-5)
    assert metric(pulled, "centring") == (4.0, 2)


def test_each_judgement_reads_the_score_that_it_is_about():
    batch = judged((Said.PAIRS, (1, 2)), (Said.THUMB, (1.0,)), quality_P=torch.tensor([1, 0]))
    score_BQ = torch.tensor([[9.0, 1.0], [-9.0, 0.5], [0.25, 7.0]], requires_grad=True)
    found = JudgementLoss()(Outputs(score=score_BQ), batch)
    assert float(found.total.detach()) == pytest.approx(surprise(0.5) + surprise(0.25), abs=1e-5)
    found.total.backward()
    assert (gradient_of(score_BQ) != 0).tolist() == [[False, True], [False, True], [True, False]]


def test_the_language_loss_is_about_praised_answers():
    tree = pack([((1,), [(2, 3), (4,)]), ((1,), [(5, 6)]), ((1,), [(7,)]), ((1,), [(8,)])])
    batch = judged((Said.PAIRS, (2, 1)), (Said.THUMB, (1.0,)), (Said.THUMB, (0.0,)), (Said.GRADE, (2.0,)), tree=tree)
    logp_BT = torch.tensor([[-9.0, -9.0], [-1.0, 0.0], [-2.0, -4.0], [-9.0, 0.0], [-9.0, 0.0]], requires_grad=True)
    score_B = torch.zeros(5)
    plain, found = (
        JudgementLoss(language=w)(Outputs(score=score_B, logp=logp_BT, **OTHERS), batch) for w in (0.0, 0.5)
    )
    assert float((found.total - plain.total).detach()) == pytest.approx(0.5 * (1.0 + 3.0), abs=1e-5)
    assert metric(found, "language_loss") == pytest.approx((4.0, 2), abs=1e-5)
    found.total.backward()
    assert gradient_of(logp_BT).tolist() == [[0, 0], [-0.5, 0], [-0.25, -0.25], [0, 0], [0, 0]]


@pytest.mark.parametrize("prompts", [[0], [1, 8], [2, 3, 4], [5, 6, 7], [0, 2, 4, 6, 8]])
def test_a_batch_of_judgements_adds_up(prompts):
    batch, score_B = judged(*EVERY_KIND), torch.tensor(SCORES)
    owner = batch.tree.prompt_of_answers()
    loss, parts = JudgementLoss(centring=0.2), []
    for mine in (prompts, [p for p in range(9) if p not in prompts]):
        rows = [row for row, p in enumerate(owner) if p in mine]
        parts.append(loss(Outputs(score=score_B[rows], **OTHERS), select(batch, rows)))
    whole = loss(Outputs(score=score_B, **OTHERS), batch)
    assert float(sum(part.total for part in parts)) == pytest.approx(float(whole.total), abs=1e-5)
    assert sum(part.denominator for part in parts) == whole.denominator


def policy_batch(old_logp_BT, advantage_BT, return_BT=None):
    return PolicyBatch(
        tree=TREE,
        old_logp_BT=old_logp_BT,
        ref_logp_BT=torch.zeros_like(old_logp_BT),
        advantage_BT=advantage_BT,
        return_BT=torch.zeros_like(old_logp_BT) if return_BT is None else return_BT,
        value_BT=torch.zeros_like(old_logp_BT),
    )


def normal(seed):
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).masked_fill(~MASK_BT, 0.0)


def test_on_the_first_minibatch_the_gradient_is_reinforce():
    logp_BT, advantage_BT = (normal(1) - 3).requires_grad_(), normal(2)
    found = PolicyLoss(clip=0.2)(
        Outputs(logp=logp_BT, entropy=torch.ones(3, 3)), policy_batch(logp_BT.detach(), advantage_BT)
    )
    (found.total / found.denominator).backward()
    torch.testing.assert_close(logp_BT.grad, (-advantage_BT / 6).masked_fill(~MASK_BT, 0.0))
    assert metric(found, "kl_to_old") == (0.0, 6)
    assert metric(found, "ratio_moved") == (0.0, 6)
    assert metric(found, "clip_share") == (0.0, 6)


def test_an_entropy_bonus_lowers_the_loss():
    entropy_BT = torch.full((3, 3), 2.0, requires_grad=True)
    logp_BT = normal(1)
    found = PolicyLoss(clip=0.2, entropy=0.1)(
        Outputs(logp=logp_BT, entropy=entropy_BT), policy_batch(logp_BT, torch.zeros(3, 3))
    )
    assert float(found.total.detach()) == pytest.approx(-0.1 * 2.0 * 6)
    assert found.metrics["entropy"][0] == 12.0
    found.total.backward()
    torch.testing.assert_close(entropy_BT.grad, -0.1 * MASK_BT.float())


def test_a_critics_loss_is_weighed_and_kept_apart():
    value_BT, return_BT = normal(3).requires_grad_(), normal(4)
    logp_BT = normal(1).requires_grad_()
    loss = PolicyLoss(clip=0.2, value_weight=0.25)
    assert loss.needs.value
    assert not PolicyLoss(clip=0.2).needs.value
    found = loss(
        Outputs(logp=logp_BT, entropy=torch.zeros(3, 3), value=value_BT),
        policy_batch(logp_BT.detach(), torch.zeros(3, 3), return_BT),
    )
    squared = float(((value_BT - return_BT)[MASK_BT] ** 2).sum().detach()) / 2
    assert float(found.total.detach()) == pytest.approx(0.25 * squared, abs=1e-5)
    assert float(found.metrics["value_loss"][0]) == pytest.approx(squared, abs=1e-5)
    found.total.backward()
    torch.testing.assert_close(value_BT.grad, (0.25 * (value_BT - return_BT)).detach().masked_fill(~MASK_BT, 0.0))
    assert not gradient_of(logp_BT).any()


def test_the_clip_and_the_distance_by_hand():
    old_logp_BT = torch.full((3, 3), -2.0)
    ratio_BT = torch.tensor([[1.5, 1.1, 0.5], [0.7, 1.0, 1.0], [1.0, 1.0, 1.0]])
    advantage_BT = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [2.0, -1.0, 7.0]])
    found = PolicyLoss(clip=0.2)(
        Outputs(logp=old_logp_BT + ratio_BT.log(), entropy=torch.zeros(3, 3)), policy_batch(old_logp_BT, advantage_BT)
    )
    # 1.2 held, 1.1, .5; -0.8 held; 2, -1: what is behind an answer's end (7) does not count
    assert float(found.total) == pytest.approx(-(1.2 + 1.1 + 0.5 - 0.8 + 2.0 - 1.0), abs=1e-5)
    assert metric(found, "clip_share") == (2.0, 6)
    # KL(old || new) by k3: ratio - 1 - log ratio
    expected = sum(r - 1 - math.log(r) for r in (1.5, 1.1, 0.5, 0.7))
    assert float(found.metrics["kl_to_old"][0]) == pytest.approx(expected, abs=1e-5)
    assert float(found.metrics["ratio_moved"][0]) == pytest.approx(0.5 + 0.1 + 0.5 + 0.3, abs=1e-5)


def test_a_bad_tokens_loss_is_bounded_by_the_dual_clip():
    """At advantage -1 a ratio of 5 costs 5, and 3 under `dual_clip: 3`; at 1.1 it costs 1.1 either way."""
    old_logp_BT = torch.full((3, 3), -2.0)
    ratio_BT = torch.tensor([[5.0, 1.1, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    advantage_BT = torch.where(ratio_BT > 1, -1.0, 0.0)
    outputs = Outputs(logp=old_logp_BT + ratio_BT.log(), entropy=torch.zeros(3, 3))
    plain, bounded = (
        PolicyLoss(clip=0.2, dual_clip=bound)(outputs, policy_batch(old_logp_BT, advantage_BT)) for bound in (None, 3.0)
    )
    assert float(plain.total) == pytest.approx(5 + 1.1, abs=1e-5)
    assert float(bounded.total) == pytest.approx(3 + 1.1, abs=1e-5)
    assert metric(bounded, "clip_share") == (1.0, 6)


def test_k3_by_the_ratio_costs_what_it_says():
    """Old, new, reference at -2, -1, -3 nats: rho = e, d = 2, and e (exp(-2) + 1) a token of six, half of that."""
    old_logp_BT = torch.full((3, 3), -2.0)
    batch = dataclasses.replace(
        policy_batch(old_logp_BT, torch.zeros(3, 3)), ref_logp_BT=torch.full_like(old_logp_BT, -3.0)
    )
    outputs = Outputs(logp=old_logp_BT + 1, entropy=torch.zeros(3, 3))
    found = PolicyLoss(beta=0.5, estimator="ratio-k3")(outputs, batch)
    assert float(found.total) == pytest.approx(6 * 0.5 * math.e * (math.exp(-2) + 1), rel=1e-5)


def test_the_critics_clip_is_counted():
    """Of moves by 1, 1, -1 and 0.1 the clip of 0.2 decides the first: two go away from their returns, one is short."""
    tree = pack([((1,), [(3, 4, 5, 6)])])
    zero_BT, value_BT = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, 0.1]])
    batch = PolicyBatch(
        tree=tree,
        old_logp_BT=zero_BT,
        ref_logp_BT=zero_BT,
        advantage_BT=zero_BT,
        return_BT=torch.tensor([[2.0, -1.0, 0.0, 2.0]]),
        value_BT=zero_BT,
    )
    outputs = Outputs(logp=zero_BT, entropy=zero_BT, value=value_BT)
    found = PolicyLoss(value_weight=1.0, value_clip=0.2)(outputs, batch)
    assert metric(found, "value_clip_share") == (1.0, 4)
    assert float(found.total) == pytest.approx(1.8**2 / 2 + 2**2 / 2 + 1 / 2 + 1.9**2 / 2)
    assert "value_clip_share" not in PolicyLoss(value_weight=1.0)(outputs, batch).metrics


def test_what_stands_behind_an_answers_end_is_in_no_statistic():
    loss = PolicyLoss(beta=0.1, value_weight=0.5, value_clip=0.1, entropy=0.01)

    def said(behind):
        """Every number of the batch and of the outputs is this one where no token is."""
        values = [normal(seed).masked_fill(~MASK_BT, behind) for seed in range(6)]
        logp_BT, old_BT, ref_BT, value_BT, return_BT, advantage_BT = values
        batch = dataclasses.replace(
            policy_batch(old_BT - 3, advantage_BT, return_BT), ref_logp_BT=ref_BT - 3, value_BT=return_BT / 2
        )
        found = loss(Outputs(logp=logp_BT - 3, entropy=logp_BT.abs(), value=value_BT), batch)
        return {name: (float(total), count) for name, (total, count) in found.metrics.items()}

    plain = said(0.0)
    assert set(plain) == {
        "policy_loss", "clip_share", "kl_to_old", "ratio_moved", "entropy", "kl_loss", "value_loss", "value_clip_share",
    }  # fmt: skip
    assert all(total != 0 and count == 6 for total, count in plain.values())  # six tokens in nine places
    assert said(50.0) == plain


def test_kl_in_the_loss_costs_what_it_says():
    """k2 of two nats away from the reference is 2; half of that per token, on top of a surrogate of 0."""
    logp_BT = torch.full((3, 3), -1.0)
    batch = dataclasses.replace(
        policy_batch(logp_BT, torch.zeros(3, 3)), ref_logp_BT=logp_BT - 2.0, old_logp_BT=logp_BT - 1.0
    )
    outputs = Outputs(logp=logp_BT, entropy=torch.zeros(3, 3))
    found = PolicyLoss(beta=0.5, estimator="k2")(outputs, batch)
    assert float(found.total) == pytest.approx(0.5 * 2.0 * 6)
    assert metric(found, "kl_loss") == (12.0, 6)
    old = PolicyLoss(beta=0.5, estimator="k2", against="old")(outputs, batch)
    assert float(old.total) == pytest.approx(0.5 * 0.5 * 6)
    full = PolicyLoss(beta=0.5, estimator="full")
    assert full.needs.distribution
    half, sure = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.8, 0.2]).log()
    given = dataclasses.replace(batch, ref_logp_BTV=half.expand(3, 3, 2))
    found = full(dataclasses.replace(outputs, distribution=sure.expand(3, 3, 2)), given)
    kl = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert float(found.total) == pytest.approx(0.5 * kl * 6, abs=1e-6)


def test_losses_cross_process_borders():
    for loss in (LanguageLoss(), JudgementLoss(), PolicyLoss(clip=0.1, value_weight=0.5, entropy=0.01)):
        assert pickle.loads(pickle.dumps(loss)) == loss
