"""PPG's auxiliary phase: what it keeps, what it teaches, and that the policy stays."""

from __future__ import annotations

import json

import pytest
import torch

from plaudit.batch import Needs, Outputs, pack, select
from plaudit.models.load import Machine
from plaudit.models.network import Critic, LanguageNetwork, new_head
from plaudit.models.packed import body_of
from plaudit.recipe import Optimiser
from plaudit.testing.tiny import tiny_model
from plaudit.training.auxiliary import AuxiliaryBatch, AuxiliaryLoss, Kept, auxiliary_phase
from plaudit.training.learner import ModelLearner
from plaudit.training.objectives import TextBatch
from plaudit.training.policy_loss import PolicyBatch
from plaudit.tuning import Auxiliary

CPU = Machine(device=torch.device("cpu"), bf16=False)
TREE = pack([((1, 5), [(3, 4, 2), (6, 7)]), ((1,), [(9, 8, 8, 2), (4,)])], names=["a", "b"])
RETURN_BT = torch.tensor([[1.0, 1.0, 1.0, 0.0], [-1.0, -1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [-2.0, 0.0, 0.0, 0.0]])


def learner_of():
    critic = Critic(new_head(32, bias=True, seed=0), body_of(tiny_model(seed=1)))
    network = LanguageNetwork(tiny_model(), critic, auxiliary=Critic(new_head(32, bias=True, seed=2)))
    optimiser = Optimiser(learning_rate=5e-3, warmup=0, decay="constant")
    return ModelLearner(network, optimiser, steps=99, machine=CPU, micro_tokens=8192)


def kept():
    nothing = torch.zeros(4, 4)
    batch = PolicyBatch(
        tree=TREE,
        old_logp_BT=nothing,
        ref_logp_BT=nothing,
        advantage_BT=nothing,
        return_BT=RETURN_BT,
        value_BT=nothing,
    )
    return Kept.of(batch)


def test_what_is_kept_comes_back_through_a_checkpoint():
    one = kept()
    again = Kept.restored(json.loads(json.dumps(one.state())))
    assert again == one
    batch = again.batch(learner_of())
    assert torch.equal(batch.tree.token_N, TREE.token_N)
    assert batch.tree.names == TREE.names
    assert torch.equal(batch.return_BT, RETURN_BT)


def test_it_teaches_the_trunk_and_holds_the_policy():
    moved = {}
    for clone in (0.0, 30.0):
        learner = learner_of()
        before_BT = learner.forward(TextBatch(tree=TREE), Needs(logp=True)).logp_BT
        first = auxiliary_phase(learner, [kept()], Auxiliary(epochs=1, clone=clone))
        assert first["auxiliary/kl"] == pytest.approx(0, abs=1e-6)  # before its first step the policy is the old one
        last = auxiliary_phase(learner, [kept()], Auxiliary(epochs=30, clone=clone))
        assert last["auxiliary/value_loss"] < 0.3 * first["auxiliary/value_loss"]
        assert last["auxiliary/critic_loss"] < 0.5 * first["auxiliary/critic_loss"]
        moved[clone] = last["auxiliary/kl"]
        assert not torch.equal(learner.forward(TextBatch(tree=TREE), Needs(logp=True)).logp_BT, before_BT)
    assert moved[30.0] < 0.1 * moved[0.0]


def test_the_loss_by_hand():
    """Two tokens: errors 1 and 0 of the head, 0 and 2 of the critic; the policy has gone from 1/2, 1/2 to 3/4, 1/4."""
    tree = pack([((1,), [(0,), (1,)])])
    now = torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]]]).log()
    batch = AuxiliaryBatch(
        tree=tree, return_BT=torch.tensor([[1.0], [3.0]]), old_logp_BTV=torch.full((2, 1, 2), 0.5).log()
    )
    outputs = Outputs(distribution=now, value=torch.tensor([[1.0], [1.0]]), auxiliary=torch.tensor([[2.0], [3.0]]))
    found = AuxiliaryLoss(clone=10.0)(outputs, batch)
    kl = 0.5 * (torch.tensor(0.5 / 0.75).log() + torch.tensor(0.5 / 0.25).log())
    assert float(found.total) == pytest.approx(0.5 + 2.0 + 10 * float(kl))
    assert found.denominator == 2
    one = AuxiliaryLoss(clone=10.0)(
        Outputs(distribution=now[:1], value=outputs.value_BT[:1], auxiliary=outputs.auxiliary_BT[:1]),
        select(batch, [0]),
    )
    assert float(one.total) == pytest.approx(0.5 + 10 * float(kl))
