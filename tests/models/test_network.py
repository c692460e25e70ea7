"""Networks: heads, critics, groups of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from plaudit.batch import Needs, pack
from plaudit.models.load import Machine, adapted
from plaudit.models.network import Critic, LanguageNetwork, RewardNetwork, Scales, TwinQ, new_head
from plaudit.models.packed import body_of, hidden_states
from plaudit.recipe import Adapter
from plaudit.testing.tiny import tiny_model

TREE = pack([((3, 4, 5), [(6, 7), (), (9, 10, 11)]), ((13,), [(14,)])])


def test_a_new_head_has_the_spread_of_its_paper():
    head = new_head(4095, bias=True, seed=3)
    assert float(head.weight.detach().std()) == pytest.approx(1 / 64, rel=0.05)  # sqrt(4095 + 1) = 64
    assert abs(float(head.weight.detach().mean())) < 3 / 64 / 64
    assert head.bias.tolist() == [0.0]
    assert torch.equal(head.weight, new_head(4095, bias=False, seed=3).weight)
    assert not torch.equal(head.weight, new_head(4095, bias=False, seed=4).weight)


@torch.no_grad()
def test_a_score_is_read_at_the_last_token():
    model = tiny_model(reward=True)
    score_B = RewardNetwork(model).outputs(TREE, Needs(score=True)).score_B
    hidden_ND = hidden_states(model, TREE)
    # ends of (6 7), of the prompt, of (9 10 11), of (14)
    torch.testing.assert_close(score_B, (hidden_ND[[4, 2, 7, 9]] @ model.score.weight.T).squeeze(1))


def test_dropout_before_the_head_is_for_training_only():
    network = RewardNetwork(tiny_model(reward=True), dropout=0.5)
    needs = Needs(score=True)
    network.eval()
    assert torch.equal(network.outputs(TREE, needs).score_B, network.outputs(TREE, needs).score_B)
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network.outputs(TREE, needs).score_B, network.outputs(TREE, needs).score_B)


def test_a_value_is_what_stands_before_its_token():
    model = tiny_model()
    head = new_head(32, bias=True, seed=0)
    network = LanguageNetwork(model, Critic(head))
    value_BT = network.outputs(TREE, Needs(value=True)).value_BT
    guess_N = head(hidden_states(model, TREE)).squeeze(1).tolist()
    # before 6: the prompt's end; before 7: 6; ...; before 14: 13
    expected = [[guess_N[2], guess_N[3], 0.0], [0.0] * 3, [guess_N[2], guess_N[5], guess_N[6]], [guess_N[8], 0.0, 0.0]]
    torch.testing.assert_close(value_BT, torch.tensor(expected))


def test_a_shared_critic_trains_the_policys_trunk_and_a_separate_one_does_not():
    shared = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0)))
    shared.outputs(TREE, Needs(value=True)).value_BT.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in shared.model.parameters())
    separate = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0), body_of(tiny_model(seed=1))))
    separate.outputs(TREE, Needs(value=True)).value_BT.sum().backward()
    assert all(p.grad is None for p in separate.model.parameters())
    assert separate.critic is not None
    assert all(p.grad is not None for p in separate.critic.parameters())


def test_every_trained_tensor_is_in_one_group_and_in_the_checkpoint():
    network = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0), body_of(tiny_model(seed=1))))
    next(network.model.parameters()).requires_grad_(False)
    grouped = [id(p) for parameters in network.groups().values() for p in parameters]
    assert sorted(network.groups()) == ["critic", "policy"]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.trained().values()}
    assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}
    assert list(RewardNetwork(tiny_model(reward=True)).groups()) == ["reward"]


def test_what_is_not_needed_is_not_computed():
    network = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0), body_of(tiny_model(seed=1))))
    calls = []
    for part in (network.model.model, network.critic.model):  # type: ignore[union-attr]
        nn.Module.register_forward_hook(part, lambda module, args, out: calls.append(module))
    outputs = network.outputs(TREE, Needs(value=True))
    assert calls == [network.critic.model]  # type: ignore[union-attr]
    assert outputs.logp is None
    assert outputs.entropy is None


def test_a_critic_under_an_adapter_trains_the_adapter_and_the_head():
    trunk = adapted(body_of(tiny_model(seed=1)), Adapter(rank=2), seed=0, task="FEATURE_EXTRACTION")
    network = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0), trunk))
    network.outputs(TREE, Needs(value=True)).value_BT.sum().backward()
    names = [name for name, parameter in network.critic.named_parameters() if parameter.grad is not None]  # type: ignore[union-attr]
    assert {"head.weight", "head.bias"} < set(names)
    assert all("lora_" in name or name.startswith("head.") for name in names)
    assert set(network.groups()["critic"]) == {p for p in trunk.parameters() if p.requires_grad} | {
        network.critic.head.weight,  # type: ignore[union-attr]
        network.critic.head.bias,  # type: ignore[union-attr]
    }


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_rewards_under_bfloat16_lie_on_no_grid_of_16_bits(family):
    network = RewardNetwork(tiny_model(family, reward=True, max_position_embeddings=64))
    with Machine(device=torch.device("cpu"), bf16=True).computing():
        half_B = network.outputs(TREE, Needs(score=True)).score_B
    assert not torch.equal(half_B, half_B.bfloat16().float())
    full_B = network.outputs(TREE, Needs(score=True)).score_B
    torch.testing.assert_close(half_B, full_B, rtol=0, atol=0.05)


@torch.no_grad()
def test_values_under_bfloat16_lie_on_no_grid_of_16_bits():
    trunk = body_of(tiny_model(seed=1))
    twins = TwinQ(new_head(32, bias=True, seed=0, outputs=2 * 50), trunk)
    network = LanguageNetwork(tiny_model(), Critic(new_head(32, bias=True, seed=0)), twins=twins)
    needs = Needs(value=True, q=True, slow_q=True)
    with Machine(device=torch.device("cpu"), bf16=True).computing():
        half = network.outputs(TREE, needs)
    full = network.outputs(TREE, needs)
    for name in ("value", "q", "slow_q"):
        rounded, exact = getattr(half, name), getattr(full, name)
        assert not torch.equal(rounded, rounded.bfloat16().float()), name
        torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)


@torch.no_grad()
def test_scores_in_bfloat16_are_near_those_in_fp32():
    network = RewardNetwork(tiny_model(reward=True))
    full_B = network.outputs(TREE, Needs(score=True)).score_B
    with Machine(device=torch.device("cpu"), bf16=True).computing():
        half_B = network.outputs(TREE, Needs(score=True)).score_B
    assert half_B.dtype == torch.float32
    torch.testing.assert_close(half_B, full_B, rtol=0, atol=0.05)
    assert not torch.equal(half_B, full_B)


def test_scales_say_what_they_came_to():
    scales = Scales(0.2, [1, 2, 1])
    assert scales.values() == {"tie": pytest.approx(math.log(0.5)), "cuts": scales.cut_C().tolist()}
    with torch.no_grad():
        scales.tie_moved.add_(0.1)
    assert scales.values()["tie"] == pytest.approx(math.log(0.5) + 0.1 * Scales.STEP)
    assert Scales(0.0, [1, 1]).values() == {"cuts": [0.0]}
    assert Scales(0.2).values().keys() == {"tie"}
