"""The packed pass against Transformers' own, one text at a time; gradients; the road for what cannot pack."""

from __future__ import annotations

import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from plaudit.batch import pack, select
from plaudit.errors import ModelError
from plaudit.models.load import adapted
from plaudit.models.packed import ATTENTION, body_of, choose_road, end_states, hidden_states, own_attention
from plaudit.recipe import Adapter
from plaudit.testing.tiny import tiny_model
from plaudit.training.objectives import TextBatch

PACKED = ["llama", "qwen3", "gpt2", "gpt_neox", "opt", "mistral", "cohere", "granite", "plaudit-lstm"]
SLOW = ["bloom", "falcon", "gemma2"]

TREES = {
    "K varies": pack(
        [((3, 4, 5), [(6, 7), (8,), (9, 10, 11, 12)]), ((13,), [(14, 15)]), ((16, 17), [(18,), (19, 20)])]
    ),
    "empty answers": pack([((3, 4), [(), (5, 6), ()]), ((7, 8, 9), [(), ()])]),
    "one answer each": pack([((3, 4, 5), [(6, 7)]), ((8,), [(9, 10, 11)]), ((12, 13), [()])]),
    "lengths far apart": pack(
        [
            ((3, 4, 5), [(6,) * 28, (), (7, 8), (9,) * 20]),
            (tuple(range(3, 28)), [(4,) * 5, (3, 5)]),
            (tuple(range(19, 2, -1)), [(8,) * 10]),
        ]
    ),
    "one answer each, far apart": pack([((3, 4), [(6,) * 28]), ((8,) * 10, [(9,)]), ((12, 13), [()])]),
    "pad and end inside": pack([((0, 3), [(0, 2, 0), (2, 2)]), ((2,), [(0,), (0, 0, 4)])]),
}


def row_by_row(model, tree) -> Tensor:
    """[N, D] by Transformers' own attention: each text alone, without padding; gradient flows."""
    starts, answer_starts = tree.prompt_starts(), tree.answer_starts()
    out: dict[int, Tensor] = {}
    with own_attention(model):
        for b, p in enumerate(tree.prompt_of_answers()):
            places = [
                *range(starts[p], starts[p] + tree.prompt_lengths[p]),
                *range(answer_starts[b], answer_starts[b] + tree.lengths[b]),
            ]
            hidden_TD = body_of(model)(input_ids=tree.token_N[places][None], use_cache=False).last_hidden_state[0]
            for place, hidden_D in zip(places, hidden_TD, strict=True):
                out.setdefault(place, hidden_D)
    return torch.stack([out[place] for place in range(len(tree.token_N))])


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("kind", PACKED)
@torch.no_grad()
def test_packed_is_what_transformers_computes(kind, tree):
    wide: dict[str, Any] = {"sliding_window": 64} if kind == "mistral" else {}
    model = tiny_model(kind, **wide)
    assert choose_road(model)
    expected_ND = row_by_row(model, tree)
    got_ND = hidden_states(model, tree)
    torch.testing.assert_close(got_ND, expected_ND, rtol=0, atol=1e-5 * float(expected_ND.abs().max()))


@pytest.mark.parametrize("kind", SLOW)
@torch.no_grad()
def test_what_cannot_be_packed_goes_in_rows(kind):
    model = tiny_model(kind)
    assert not choose_road(model)
    for tree in TREES.values():
        expected_ND = row_by_row(model, tree)
        got_ND = hidden_states(model, tree)
        torch.testing.assert_close(got_ND, expected_ND, rtol=0, atol=1e-5 * float(expected_ND.abs().max()))


def test_packing_attends_across_layers_and_not_across_answers():
    """Change one token: only its own answer may move, and from there on only."""
    model = tiny_model()
    choose_road(model)
    tree = TREES["K varies"]
    token_N = tree.token_N.clone()
    token_N[3] = 40  # first token of the first answer, which has two
    with torch.no_grad():
        before_ND = hidden_states(model, tree)
        after_ND = hidden_states(model, dataclasses.replace(tree, token_N=token_N))
    moved = (after_ND - before_ND).abs().amax(-1) > 1e-6
    assert moved.nonzero().squeeze(1).tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon", "plaudit-lstm"])
