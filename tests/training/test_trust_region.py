"""TRPO's step on a tiny model: inside its ball, never worse on the batch, and back bit for bit where nothing serves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.errors import NumberError, RecipeError
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Optimiser
from plaudit.testing.tiny import tiny_model
from plaudit.training.learner import Curvature, ModelLearner, Part
from plaudit.training.objectives import LanguageLoss, TextBatch
from plaudit.training.policy_loss import PolicyBatch
from plaudit.training.trust_region import trust_region_step
from plaudit.tuning import Trust

CPU = Machine(device=torch.device("cpu"), bf16=False)
TREE = pack([((1, 5), [(3, 4, 2), (6, 7)]), ((1,), [(9, 8, 8, 2), (4,)]), ((1, 9), [(11, 2)])])
TEXTS = TextBatch(tree=TREE)


def learner_of():
    network = LanguageNetwork(tiny_model())
    return ModelLearner(network, Optimiser(learning_rate=1e-2), steps=9, machine=CPU, micro_tokens=8192)


def batch_of(learner, seed):
    logp_BT = learner.forward(TEXTS, Needs(logp=True)).logp_BT
    mask_BT = TREE.mask_BT
    advantage_B = torch.randn(TREE.answers, generator=torch.Generator().manual_seed(seed))
    advantage_BT = advantage_B[:, None].expand(mask_BT.shape).masked_fill(~mask_BT, 0.0)
    nothing = torch.zeros_like(logp_BT)
    return PolicyBatch(
        tree=TREE,
        old_logp_BT=logp_BT,
        ref_logp_BT=logp_BT,
        advantage_BT=advantage_BT,
        return_BT=nothing,
        value_BT=nothing,
    )


def measured(learner, batch, old_BTV):
    """KL(old, new) over the prefixes and the surrogate, by their definitions."""
    found = learner.forward(TEXTS, Needs(logp=True, distribution=True))
    mask_BT = TREE.mask_BT
    kl_BT = (old_BTV.exp() * (old_BTV - found.distribution_BTV)).sum(-1)
    gain_BT = (found.logp_BT - batch.old_logp_BT).exp() * batch.advantage_BT
    return float(kl_BT[mask_BT].mean()), float(gain_BT[mask_BT].sum()) / (8 * TREE.answers)


@pytest.mark.parametrize("bound", [1e-3, 1e-2, 0.1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_step_stays_in_its_ball_and_is_no_worse(bound, seed):
    learner = learner_of()
    batch = batch_of(learner, seed)
    old_BTV = learner.forward(TEXTS, Needs(distribution=True)).distribution_BTV
    _, start = measured(learner, batch, old_BTV)
    found = trust_region_step(learner, batch, Trust(bound=bound, fisher_share=1.0), longest=8)
    kl, gain = measured(learner, batch, old_BTV)
    assert kl == pytest.approx(found["trust/kl"], abs=1e-6)
    assert 0.2 * bound < kl <= bound  # near its edge: the quadratic is a good estimate
    assert gain - start == pytest.approx(found["trust/gain"], abs=1e-6)
    assert gain > start
    assert found["trust/fraction"] == pytest.approx(0.8 ** (found["trust/tries"] - 1))


def test_where_no_step_serves_the_weights_are_the_old_ones_bit_for_bit():
    learner = learner_of()
    batch = batch_of(learner, 0)
    before = {name: tensor.clone() for name, tensor in learner.weights().items()}
    # a step of another policy's gradient is too long for its ball when only the whole of it is tried
    gradient, sign = learner.gradient, -1.0

    def wrong(*parts, group):
        return sign * gradient(*parts, group=group)

    calls = iter([True])

    def downhill(*parts, group):
        return wrong(*parts, group=group) if next(calls, False) else gradient(*parts, group=group)

    learner.gradient = downhill
    found = trust_region_step(learner, batch, Trust(bound=0.01, tries=3), longest=8)
    trusted = {name: value for name, value in found.items() if name.startswith("trust/")}
    assert trusted == {"trust/kl": 0.0, "trust/gain": 0.0, "trust/fraction": 0.0, "trust/tries": 3.0}
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("share", "names"), [(0.01, "0"), (0.34, "0"), (0.67, "01"), (1.0, "012")])
def test_the_fisher_matrix_is_measured_on_a_share_of_the_prompts(share, names, monkeypatch):
    learner = learner_of()
    batch, seen, product = batch_of(learner, 0), [], learner.fisher_product

    def watched(part, vector_D, *, group):
        seen.append(part.batch.tree)
        return product(part, vector_D, group=group)

    monkeypatch.setattr(learner, "fisher_product", watched)
    trust_region_step(learner, batch, Trust(bound=1e-2, fisher_share=share), longest=8)
    assert {"".join(tree.names) for tree in seen} == {names}
    kept = [TREE.answer_lengths[int(name)] for name in names]
    assert {tree.answer_lengths for tree in seen} == {tuple(kept)}  # all of their answers


def test_nothing_to_gain_moves_nothing():
    learner = learner_of()
    batch = batch_of(learner, 0)
    flat = PolicyBatch(
        tree=TREE,
        old_logp_BT=batch.old_logp_BT,
        ref_logp_BT=batch.ref_logp_BT,
        advantage_BT=torch.zeros_like(batch.advantage_BT),
        return_BT=batch.return_BT,
        value_BT=batch.value_BT,
    )
    before = {name: tensor.clone() for name, tensor in learner.weights().items()}
    assert trust_region_step(learner, flat, Trust(), longest=8)["trust/tries"] == 0
    assert trust_region_step(learner, batch, Trust(), longest=8, share=0.0)["trust/tries"] == 0
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, before[name])


def test_a_product_is_the_second_derivative():
    """Against autograd's own second derivative, on weights in float64, whose attention has one."""
    network = LanguageNetwork(tiny_model("gpt2").double())
    network.model.config._attn_implementation = "eager"
    learner = ModelLearner(network, Optimiser(), steps=9, machine=CPU, micro_tokens=8192)
    part = Part(TEXTS, LanguageLoss())
    parameters = [p for p in network.model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    vector_D = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = learner.snapshot(group="policy")
    found_D = learner.fisher_product(part, vector_D, group="policy")
    for parameter, before in zip(parameters, kept, strict=True):
        assert torch.equal(parameter, before)
    network.train()
    found = part.loss(network.outputs(TREE, part.loss.needs), TEXTS)
    gradient_D = torch.cat(
        [g.flatten() for g in torch.autograd.grad(found.total / found.denominator, parameters, create_graph=True)]
    )
    expected_D = torch.cat([g.flatten() for g in torch.autograd.grad(gradient_D @ vector_D, parameters)])
    assert float((found_D - expected_D).norm() / expected_D.norm()) < 1e-3


def test_a_product_in_bfloat16_is_that_of_fp32():
    """A difference of two gradients would be mostly rounding."""
    learner = learner_of()
    part = Part(TEXTS, LanguageLoss())
    size = sum(tensor.numel() for tensor in learner.snapshot(group="policy"))
    vector_D = torch.randn(size, generator=torch.Generator().manual_seed(0))
    exact_D = learner.fisher_product(part, vector_D, group="policy")
    learner.machine = Machine(device=torch.device("cpu"), bf16=True)
    assert torch.equal(learner.fisher_product(part, vector_D, group="policy"), exact_D)
    assert not torch.equal(learner.gradient(part, group="policy"), exact_D)


def test_a_learner_without_curvature_is_refused():
    class Plain:
        def forward(self, batch, needs):
            raise AssertionError

    plain: Any = Plain()
    assert not isinstance(plain, Curvature)
    with pytest.raises(RecipeError, match=r"policy\.algorithm trpo needs gradients as vectors, which Plain lacks"):
        trust_region_step(plain, batch_of(learner_of(), 0), Trust(), longest=8)


def test_a_gradient_that_is_no_number_moves_nothing():
    learner = learner_of()
    batch = batch_of(learner, 0)
    bad = PolicyBatch(
        tree=TREE,
        old_logp_BT=batch.old_logp_BT,
        ref_logp_BT=batch.ref_logp_BT,
        advantage_BT=torch.full_like(batch.advantage_BT, float("nan")),
        return_BT=batch.return_BT,
        value_BT=batch.value_BT,
    )
    before = {name: tensor.clone() for name, tensor in learner.weights().items()}
    with pytest.raises(NumberError):
        trust_region_step(learner, bad, Trust(), longest=8)
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, before[name])
