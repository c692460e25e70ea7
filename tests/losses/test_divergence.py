"""The KL divergence in a loss. What its gradient is on average: `test_laboratory` and `test_laboratory_gradients`."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.errors import RecipeError, ShapeError
from plaudit.kl import full_kl, k1, k2, k3
from plaudit.losses import sequence_full_kl_loss, sequence_kl_loss, token_kl_loss

LOG2 = math.log(2)
quick = settings(deadline=None, max_examples=40, derandomize=True)
Name = Literal["k2", "k3", "ratio_k3"]
NAMES: list[Name] = ["k2", "k3", "ratio_k3"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_per_token_by_hand():
    # d = log 2 and -log 2; rho = 2 and 1/2
    logp_BT, ref_BT, old_BT = logs([0.5, 0.25]), logs([0.25, 0.5]), logs([0.25, 0.5])
    expected = {"k2": [LOG2**2 / 2] * 2, "k3": [LOG2 - 0.5, 1 - LOG2], "ratio_k3": [2 * (LOG2 - 0.5), (1 - LOG2) / 2]}
    for name in NAMES:
        got_BT = token_kl_loss(logp_BT, ref_BT, estimator=name, old_logp_BT=old_BT)
        torch.testing.assert_close(got_BT, torch.tensor([expected[name]], dtype=torch.float64))


def test_per_answer_by_hand():
    # d = log 2 + log 2 over the two tokens of the answer, rho = 2 x 1; the last entry is padding
    logp_BT, ref_BT, old_BT = logs([0.5, 0.5, 0.1]), logs([0.25, 0.25, 0.9]), logs([0.25, 0.5, 0.7])
    mask_BT = torch.tensor([[True, True, False]])
    d = 2 * LOG2
    expected = {"k2": d**2 / 2, "k3": 0.25 - 1 + d, "ratio_k3": 2 * (0.25 - 1 + d)}
    for name in NAMES:
        got_B = sequence_kl_loss(logp_BT, ref_BT, mask_BT, estimator=name, old_logp_BT=old_BT)
        assert got_B.tolist() == pytest.approx([expected[name]])


@pytest.mark.parametrize(("name", "slope"), [("k2", LOG2), ("k3", 0.5), ("ratio_k3", LOG2)])
def test_gradients_by_hand(name, slope):
    # at d = log 2: d; 1 - exp(-d); rho ((exp(-d) - 1 + d) + (1 - exp(-d))) = d at rho 1
    logp_BT, ref_BT = logs([0.5]).requires_grad_(), logs([0.25]).requires_grad_()
    token_kl_loss(logp_BT, ref_BT, estimator=name).sum().backward()
    assert logp_BT.grad is not None
    assert logp_BT.grad.item() == pytest.approx(slope)
    assert ref_BT.grad is None
    old_BT = logs([0.125]).requires_grad_()  # rho 4
    again_BT = logs([0.5]).requires_grad_()
    token_kl_loss(again_BT, ref_BT, estimator=name, old_logp_BT=old_BT).sum().backward()
    assert again_BT.grad is not None
    assert again_BT.grad.item() == pytest.approx(4 * slope if name == "ratio_k3" else slope)
    assert old_BT.grad is None


@given(seed=st.integers(0, 99))
@quick
def test_weighted_by_the_ratio_k3_expects_the_kl_under_any_policy(seed):
    logp_BV, ref_BV, old_BV = normal(3, 2, 5, seed=seed).log_softmax(-1)
    got_BV = token_kl_loss(logp_BV, ref_BV, estimator="ratio_k3", old_logp_BT=old_BV)
    torch.testing.assert_close((old_BV.exp() * got_BV).sum(-1), full_kl(logp_BV, ref_BV))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_of_one_token_has_its_tokens_loss(name):
    logp_BT, ref_BT = normal(2, 4, 1)
    of_token_BT = token_kl_loss(logp_BT, ref_BT, estimator=name)
    of_answer_B = sequence_kl_loss(logp_BT, ref_BT, torch.ones(4, 1).bool(), estimator=name)
    torch.testing.assert_close(of_answer_B, of_token_BT[:, 0])
    value_BT = {"k2": k2, "k3": k3, "ratio_k3": k3}[name](logp_BT, ref_BT)
    torch.testing.assert_close(of_token_BT, value_BT)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 99), pad=st.integers(0, 5))
@quick
def test_padding_changes_nothing(name, seed, pad):
    logp_BT, ref_BT = normal(2, 3, 4, seed=seed)
    mask_BT = torch.arange(4) < torch.tensor([[4], [1], [2]])
    wide_BT, wide_ref_BT = (F.pad(x, (0, pad), value=1e9) for x in (logp_BT, ref_BT))
    got_B = sequence_kl_loss(wide_BT, wide_ref_BT, F.pad(mask_BT, (0, pad)), estimator=name)
    torch.testing.assert_close(got_B, sequence_kl_loss(logp_BT, ref_BT, mask_BT, estimator=name))


def test_whole_vocabulary_per_answer_by_hand():
    logit_BTV, ref_BTV = normal(1, 3, 4).requires_grad_(), normal(1, 3, 4, seed=1).log_softmax(-1)
    logp_BTV = logit_BTV.log_softmax(-1)
    logp_BT = logp_BTV[..., 2]
    mask_BT = torch.tensor([[True, True, False]])
    sequence_full_kl_loss(logp_BT, logp_BTV, ref_BTV, mask_BT).sum().backward()
    other_BTV = logit_BTV.detach().clone().requires_grad_()
    logp_BTV = other_BTV.log_softmax(-1)
    kl_BT = full_kl(logp_BTV, ref_BTV)
    # KL of both tokens, and the first token's log-probability times the second's KL
    (kl_BT[0, 0] + kl_BT[0, 1] + logp_BTV[0, 0, 2] * kl_BT[0, 1].detach()).backward()
    torch.testing.assert_close(logit_BTV.grad, other_BTV.grad)


def test_k1_is_refused_with_the_reason():
    x_BT = torch.zeros(2, 3)
    for refused in (
        lambda: token_kl_loss(x_BT, x_BT, estimator="k1"),  # type: ignore[arg-type]
        lambda: sequence_kl_loss(x_BT, x_BT, torch.ones(2, 3).bool(), estimator="k1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RecipeError, match=r"k1 cannot stand in a loss: its expected gradient is 0"):
            refused()
    # the reason: sum over tokens of p grad log p is the gradient of 1
    logit_V = normal(5).requires_grad_()
    logp_V = logit_V.log_softmax(-1)
    (logp_V.detach().exp() * k1(logp_V, normal(5, seed=1))).sum().backward()
    assert logit_V.grad is not None
    assert logit_V.grad.abs().max() < 1e-15


def test_what_is_refused():
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(RecipeError, match=r"no KL estimator for a loss is called 'k4': there are k2, k3 and ratio_k3"):
        token_kl_loss(x, x, estimator="k4")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(2,\)"):
        token_kl_loss(x, y, estimator="k2")
    with pytest.raises(ShapeError, match=r"logp \(2, 3\), old_logp \(2,\)"):
        token_kl_loss(x, x, estimator="ratio_k3", old_logp_BT=y)
    with pytest.raises(ShapeError, match="mask_BT must hold booleans"):
        sequence_kl_loss(x, x, x, estimator="k2")
    with pytest.raises(ShapeError, match=r"logp_BTV \(2, 4, 5\) must have one row for each entry of \(2, 3\)"):
        sequence_full_kl_loss(x, torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), torch.ones(2, 3).bool())
