"""KL estimators and controllers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import NumberError, RecipeError, ShapeError
from plaudit.kl import AdaptiveKl, AnnealedKl, FixedKl, KlController, full_kl, k1, k2, k3

quick = settings(deadline=None, max_examples=40, derandomize=True)
LOG2 = math.log(2)


def distributions(seed: int, rows: int = 3, vocabulary: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, rows, vocabulary, generator=generator, dtype=torch.float64)
    logp, ref_logp = logits.log_softmax(-1)
    return logp, ref_logp


# estimators


def test_estimators_by_hand():
    # probability 1/2 against 1/4, and 1/4 against 1/2: d = log 2 and -log 2
    logp_BT, ref_BT = torch.tensor([[0.5, 0.25]]).log().double(), torch.tensor([[0.25, 0.5]]).log().double()
    torch.testing.assert_close(k1(logp_BT, ref_BT), torch.tensor([[LOG2, -LOG2]], dtype=torch.float64))
    torch.testing.assert_close(k2(logp_BT, ref_BT), torch.tensor([[LOG2**2 / 2] * 2], dtype=torch.float64))
    # exp(-log 2) - 1 + log 2, exp(log 2) - 1 - log 2
    torch.testing.assert_close(k3(logp_BT, ref_BT), torch.tensor([[LOG2 - 0.5, 1 - LOG2]], dtype=torch.float64))


def test_full_kl_by_hand():
    logp = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]).log()
    ref_logp = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]).log()
    # log(2)/2 + log(2/3)/2 = log(4/3)/2; log 2; the reference cannot say it
    torch.testing.assert_close(full_kl(logp, ref_logp), torch.tensor([math.log(4 / 3) / 2, LOG2, math.inf]))


@given(seed=st.integers(0, 99))
@quick
def test_full_kl_is_what_k1_and_k3_expect(seed):
    logp, ref_logp = distributions(seed)
    exact = full_kl(logp, ref_logp)
    torch.testing.assert_close((logp.exp() * k1(logp, ref_logp)).sum(-1), exact)
    torch.testing.assert_close((logp.exp() * k3(logp, ref_logp)).sum(-1), exact)
    other_way = torch.nn.functional.kl_div(ref_logp, logp, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(exact, other_way)  # an independent implementation
    assert (exact > 0).all()
    assert (k2(logp, ref_logp) >= 0).all()
    assert (k3(logp, ref_logp) >= 0).all()
    torch.testing.assert_close(full_kl(logp, logp), torch.zeros_like(exact))


def test_near_the_reference_all_agree():
    d = torch.tensor([1e-4, -1e-4], dtype=torch.float64)
    zero = torch.zeros_like(d)
    torch.testing.assert_close(k3(d, zero), k2(d, zero), rtol=1e-4, atol=0.0)
    tiny = torch.tensor([1e-5])  # float32: exp(-d) - 1 + d loses every digit where expm1 keeps some
    assert 0 <= k3(tiny, torch.zeros(1)).item() < 1e-9


@pytest.mark.parametrize(("estimate", "slope"), [(k1, 1.0), (k2, LOG2), (k3, 0.5)])
def test_estimator_gradients_by_hand(estimate, slope):
    # at d = log 2: 1, d, 1 - exp(-d)
    logp = torch.tensor([math.log(0.5)], dtype=torch.float64, requires_grad=True)
    ref_logp = torch.tensor([math.log(0.25)], dtype=torch.float64, requires_grad=True)
    estimate(logp, ref_logp).sum().backward()
    assert logp.grad is not None
    assert logp.grad.item() == pytest.approx(slope)
    assert ref_logp.grad is None


def test_full_kl_gradient():
    logit, ref_logit = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logit.requires_grad_()
    ref_logit.requires_grad_()
    logp, ref_logp = logit.log_softmax(-1), ref_logit.log_softmax(-1)
    value = full_kl(logp, ref_logp)
    value.backward()
    expected = logp.exp() * (logp - ref_logp - value)  # dKL / dlogit = p (log p - log q - KL)
    torch.testing.assert_close(logit.grad, expected.detach())
    assert ref_logit.grad is None


def test_full_kl_of_what_cannot_come_has_a_finite_gradient():
    logit = torch.tensor([0.3, 0.1, -torch.inf], dtype=torch.float64, requires_grad=True)
    ref_logp = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    value = full_kl(logit.log_softmax(-1), ref_logp)
    value.backward()
    assert math.isfinite(value.item())
    assert logit.grad is not None
    assert logit.grad.isfinite().all()
    assert logit.grad[0] > 0 == logit.grad[2]


@pytest.mark.parametrize("estimate", [k1, k2, k3, full_kl])
def test_shapes_must_agree(estimate):
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3,\)"):
        estimate(torch.zeros(2, 3), torch.zeros(3))


# controllers

CONTROLLERS = [FixedKl(1 / 3), AdaptiveKl(0.1, target=6, horizon=640), AnnealedKl(1.0, 0.1, rounds=4)]


def test_fixed_stays():
    assert FixedKl(0.2).update(kl=100.0, answers=64) == FixedKl(0.2)


def test_adaptive_by_hand():
    controller = AdaptiveKl(0.1, target=6, horizon=640)
    # 64 answers are a tenth of the horizon. kl 12: error 1 held at 0.2; 6.6: error 0.1; 6: none; 0: -1 held at -0.2
    for kl, beta in ((12.0, 0.102), (6.6, 0.101), (6.0, 0.1), (5.4, 0.099), (0.0, 0.098), (-3.0, 0.098)):
        assert controller.update(kl, answers=64).beta == pytest.approx(beta, rel=1e-12)
    assert controller.update(12.0, answers=128).beta == pytest.approx(0.104, rel=1e-12)


def test_adaptive_changes_by_e_in_five_horizons():
    controller = AdaptiveKl(1.0, target=6, horizon=1000)
    for _ in range(5000):
        controller = controller.update(kl=100.0, answers=1)
    assert controller.beta == pytest.approx(math.e, rel=1e-3)


@pytest.mark.parametrize("start", [0.01, 10.0])
def test_adaptive_finds_its_target(start):
    controller = AdaptiveKl(start, target=6, horizon=500)
    for _ in range(400):
        controller = controller.update(
            kl=2 / controller.beta, answers=64
        )  # a policy that strays more the cheaper it is
    assert 2 / controller.beta == pytest.approx(6, rel=0.01)


def test_annealed_by_hand():
    controller, betas = AnnealedKl(1.0, 0.1, rounds=2), []
    for _ in range(4):
        betas.append(controller.beta)
        controller = controller.update(kl=1.0, answers=8)
    assert betas == pytest.approx([1, math.sqrt(0.1), 0.1, 0.1])


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_controller_comes_back_from_json(controller: KlController):
    on = controller
    for kl in (9.0, 2.0, 30.0):
        on = on.update(kl, answers=32)
    assert json.loads(json.dumps(on.state())) == on.state()
    back = controller.restored(json.loads(json.dumps(on.state())))
    assert back == on
    assert back.beta == on.beta
    assert back.update(7.0, 32).beta == on.update(7.0, 32).beta


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_updating_makes_a_new_controller(controller: KlController):
    before = controller.state()
    controller.update(50.0, answers=32)
    assert controller.state() == before


def test_what_controllers_refuse():
    with pytest.raises(RecipeError, match=r"beta must be 0 or more, got -1"):
        FixedKl(-1.0)
    with pytest.raises(RecipeError, match=r"beta must be above 0, got 0; target must be above 0, got -2; horizon"):
        AdaptiveKl(0, target=-2, horizon=math.nan)
    with pytest.raises(RecipeError, match=r"end must be above 0, got 0; rounds must be above 0, got 0"):
        AnnealedKl(1.0, 0, rounds=0)
    with pytest.raises(NumberError, match="nan nats"):
        AdaptiveKl(0.1, target=6, horizon=640).update(math.nan, answers=64)
    with pytest.raises(RecipeError, match=r"horizon 10 must be more than a fifth of the 50 answers"):
        AdaptiveKl(0.1, target=6, horizon=10).update(3.0, answers=50)
