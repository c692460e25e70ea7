"""Log-probabilities of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import RecipeError, ShapeError
from plaudit.losses import negative_log_likelihood, token_log_probs


def test_by_hand():
    logits_NV = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]).log()
    token_N = torch.tensor([2, 0])
    torch.testing.assert_close(token_log_probs(logits_NV, token_N), torch.tensor([5 / 8, 1 / 4]).log())
    torch.testing.assert_close(negative_log_likelihood(logits_NV, token_N), -torch.tensor([5 / 8, 1 / 4]).log())
    # temperature 1/2 squares the odds: 25 / (1 + 4 + 25), 1 / (1 + 1 + 4)
    cold_N = token_log_probs(logits_NV, token_N, temperature=0.5)
    torch.testing.assert_close(cold_N, torch.tensor([25 / 30, 1 / 6]).log())


def test_gradient_is_softmax_less_token():
    logits_NV = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64).log().requires_grad_()
    negative_log_likelihood(logits_NV, torch.tensor([1])).sum().backward()
    torch.testing.assert_close(logits_NV.grad, torch.tensor([[1 / 8, 2 / 8 - 1, 5 / 8]], dtype=torch.float64))


@given(shift=st.floats(-30, 30), token=st.integers(0, 3))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_only_differences_of_logits_matter(shift, token):
    logits_NV, token_N = torch.tensor([[0.5, -1.0, 2.0, 0.0]], dtype=torch.float64), torch.tensor([token])
    torch.testing.assert_close(token_log_probs(logits_NV + shift, token_N), token_log_probs(logits_NV, token_N))


def test_half_precision_logits_are_lifted_before_the_softmax():
    logits_NV = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    token_N = torch.arange(64)
    got_N = token_log_probs(logits_NV, token_N)
    assert got_N.dtype == torch.float32
    torch.testing.assert_close(got_N, token_log_probs(logits_NV.double(), token_N).float())
    assert token_log_probs(logits_NV.double(), token_N).dtype == torch.float64


def test_any_leading_shape():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    token = torch.tensor([[0, 1, 2], [3, 4, 0]])
    flat = token_log_probs(logits.flatten(0, 1), token.flatten())
    assert torch.equal(token_log_probs(logits, token).flatten(), flat)


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"token_N \(3,\).*logits_NV \(2, 5\)"):
        token_log_probs(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(RecipeError, match="temperature must be above 0, got 0"):
        token_log_probs(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long), temperature=0)