def test_gradients_are_those_of_the_rows(kind):
    model, tree = tiny_model(kind), TREES["K varies"]
    choose_road(model)
    weight_ND = torch.randn(len(tree.token_N), 32, generator=torch.Generator().manual_seed(1))
    found = []
    for road in (hidden_states, row_by_row):
        model.zero_grad()
        (road(model, tree) * weight_ND).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    packed, rows = found
    # each token's state counts once on both roads: `row_by_row` takes the prompt from its first answer only
    assert float((packed - rows).norm() / rows.norm()) < 1e-5


def test_only_the_ends_pass_through_the_last_feed_forward_part():
    """Seven answers, two of them empty behind one prompt: six tokens are read."""
    model = tiny_model()
    choose_road(model)
    tree = pack([((3, 4), [(), (5, 6), (), (7,)]), ((8, 9), [(10,), (11, 12), (13,)])])
    seen: dict[int, list[int]] = {}
    for i, layer in enumerate(body_of(model).layers):
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, args, i=i: seen.setdefault(i, []).append(args[0].shape[1])
        )
    end_states(model, tree)
    assert list(seen.values()) == [[len(tree.token_N)]] * (len(seen) - 1) + [[6]]


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("kind", [*PACKED, *SLOW])
def test_the_ends_are_those_of_all_states_and_so_are_their_gradients(kind, tree):
    wide: dict[str, Any] = {"sliding_window": 64} if kind == "mistral" else {}
    model = tiny_model(kind, **wide)
    choose_road(model)
    found = []
    for states in (lambda: end_states(model, tree), lambda: hidden_states(model, tree)[tree.last_B()]):
        model.zero_grad()
        end_BD = states()
        (end_BD * torch.randn(end_BD.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((end_BD.detach(), gradient))
    (got_BD, got), (expected_BD, expected) = found
    torch.testing.assert_close(got_BD, expected_BD, rtol=0, atol=1e-5 * float(expected_BD.abs().max()))
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_the_ends_of_a_model_that_computes_its_activations_again():
    tree = TREES["K varies"]
    plain, again = tiny_model(reward=True), tiny_model(reward=True)
    again.activation_checkpointing_enable({"use_reentrant": False})
    gradients = []
    for model in (plain, again):
        choose_road(model)
        model.train()
        end_states(model, tree).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


def test_two_threads_share_a_model():
    """Each reads other places of another row while the other one is in the middle of its own."""
    model = tiny_model()
    choose_road(model)
    trees = [TREES["K varies"], TREES["lengths far apart"]]
    expected = [end_states(model, tree).detach() for tree in trees]
    meet = threading.Barrier(2, timeout=30)

    def wait(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        meet.wait()

    body_of(model).layers[0].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda tree: end_states(model, tree).detach(), trees))
    for got_BD, expected_BD in zip(found, expected, strict=True):
        torch.testing.assert_close(got_BD, expected_BD)


def test_soft_capping_inside_attention_is_not_lost():
    """Gemma 2 caps its attention's logits, which scaled_dot_product_attention does not."""
    tree = TREES["K varies"]
    model = tiny_model("gemma2", attn_logit_softcapping=0.5)
    assert not choose_road(model)
    with torch.no_grad():
        capped = hidden_states(model, tree)
        torch.testing.assert_close(capped, row_by_row(model, tree), rtol=0, atol=1e-5 * float(capped.abs().max()))
        without = tiny_model("gemma2", attn_logit_softcapping=None)
        choose_road(without)
        assert float((hidden_states(without, tree) - capped).abs().max()) > 1e-2


def test_without_soft_capping_gemma_packs():
    assert choose_road(tiny_model("gemma2", attn_logit_softcapping=None))


def test_attention_sinks_are_not_lost():
    model = tiny_model(
        "gpt_oss",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=64,
        num_local_experts=2,
        num_experts_per_tok=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    assert not choose_road(model)
    tree = TREES["K varies"]
    with torch.no_grad():
        expected_ND = row_by_row(model, tree)
        torch.testing.assert_close(hidden_states(model, tree), expected_ND, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_window_that_a_text_leaves_is_an_error():
    model = tiny_model("mistral", sliding_window=8)
    assert choose_road(model)
    hidden_states(model, pack([((1, 2, 3, 4), [(5, 6, 7, 8)])]))
    with pytest.raises(ModelError, match="a text of 9 tokens is longer than this model's attention window of 8"):
        hidden_states(model, pack([((1, 2, 3, 4), [(5, 6, 7, 8, 9)])]))


@torch.no_grad()
@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_own_attention_is_there_inside_and_packed_again_after(own):
    model, tree = tiny_model(), TREES["K varies"]
    model.set_attn_implementation(own)
    tokens = torch.tensor([[1, 5, 6, 7]])
    plain = model(input_ids=tokens).logits
    assert choose_road(model)
    packed = hidden_states(model, tree)
    with pytest.raises(TypeError, match="packed attention was called without a plan"):
        model(input_ids=tokens)
    with own_attention(model):
        assert torch.equal(model(input_ids=tokens).logits, plain)
    assert torch.equal(hidden_states(model, tree), packed)
    with pytest.raises(ValueError, match="input_ids"), own_attention(model):
        model()
    assert torch.equal(hidden_states(model, tree), packed)


def test_a_model_is_left_as_it_was_where_packing_fails():
    for kind, own in (("gemma2", "eager"), ("falcon", "sdpa"), ("bloom", "eager")):
        model = tiny_model(kind)
        model.set_attn_implementation(own)
        tokens = torch.tensor([[1, 5, 6, 7]])
        with torch.no_grad():
            before = model(input_ids=tokens).logits
            assert not choose_road(model)
            assert torch.equal(model(input_ids=tokens).logits, before)
            with own_attention(model):
                assert torch.equal(model(input_ids=tokens).logits, before)


@torch.no_grad()
def test_a_copy_packs_too():
    model, tree = tiny_model(), TREES["K varies"]
    choose_road(model)
    twin = copy.deepcopy(model)
    assert choose_road(twin)
    assert torch.equal(hidden_states(twin, tree), hidden_states(model, tree))
    torch.testing.assert_close(row_by_row(twin, tree), hidden_states(model, tree), rtol=0, atol=1e-4)


def test_the_road_is_chosen_once_and_not_saved(tmp_path):
    model = tiny_model().train()
    assert choose_road(model) is choose_road(model) is True
    assert model.training
    model.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()


@torch.no_grad()
def test_an_adapter_is_on_the_road():
    model, tree = tiny_model(), TREES["K varies"]
    choose_road(model)
    plain_ND = hidden_states(model, tree)
    under = adapted(model, Adapter(rank=2), seed=0)
    for name, parameter in under.named_parameters():
        if "lora_B" in name:
            parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.3)
    assert choose_road(under)
    moved_ND = hidden_states(under, tree)
    assert float((moved_ND - plain_ND).abs().max()) > 1e-2
    torch.testing.assert_close(moved_ND, row_by_row(under, tree), rtol=0, atol=1e-5 * float(moved_ND.abs().max()))
    with under.disable_adapter():
        assert torch.equal(hidden_states(under, tree), plain_ND)


@torch.no_grad()
def test_neighbours_padding_and_order_change_nothing():
    model = tiny_model()
    choose_road(model)
    tree = TREES["K varies"]
    last_BD = hidden_states(model, tree)[tree.last_B()]
    for rows in ([0], [1, 3], [2, 4, 5]):
        part = select(TextBatch(tree=tree), rows).tree
        torch.testing.assert_close(hidden_states(model, part)[part.last_B()], last_BD[rows], rtol=0, atol=1e-5)
    turned = pack([((16, 17), [(19, 20), (18,)]), ((13,), [(14, 15)]), ((3, 4, 5), [(9, 10, 11, 12), (6, 7), (8,)])])
    turned_BD = hidden_states(model, turned)[turned.last_B()]
    torch.testing.assert_close(turned_BD, last_BD[[5, 4, 3, 2, 0, 1]], rtol=0, atol=1e-5)
