"""Soft actor-critic's steps: the loss by hand, slow copies that follow, and what it refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from plaudit.batch import Needs, Outputs, pack, select
from plaudit.errors import RecipeError, RunError
from plaudit.losses.soft import soft_policy
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork, TwinQ, new_head
from plaudit.models.packed import body_of
from plaudit.recipe import Optimiser
from plaudit.testing.tiny import tiny_model
from plaudit.training.auxiliary import Kept
from plaudit.training.learner import Follower, ModelLearner
from plaudit.training.rollouts import Reference
from plaudit.training.soft import SoftBatch, SoftLoss, soft_steps
from plaudit.tuning import Soft

CPU = Machine(device=torch.device("cpu"), bf16=False)
TREE = pack([((1, 5), [(3, 4, 2), (6, 7)])])


def network_of(*, twins=True):
    model = tiny_model()
    heads = new_head(32, bias=False, seed=0, outputs=2 * model.config.vocab_size)
    with torch.no_grad():
        heads.weight.mul_(0.01)
    return LanguageNetwork(model, twins=TwinQ(heads, body_of(tiny_model(seed=1))) if twins else None)


def learner_of(network):
    return ModelLearner(network, Optimiser(learning_rate=1e-3), steps=99, machine=CPU, micro_tokens=8192)


def test_the_loss_by_hand():
    """One token, two choices: errors 1 and 2 of the twins at the one that came; the policy is drawn by the smaller."""
    tree = pack([((1,), [(1,)]), ((1,), [(0,)])])
    q = torch.tensor([[[[1.0, 3.0], [2.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])  # [B, T, V, 2]
    ref = torch.full((2, 1, 2), 0.5).log()
    now = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]]).log()
    batch = SoftBatch(tree=tree, target_BT=torch.tensor([[1.0], [0.0]]), ref_logp_BTV=ref)
    found = SoftLoss(alpha=0.5)(Outputs(distribution=now, q=q), batch)
    best = soft_policy(torch.tensor([1.0, 0.0]), ref[0, 0], alpha=0.5)
    away = float((now[0, 0].exp() * (now[0, 0] - best)).sum())
    assert float(found.total) == pytest.approx(0.5 * (2 - 1) ** 2 + 0.5 * (0 - 1) ** 2 + away)
    assert found.denominator == 2
    one = SoftLoss(alpha=0.5)(Outputs(distribution=now[1:], q=q[1:]), select(batch, [1]))
    assert float(one.total) == pytest.approx(0.0, abs=1e-6)  # at the best policy, with the right values


def test_the_policys_term_does_not_move_the_critics():
    q = torch.randn(1, 1, 4, 2, requires_grad=True)
    now = torch.randn(1, 1, 4).log_softmax(-1).requires_grad_()
    batch = SoftBatch(
        tree=pack([((1,), [(2,)])]),
        target_BT=q.detach()[0, 0, 2].mean().view(1, 1),
        ref_logp_BTV=torch.full((1, 1, 4), 0.25).log(),
    )
    SoftLoss(alpha=1.0)(Outputs(distribution=now, q=q), batch).total.backward()
    assert q.grad is not None
    assert now.grad is not None
    assert bool(now.grad.any())
    assert q.grad[0, 0, [0, 1, 3]].abs().sum() == 0  # only the token that came


def test_slow_copies_follow_and_are_kept(tmp_path):
    network = network_of()
    learner = learner_of(network)
    assert network.twins is not None
    with torch.no_grad():
        network.twins.heads.weight.add_(1.0)
    before = network.twins.slow_heads.weight.clone()
    learner.follow(0.25)
    torch.testing.assert_close(network.twins.slow_heads.weight, before + 0.25)
    learner.save(tmp_path)
    other = learner_of(network_of())
    other.load(tmp_path)
    slow, again = (
        n.twins.slow_heads.weight for n in (network, other.network) if isinstance(n, LanguageNetwork) and n.twins
    )
    assert torch.equal(slow, again)
    assert not slow.requires_grad


def test_steps_learn_the_values_of_what_came():
    network = network_of()
    learner = learner_of(network)
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    kept = Kept(prompts=(("a", (1, 5), ((3, 4, 2), (6, 7))),), returns=((0.0, 0.0, 2.0), (0.0, -1.0)))
    settings = Soft(updates=40, follow=0.5)
    first = soft_steps(learner, reference, [kept], settings, answers=2, alpha=1.0, discount=1.0, lambda_=0.5, seed=0)
    last = soft_steps(learner, reference, [kept], settings, answers=2, alpha=1.0, discount=1.0, lambda_=0.5, seed=1)
    assert last["q_loss"] < 0.5 * first["q_loss"]
    before, after = (
        (n.outputs(TREE, Needs(logp=True)).logp_BT * TREE.mask_BT).sum(1).detach() for n in (reference.network, network)
    )
    gained = (after - before).tolist()
    assert gained[0] > 0 > gained[1]  # toward the answer that earned, not the other


@pytest.mark.parametrize(("lambda_", "first"), [(0.0, 0.0), (0.5, 0.5), (1.0, 2.0)])
def test_how_far_back_a_score_reaches_in_one_step(monkeypatch, lambda_, first):
    """Twins that know nothing: of the 2 at the third token, the first one is to expect 2 lambda^2."""
    learner = learner_of(network_of())
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    kept = Kept(prompts=(("a", (1, 5), ((3, 4, 2), (6, 7))),), returns=((0.0, 0.0, 2.0), (0.0, -1.0)))
    parts, step = [], learner.step

    def watched(part):
        parts.append(part)
        return step(part)

    monkeypatch.setattr(learner, "step", watched)
    soft_steps(learner, reference, [kept], Soft(updates=1), answers=2, alpha=1.0, discount=1.0, lambda_=lambda_, seed=0)
    assert float(parts[0].batch.target_BT[0, 0]) == pytest.approx(first, abs=0.1)
    assert float(parts[0].batch.target_BT[0, 2]) == 2.0


def test_a_step_takes_so_many_answers_of_prompts_drawn_at_random(monkeypatch):
    learner = learner_of(network_of())
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    two = ((3, 2), (6, 7, 2))
    kept = Kept(prompts=tuple((name, (1, 5), two) for name in "abcd"), returns=((0.0, 1.0), (0.0, 0.0, 2.0)) * 4)
    parts, step = [], learner.step

    def watched(part):
        parts.append(part)
        return step(part)

    monkeypatch.setattr(learner, "step", watched)
    soft_steps(learner, reference, [kept], Soft(updates=30), answers=4, alpha=1.0, discount=1.0, lambda_=0.5, seed=0)
    trees = [part.batch.tree for part in parts]
    assert {tree.answer_lengths for tree in trees} == {((2, 3), (2, 3))}  # two prompts, all of their answers
    drawn = Counter(name for tree in trees for name in tree.names)
    assert len({tree.names for tree in trees}) == 6  # every pair there is
    assert min(drawn.values()) > 6
    for part in parts:
        assert part.batch.target_BT[:, -1][[1, 3]].tolist() == [2.0, 2.0]  # each with its own reward


def test_a_learner_without_slow_copies_is_refused():
    assert isinstance(learner_of(network_of()), Follower)
    plain: Any = object()
    with pytest.raises(RecipeError, match="needs slow copies of its critics, which object lacks"):
        soft_steps(plain, plain, [], Soft(), answers=2, alpha=1.0, discount=1.0, lambda_=0.5, seed=0)
    from plaudit.models.network import RewardNetwork

    reward = learner_of(RewardNetwork(tiny_model(reward=True)))
    with pytest.raises(RunError, match="RewardNetwork has no slow copies to follow"):
        reward.follow(0.1)
