"""Drawing one token: by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.sampling.draw import draw, keep_top, passed, uniforms

quick = settings(deadline=None, max_examples=60, derandomize=True)
P = torch.tensor([[0.15, 0.5, 0.05, 0.3]])


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 0), (0.1499, 0), (0.1501, 1), (0.6499, 1), (0.6501, 2), (0.6999, 2), (0.7001, 3), (0.99999994, 3)],
)
def test_a_uniform_number_falls_into_its_token(uniform, token):
    token_S, logp_S, _ = draw(P.log(), torch.tensor([uniform]), temperature=1.0)
    assert token_S.tolist() == [token]
    assert float(logp_S) == pytest.approx(math.log(P[0, token]), abs=1e-6)


def test_temperature_divides_the_logits():
    # p^2 / sum p^2: .0225 .25 .0025 .09 of .365
    token_S, logp_S, _ = draw(P.log(), torch.tensor([0.5]), temperature=0.5)
    assert token_S.tolist() == [1]
    assert float(logp_S) == pytest.approx(math.log(0.25 / 0.365), abs=1e-6)


def test_temperature_0_takes_the_likeliest_and_says_its_own_probability():
    token_S, logp_S, _ = draw(P.log(), torch.tensor([0.99]), temperature=0)
    assert token_S.tolist() == [1]
    assert float(logp_S) == pytest.approx(math.log(0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, [0.15, 0.5, 0.05, 0.3]),
        (0.9, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),  # .8 is not enough, .95 is
        (0.7, [0, 0.625, 0, 0.375]),
        (0.3, [0.0, 1.0, 0.0, 0.0]),
        (1e-9, [0.0, 1.0, 0.0, 0.0]),  # never nothing
    ],
)
def test_top_p_renormalises_what_it_keeps(top_p, kept):
    torch.testing.assert_close(keep_top(P.log(), top_p).exp(), torch.tensor([kept]))
    tokens = [
        int(draw(P.log(), torch.tensor([u]), temperature=1.0, top_p=top_p)[0]) for u in (0.0, 0.3, 0.6, 0.9, 0.9999)
    ]
    assert all(kept[token] > 0 for token in tokens)
    for token in set(tokens):
        uniform = torch.tensor([sum(kept[:token]) + kept[token] / 2])
        found, logp, _ = draw(P.log(), uniform, temperature=1.0, top_p=top_p)
        assert int(found) == token
        assert float(logp) == pytest.approx(math.log(kept[token]), abs=1e-6)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True, width=32))
@quick
def test_a_token_is_drawn_that_can_come(logits, uniform):
    logits_SV = torch.tensor([[*logits, -torch.inf]])
    token_S, logp_S, _ = draw(logits_SV, torch.tensor([uniform]), temperature=0.7)
    assert torch.isfinite(logp_S).all()
    torch.testing.assert_close(logp_S, (logits_SV / 0.7).log_softmax(-1)[:, token_S[0]])


@pytest.mark.parametrize(
    ("level", "token"), [(0.2, 1), (0.5, 4), (0.49999997, 1), (0.50000003, 4), (0.99999994, 4), (1.0, 4)]
)
def test_rounding_in_sums_side_by_side_draws_no_token_that_cannot_come(level, token):
    """As a GPU may add: the sum rises at token 2, which has no probability, and falls again at 3."""
    chance_SV = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.5, 0.0]])
    reach_SV = torch.tensor([[0.0, 0.5, 0.50000006, 0.5, 1.0, 1.0]])
    assert passed(torch.tensor([level]), reach_SV, chance_SV).tolist() == [token]


def test_uniform_numbers_belong_to_their_seed():
    assert torch.equal(uniforms(7, 5), uniforms(7, 9)[:5])
    assert not torch.equal(uniforms(7, 5), uniforms(8, 5))
    many = uniforms(2**62, 4000)
    assert float(many.min()) >= 0
    assert float(many.max()) < 1
    assert abs(float(many.mean()) - 0.5) < 4 / math.sqrt(12 * 4000)


def test_rows_do_not_mix():
    logits_SV = torch.stack([P[0].log(), P[0].flip(0).log()])
    uniform_S = torch.tensor([0.2, 0.2])
    token_S, logp_S, _ = draw(logits_SV, uniform_S, temperature=1.0)
    for row in range(2):
        alone, logp, _ = draw(logits_SV[row : row + 1], uniform_S[row : row + 1], temperature=1.0)
        assert (int(alone), float(logp)) == (int(token_S[row]), float(logp_S[row]))
    assert token_S.tolist() == [1, 0]
