"""Log-probabilities at answer tokens against the softmax of the model's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from plaudit.batch import Needs, pack
from plaudit.errors import ModelError
from plaudit.models import logprobs
from plaudit.models.logprobs import logits_of, token_logps
from plaudit.models.network import LanguageNetwork
from plaudit.models.packed import body_of, own_attention
from plaudit.testing.tiny import tiny_model

TEXTS: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = [
    ((3, 4, 5), [(6, 7), (), (9, 10, 11, 12)]),
    ((13,), [(14, 15, 2)]),
]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "cohere", "granite", "bloom"])
@torch.no_grad()
def test_outputs_are_the_softmax_of_the_models_own_logits(kind):
    """Soft-capping (Gemma 2) and scales (Cohere, Granite) of the logits are the model's own; temperature 0.7."""
    model = tiny_model(kind)
    outputs = LanguageNetwork(model, temperature=0.7).outputs(pack(TEXTS), Needs(logp=True, entropy=True))
    row = 0
    with own_attention(model):
        for prompt, answers in TEXTS:
            for answer in answers:
                logits_TV = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
                logp_TV = (logits_TV / 0.7).log_softmax(-1)[len(prompt) - 1 : -1]
                expected_T = logp_TV[torch.arange(len(answer)), list(answer)]
                torch.testing.assert_close(outputs.logp_BT[row, : len(answer)], expected_T, rtol=0, atol=1e-5)
                entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
                torch.testing.assert_close(outputs.entropy_BT[row, : len(answer)], entropy_T, rtol=0, atol=1e-5)
                assert not outputs.logp_BT[row, len(answer) :].any()
                assert not outputs.entropy_BT[row, len(answer) :].any()
                row += 1


@pytest.mark.parametrize("entropy", [False, True])
def test_chunks_change_neither_values_nor_gradients(monkeypatch, entropy):
    head = nn.Linear(8, 11, bias=False)
    generator = torch.Generator().manual_seed(0)
    hidden_MD, token_M = torch.randn(7, 8, generator=generator), torch.randint(0, 11, (7,), generator=generator)
    weight_M = torch.randn(7, generator=generator)
    found = []
    for size in (2**24, 22, 1):  # all at once; two tokens at a time; one
        monkeypatch.setattr(logprobs, "CHUNK", size)
        hidden = hidden_MD.clone().requires_grad_()
        head.weight.grad = None
        logp_M, entropy_M = token_logps(head, hidden, token_M, temperature=0.7, vocabulary=11, entropy=entropy)
        total = (logp_M * weight_M).sum()
        if entropy:
            assert entropy_M is not None
            total = total + (entropy_M * weight_M**2).sum()
        total.backward()
        found.append((logp_M, hidden.grad, head.weight.grad))
    for other in found[1:]:
        for whole, piece in zip(found[0], other, strict=True):
            torch.testing.assert_close(piece, whole, rtol=1e-5, atol=1e-6)


def test_only_a_chunk_of_logits_is_there_at_a_time(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK", 22)
    seen = []

    def logits(hidden_MD):
        seen.append(len(hidden_MD))
        return hidden_MD @ torch.ones(8, 11)

    token_logps(logits, torch.ones(7, 8), torch.zeros(7, dtype=torch.int64), temperature=1.0, vocabulary=11)
    assert seen == [2, 2, 2, 1]


def test_no_token_has_no_log_probability():
    logp_M, entropy_M = token_logps(
        nn.Linear(8, 11), torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64), temperature=1.0, vocabulary=11
    )
    assert logp_M.shape == (0,)
    assert entropy_M is None


def test_a_token_that_cannot_come_has_no_entropy():
    table_V = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    _, entropy_M = token_logps(
        lambda hidden: hidden, table_V, torch.tensor([0]), temperature=1.0, vocabulary=3, entropy=True
    )
    assert entropy_M is not None
    torch.testing.assert_close(entropy_M, torch.tensor([2.0]).log())
    entropy_M.sum().backward()
    assert table_V.grad is not None
    assert torch.isfinite(table_V.grad[0, :2]).all()


def test_a_model_without_a_head_is_refused():
    with pytest.raises(ModelError, match="LlamaModel has no language-model head"):
        logits_of(body_of(tiny_model()))


def test_a_model_that_treats_its_logits_in_an_unknown_way_is_refused():
    model = tiny_model()
    model.register_forward_hook(lambda module, args, out: setattr(out, "logits", out.logits * 2))
    with pytest.raises(ModelError, match="LlamaForCausalLM changes its logits in a way that is not known here"):
        logits_of(model)
