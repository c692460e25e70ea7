"""What the stages minimise: sums and denominators by hand, gradients by formula."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from plaudit.batch import LossSum, Outputs, pack, select
from plaudit.training.objectives import JudgedBatch, JudgementLoss, LanguageLoss, PolicyBatch, PolicyLoss, TextBatch

TREE = pack([((1, 2), [(3, 4, 5), (6,)]), ((7,), [(8, 9)])])
MASK_BT = TREE.mask_BT()


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


def judged(*items):
    """Judgements as (ranks, or "up" or "down"); one token each."""
    texts = [((1,), [(2,)] * (len(item) if isinstance(item, tuple) else 1)) for item in items]
    return JudgedBatch(
        tree=pack(texts),
        rank_B=torch.tensor([rank for item in items for rank in (item if isinstance(item, tuple) else (0,))]),
        thumb_B=torch.tensor([item == "up" for item in items for _ in (item if isinstance(item, tuple) else (0,))]),
    )


def test_judgements_of_every_kind_in_one_batch():
    batch = judged((1, 2, 2), "up", (2, 1), "down", (1, 1))
    score_B = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.3, 0.3, 2.0, 9.0, -9.0], requires_grad=True)
    found = JudgementLoss()(Outputs(score=score_B), batch)
    expected = [
        (surprise(1.0) + surprise(2.0)) / 2,  # two ordered pairs of the three; the tie is none
        surprise(0.5),
        surprise(0.0),
        surprise(-2.0),
    ]
    assert float(found.total.detach()) == pytest.approx(sum(expected), abs=1e-5)
    assert found.denominator == 4  # the full tie says nothing
    # right: both pairs, the thumb up, half of the equal pair, not the thumb down
    assert metric(found, "accuracy") == (3.5, 5.0)
    found.total.backward()
    grads = gradient_of(score_B).tolist()
    assert sum(grads[:3]) == pytest.approx(0, abs=1e-6)  # only differences matter within a ranking
    assert grads[3] == pytest.approx(-1 / (1 + math.exp(0.5)))
    assert grads[6] == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert grads[7:] == [0.0, 0.0]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [4, 5], [6], [0, 1, 2, 4, 5, 6]])
def test_a_batch_of_judgements_adds_up(rows):
    batch = judged((1, 2, 2), "up", (2, 1), "down")
    score_B = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.3, 0.1, 2.0])
    others = [row for row in range(7) if row not in rows]
    parts = [JudgementLoss()(Outputs(score=score_B[r]), select(batch, r)) for r in (rows, others)]
    whole = JudgementLoss()(Outputs(score=score_B), batch)
    assert float(sum(part.total for part in parts)) == pytest.approx(float(whole.total), abs=1e-5)
    assert sum(part.denominator for part in parts) == whole.denominator


def policy_batch(old_logp_BT, advantage_BT, return_BT=None):
    return PolicyBatch(
        tree=TREE,
        old_logp_BT=old_logp_BT,
        advantage_BT=advantage_BT,
        return_BT=torch.zeros_like(old_logp_BT) if return_BT is None else return_BT,
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


def test_losses_cross_process_borders():
    for loss in (LanguageLoss(), JudgementLoss(), PolicyLoss(clip=0.1, value_weight=0.5, entropy=0.01)):
        assert pickle.loads(pickle.dumps(loss)) == loss
