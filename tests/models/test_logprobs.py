"""Log-probabilities at answer tokens against the softmax of the model's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from plaudit.batch import Needs, Support, pack
from plaudit.errors import ModelError
from plaudit.models import logprobs
from plaudit.models.load import Machine
from plaudit.models.logprobs import logits_of, token_logps
from plaudit.models.network import LanguageNetwork
from plaudit.models.packed import body_of, own_attention
from plaudit.testing.tiny import tiny_model
from plaudit.training.learner import forward
from plaudit.training.objectives import TextBatch

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


SUPPORTS: list[list[tuple[int, ...]]] = [
    [(6, 7), (7, 30, 40)],
    [],
    [(9,), (1, 10), (11, 2, 3, 4), tuple(range(46))],
    [(14, 2), (15, 0), (2, 20)],
]
"""For each answer of TEXTS the tokens that could have come at each of its tokens."""


def limited(order=(0, 1, 2, 3), beside=()):
    """The answers of TEXTS in an order of their own, prompts apart, and others beside them, in one tree."""
    prompts = [TEXTS[0][0]] * 3 + [TEXTS[1][0]]
    answers = [answer for _, given in TEXTS for answer in given]
    texts = [(prompts[i], [answers[i]]) for i in order] + [((5,), [answer]) for answer in beside]
    supports = [own for i in order for own in SUPPORTS[i]] + [(token,) for answer in beside for token in answer]
    return pack(texts, support=Support.of(supports))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "bloom", "plaudit-lstm"])
@torch.no_grad()
def test_on_a_support_outputs_are_the_softmax_of_its_logits(kind):
    model = tiny_model(kind)
    tree = limited()
    outputs = LanguageNetwork(model, temperature=0.7).outputs(tree, Needs(logp=True, entropy=True, distribution=True))
    with own_attention(model):
        for row, (length, place) in enumerate(zip(tree.lengths, tree.prompt_starts(), strict=True)):
            end = place + tree.prompt_lengths[row] + length
            logits_TV = model(input_ids=tree.token_N[None, place:end]).logits[0, tree.prompt_lengths[row] - 1 : -1]
            for t, support in enumerate(SUPPORTS[row]):
                logp_K = (logits_TV[t, list(support)] / 0.7).log_softmax(-1)
                logp = logp_K[support.index(int(tree.token_BT[row, t]))]
                torch.testing.assert_close(outputs.logp_BT[row, t], logp, rtol=0, atol=1e-5)
                entropy = -(logp_K.exp() * logp_K).sum()
                torch.testing.assert_close(outputs.entropy_BT[row, t], entropy, rtol=0, atol=1e-5)
                whole_V = outputs.distribution_BTV[row, t]
                torch.testing.assert_close(whole_V[list(support)], logp_K, rtol=0, atol=1e-5)
                assert float(whole_V.exp().sum()) == pytest.approx(1, abs=1e-5)
                assert int((whole_V.exp() > 0).sum()) == len(support)


def test_on_a_support_neither_order_nor_padding_nor_pieces_matter():
    network = LanguageNetwork(tiny_model(), temperature=0.7)
    machine = Machine(device=torch.device("cpu"), bf16=False)
    needs = Needs(logp=True, entropy=True, distribution=True)

    def said(tree, micro_tokens):
        return forward(network, TextBatch(tree=tree), needs, machine=machine, micro_tokens=micro_tokens)

    alone = said(limited(), 999)
    mask_BT = limited().mask_BT
    turned = (2, 0, 3, 1)
    for found, rows in (
        (said(limited(), 1), range(4)),
        (said(limited(turned), 999), [turned.index(i) for i in range(4)]),
        (said(limited(beside=[(9,) * 17]), 999), range(4)),
    ):
        for mine, other in (
            (alone.logp_BT, found.logp_BT),
            (alone.entropy_BT, found.entropy_BT),
            (alone.distribution_BTV, found.distribution_BTV),
        ):
            torch.testing.assert_close(other[list(rows), : mask_BT.shape[1]][mask_BT], mine[mask_BT])


@pytest.mark.parametrize("support", [None, Support.of([(0, 1, 2), (3,), *[tuple(range(11))] * 4, (0, 10)])])
@pytest.mark.parametrize("entropy", [False, True])
def test_chunks_change_neither_values_nor_gradients(monkeypatch, entropy, support):
    head = nn.Linear(8, 11, bias=False)
    generator = torch.Generator().manual_seed(0)
    hidden_MD, token_M = torch.randn(7, 8, generator=generator), torch.randint(0, 11, (7,), generator=generator)
    if support is not None:
        token_M[[0, 1, 6]] = torch.tensor([2, 3, 10])
    weight_M = torch.randn(7, generator=generator)
    found = []
    for size in (2**24, 22, 1):  # all at once; two tokens at a time; one
        monkeypatch.setattr(logprobs, "CHUNK", size)
        hidden = hidden_MD.clone().requires_grad_()
        head.weight.grad = None
        logp_M, entropy_M = token_logps(
            head, hidden, token_M, temperature=0.7, vocabulary=11, entropy=entropy, support=support
        )
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
