"""The counter-examples of docs/common_mistakes.md: each wrong form is wrong in numbers, and the right one right.

Run with `-rP` to read the figures.

Shape letters:  P prompts   S prefixes   V vocabulary   A answers   B texts   T tokens   D parameters
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from plaudit.advantages import reward_to_go
from plaudit.kl import k1
from plaudit.losses import bradley_terry_loss, clipped_surrogate, masked_sum, reinforce_loss, token_log_probs
from plaudit.models.generation import generate
from plaudit.models.load import Machine
from plaudit.models.packed import choose_road
from plaudit.recipe import Sampling, Text
from plaudit.records import Prompt
from plaudit.sampling import ModelSampler, Request
from plaudit.scorers import SimilarityScorer
from plaudit.scorers.similarity import load_encoder
from plaudit.testing import Draws, Estimator, Table, compare, exact_gradient, expected_gradient, make_laboratory
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

EXACT = 1e-12
CPU = Machine(device=torch.device("cpu"), bf16=False)
LAB = make_laboratory(seed=0)
POLICY = Table(LAB, seed=1)
DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"English": DOCS / "common_mistakes.md", "Chinese": DOCS / "common_mistakes.zh.md"}


def gradient(value: Tensor) -> Tensor:
    """[D] of a number, by the policy's parameters."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(POLICY.parameters()), retain_graph=True)])


def weighted_by(weight_BT: Callable[[Draws], Tensor]) -> Estimator:
    """REINFORCE with a weight of its own on each token."""
    return lambda draws: masked_sum(reinforce_loss(draws.logp_BT, weight_BT(draws)), draws.mask_BT)


def whole_reward(draws: Draws) -> Tensor:
    """[B] the answer's reward, less the cost of its KL."""
    return draws.reward_B - LAB.beta * masked_sum(k1(draws.logp_BT, draws.ref_logp_BT).detach(), draws.mask_BT)


def on_each_token(x_B: Tensor, draws: Draws) -> Tensor:
    return x_B.unsqueeze(-1).expand_as(draws.logp_BT)


# what is weighted, and by what


def test_the_sum_of_scores_is_no_reward_to_go():
    exact_D = exact_gradient(LAB, POLICY)
    # by itself it is nothing on average: it says how to make answers likelier, not which
    alone_D = expected_gradient(LAB, POLICY, weighted_by(lambda draws: torch.ones_like(draws.logp_BT)))
    print(f"sum of grad log pi alone: {float(alone_D.norm() / exact_D.norm()):.1e} of the gradient's length")
    assert alone_D.norm() < EXACT * exact_D.norm()
    # reward-to-go is a sum of rewards, and the weight of each token's grad log pi
    hand_BT = reward_to_go(torch.tensor([[1.0, 0.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    assert hand_BT.tolist() == [[3.0, 2.0, 2.0]]  # 1 + 0 + 2, 0 + 2, 2

    def to_go(draws: Draws) -> Tensor:
        cost_BT = -LAB.beta * k1(draws.logp_BT, draws.ref_logp_BT).detach()
        last_BT = draws.mask_BT & (draws.mask_BT.sum(-1, keepdim=True) == draws.mask_BT.cumsum(-1))
        return reward_to_go(cost_BT + draws.reward_B.unsqueeze(-1) * last_BT, draws.mask_BT)

    assert compare(expected_gradient(LAB, POLICY, weighted_by(to_go)), exact_D).error < EXACT


def test_a_sigmoid_lies_between_0_and_1():
    gap_M = torch.arange(-300, 301, dtype=torch.float64) / 10
    chance_M = gap_M.sigmoid()
    assert 0 < float(chance_M.min()) < 1e-12
    assert 1 - 1e-12 < float(chance_M.max()) < 1
    torch.testing.assert_close(chance_M, (1 + torch.tanh(gap_M / 2)) / 2)  # tanh is the one from -1 to 1
    # P(first wins) + P(second wins) = 1, and equal scores are an even chance, which costs log 2
    zero_M = torch.zeros_like(gap_M)
    won_M, lost_M = bradley_terry_loss(gap_M, zero_M), bradley_terry_loss(zero_M, gap_M)
    torch.testing.assert_close((-won_M).exp() + (-lost_M).exp(), torch.ones_like(gap_M))
    assert float(won_M[300]) == pytest.approx(math.log(2))
    # from -1 to 1 the chances of both add up to 0, equal scores cost infinitely much, and half of all gaps have no loss
    wrong_M = torch.tanh(gap_M / 2)
    torch.testing.assert_close(wrong_M + wrong_M.flip(0), zero_M)
    assert float(-wrong_M[300].log()) == math.inf
    assert bool(wrong_M[:300].log().isnan().all())


def test_a_baseline_must_not_depend_on_the_action():
    exact_D = exact_gradient(LAB, POLICY)

    def step(baseline_PA: Tensor) -> Tensor:
        def weight(draws: Draws) -> Tensor:
            return on_each_token(whole_reward(draws) - baseline_PA[draws.prompt_B, draws.answer_B], draws)

        return expected_gradient(LAB, POLICY, weighted_by(weight))

    # three tables of constants: none depends on theta
    noise_PA = torch.randn(LAB.reward_PA.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    of_prompt_D, of_answer_D = step(noise_PA[:, :1].expand_as(noise_PA)), step(noise_PA)
    nothing_left_D = step(LAB.reward_PA)
    errors = [compare(step_D, exact_D).error for step_D in (of_prompt_D, of_answer_D, nothing_left_D)]
    print(f"error with b(x) {errors[0]:.1e}, with b(x, y) {errors[1]:.2f}, with b(x, y) = r(x, y) {errors[2]:.2f}")
    assert errors[0] < EXACT < 0.1 < min(errors[1:])
    # the bias is known: minus the gradient of what the baseline is worth to the policy
    logp_PA = LAB.answer_logp(POLICY())
    worth = (logp_PA.exp() * noise_PA).sum(-1).mean()
    assert compare(of_answer_D - exact_D, -gradient(worth)).error < EXACT
    # with the reward for a baseline only the cost of KL remains
    kl = (logp_PA.exp() * (logp_PA - LAB.answer_logp(LAB.ref_PSV))).sum(-1).mean()
    assert compare(nothing_left_D, -LAB.beta * gradient(kl)).error < EXACT


def test_a_token_is_scored_by_the_logits_before_it():
    model, context = tiny_model("llama"), (1, 5)
    tokens = model.config.vocab_size
    # every continuation of two tokens
    pair_A2 = torch.cartesian_prod(torch.arange(tokens), torch.arange(tokens))
    ids_AT = torch.cat([torch.tensor(context).expand(len(pair_A2), -1), pair_A2], 1)
    with torch.no_grad():
        logits_ATV = model(input_ids=ids_AT).logits
    right_A2 = token_log_probs(logits_ATV[:, 1:3], ids_AT[:, 2:4])
    wrong_A2 = token_log_probs(logits_ATV[:, 2:4], ids_AT[:, 2:4])
    right, wrong = (float(x_A2.double().sum(-1).exp().sum()) for x_A2 in (right_A2, wrong_A2))
    apart = float((right_A2 - wrong_A2).abs().mean())
    print(f"probabilities of all {len(pair_A2)} answers add up to {right:.6f}; with the logits after, to {wrong:.3f}")
    print(f"the two differ by {apart:.2f} nats a token")
    assert right == pytest.approx(1, abs=1e-5)
    assert abs(wrong - 1) > 0.01
    assert apart > 0.5
    # and those are the numbers that the sampler drew by
    request = Request(prompt=Prompt(text="c"), context_ids=context, seeds=tuple(range(8)))
    words = Words(tiny_tokenizer(), Text(), context=64)
    (group,) = ModelSampler(model, words, CPU).sample([request], Sampling(max_tokens=2))
    for answer in group.answers:
        place = answer.token_ids[0] * tokens + (answer.token_ids[1] if len(answer.token_ids) == 2 else 0)
        assert answer.logps == pytest.approx(right_A2[place, : len(answer.logps)].tolist(), abs=1e-4)
        assert answer.logps != pytest.approx(wrong_A2[place, : len(answer.logps)].tolist(), abs=1e-2)


# signs and gradients


def test_kl_is_subtracted_from_what_is_maximised():
    reward_PA, ref_logp_PA = LAB.reward_PA, LAB.answer_logp(LAB.ref_PSV)

    def value(logp_PA: Tensor, sign: float) -> Tensor:
        """E[r] + sign beta KL(pi || ref)."""
        return (logp_PA.exp() * (reward_PA + sign * LAB.beta * (logp_PA - ref_logp_PA))).sum(-1).mean()

    def earned(policy: Table) -> float:
        return float((LAB.answer_logp(policy().detach()).exp() * reward_PA).sum(-1).mean())

    def tilted(sign: float) -> Table:
        """The policy ~ ref exp(sign r / beta)."""
        table = Table(LAB)
        table.logit_PSV.data = LAB.policy_of((ref_logp_PA + sign * reward_PA / LAB.beta).softmax(-1))
        return table

    best, worst, start = tilted(1.0), tilted(-1.0), Table(LAB)
    print(f"mean reward: right {earned(best):.2f}, reference {earned(start):.2f}, wrong {earned(worst):.2f}")
    assert earned(worst) < earned(start) - 0.5 < earned(start) + 0.5 < earned(best)
    # E[r] - beta KL is largest at the one, E[r] + beta KL least at the other: flat there, and worse all around
    for policy, sign in ((best, -1.0), (worst, 1.0)):
        slope_PSV, away_PSV = (
            torch.autograd.grad(value(LAB.answer_logp(at()), sign), at.logit_PSV)[0] for at in (policy, start)
        )
        assert slope_PSV.norm() < EXACT < 0.01 < away_PSV.norm()
        here = value(LAB.answer_logp(policy().detach()), sign)
        for seed in range(5):
            near = Table(LAB, seed=seed)
            near.logit_PSV.data = policy.logit_PSV.data + 0.1 * near.logit_PSV.data
            assert sign * value(LAB.answer_logp(near().detach()), sign) > sign * here
    # and E[r] + beta KL is large for nonsense: nearly always the answer that the reference finds least likely
    nonsense_PA = torch.full_like(ref_logp_PA, 1e-6).scatter(1, ref_logp_PA.argmin(-1, keepdim=True), 1.0)
    nonsense_PA = (nonsense_PA / nonsense_PA.sum(-1, keepdim=True)).log()
    best_PA = LAB.answer_logp(best().detach())
    assert value(nonsense_PA, 1.0) > value(best_PA, 1.0) + 1
    assert value(nonsense_PA, -1.0) < value(best_PA, -1.0) - 1


def test_an_importance_weight_multiplies_a_gradient():
    exact_D = exact_gradient(LAB, POLICY)
    old_PA = LAB.answer_logp(Table(LAB, seed=7)().detach())  # who sampled
    logp_PA = LAB.answer_logp(POLICY())
    reward_PA = LAB.reward_PA - LAB.beta * (logp_PA - LAB.answer_logp(LAB.ref_PSV)).detach()
    ratio_PA = (logp_PA - old_PA).exp()

    def expected(x_PA: Tensor) -> Tensor:
        """Over the answers of who sampled, and over prompts."""
        return (old_PA.exp() * x_PA).sum(-1).mean()

    # without grad log pi there is a number, the objective itself, and no direction
    without = expected(ratio_PA.detach() * reward_PA)
    assert float(without) == pytest.approx(float(LAB.objective(POLICY().detach()).mean()))
    assert not without.requires_grad
    with_it_D = gradient(expected(ratio_PA.detach() * reward_PA * logp_PA))
    through_ratio_D = gradient(expected(ratio_PA * reward_PA))  # grad ratio = ratio grad log pi
    no_weight_D = gradient(expected(reward_PA * logp_PA))
    assert compare(with_it_D, exact_D).error < EXACT
    assert compare(through_ratio_D, exact_D).error < EXACT
    assert compare(no_weight_D, exact_D).error > 0.1
    # the product's surrogate lets the gradient through the ratio
    logp_BT = torch.tensor([[0.3, -0.2]], requires_grad=True)
    clipped_surrogate(logp_BT, torch.zeros(1, 2), torch.ones(1, 2), high=0.5).loss_BT.sum().backward()
    assert logp_BT.grad is not None
    torch.testing.assert_close(logp_BT.grad, -logp_BT.detach().exp())


def test_a_reward_carries_no_gradient_to_the_policy():
    policy, judge = nn.Embedding(1, 5), nn.Embedding(5, 1)  # logits of five tokens, and a reward for each
    with torch.no_grad():
        policy.weight.copy_(torch.arange(5.0) / 5)
        judge.weight.copy_(torch.tensor([[0.0], [1.0], [4.0], [2.0], [-1.0]]))
    logp_V = policy.weight[0].log_softmax(-1)
    token_B = torch.multinomial(logp_V.exp(), 32, replacement=True, generator=torch.Generator().manual_seed(0))
    reward_B = judge(token_B).squeeze(-1)
    # the loss moves the judge, who learns to like everything, and not the policy
    (-reward_B.mean()).backward()
    assert policy.weight.grad is None
    assert judge.weight.grad is not None
    assert float(judge.weight.grad.sum()) == pytest.approx(-1)
    with pytest.raises(RuntimeError, match="does not require grad"):
        (-reward_B.detach().mean()).backward()
    # REINFORCE, expected over the five tokens, is the gradient of the expected reward
    value_V = judge.weight.detach().squeeze(-1)
    (right_V,) = torch.autograd.grad((logp_V.exp() * value_V).sum(), policy.weight, retain_graph=True)
    (step_V,) = torch.autograd.grad((logp_V.detach().exp() * reinforce_loss(logp_V, value_V)).sum(), policy.weight)
    torch.testing.assert_close(-step_V, right_V)
    assert right_V.norm() > 0.1
    assert expected_gradient(LAB, POLICY, lambda draws: -draws.reward_B).norm() == 0


# what is not a sample, and what is not a text


def test_the_answers_of_a_beam_search_are_no_samples():
    # the product's beam search says one thing, whatever the seed; the sampler follows the policy
    model, context = tiny_model("llama"), (1, 5)
    with torch.no_grad():
        chance_V = model(input_ids=torch.tensor([context])).logits[0, -1].softmax(-1)
    choose_road(model)
    found = [generate(model, torch.tensor([context]), max_tokens=4, stop_ids=[2], beams=4).tolist() for _ in range(3)]
    assert found[0] == found[1] == found[2]
    request = Request(prompt=Prompt(text="c"), context_ids=context, seeds=tuple(range(400)))
    words = Words(tiny_tokenizer(), Text(), context=64)
    (group,) = ModelSampler(model, words, CPU).sample([request], Sampling(max_tokens=1))
    likeliest = int(chance_V.argmax())
    share = sum(answer.token_ids[0] == likeliest for answer in group.answers) / 400
    chance = float(chance_V[likeliest])
    assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / 400)
    assert chance < 0.5
    # the four likeliest answers, which a beam wide enough finds, against all of them
    logp_PA = LAB.answer_logp(POLICY())
    top_P4 = logp_PA.detach().topk(4).indices
    reward_PA = LAB.reward_PA - LAB.beta * (logp_PA - LAB.answer_logp(LAB.ref_PSV)).detach()
    beam_D = gradient((reward_PA * logp_PA).gather(1, top_P4).mean())
    all_D = gradient((logp_PA.detach().exp() * reward_PA * logp_PA).sum(-1).mean())
    exact_D = exact_gradient(LAB, POLICY)
    held = float(logp_PA.detach().exp().gather(1, top_P4).sum(-1).mean())
    wrong = compare(beam_D, exact_D)
    print(f"the four likeliest answers hold {held:.0%}; their gradient: error {wrong.error:.2f}, {wrong.cosine:.2f}")
    assert held < 0.6
    assert wrong.error > 0.3
    assert wrong.cosine < 0.9
    assert compare(all_D, exact_D).error < EXACT


def test_two_token_vectors_are_not_two_texts(tmp_path):
    """`abcd x` and `wyz! x` share one letter and the space before it; `abcd x` and `abcd q` all but the last letter."""
    tiny_model("llama").model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    reader = load_encoder(str(tmp_path), CPU)
    texts = ("abcd x", "wyz! x", "abcd q")
    read = [torch.tensor(reader.tokenizer(text)["input_ids"]) for text in texts]
    with torch.no_grad():
        last_3D = torch.stack([reader.model.get_input_embeddings()(ids_T)[-1] for ids_T in read])
    tokens = nn.functional.normalize(last_3D, dim=-1)
    whole = SimilarityScorer(reader).embed(texts)
    other_token, near_token = float(tokens[0] @ tokens[1]), float(tokens[0] @ tokens[2])
    other_text, near_text = float(whole[0] @ whole[1]), float(whole[0] @ whole[2])
    print(f"same last letter: tokens {other_token:.2f}, texts {other_text:.2f}")
    print(f"other last letter: tokens {near_token:.2f}, texts {near_text:.2f}")
    assert other_token == pytest.approx(1)
    assert near_token < 0.5
    assert near_text > other_text + 0.1  # the other way round
    assert other_text < 0.9
    # the first token of a decoder has read nothing but itself: any two texts are the same
    first = SimilarityScorer(reader, pooling="first").embed(texts)
    torch.testing.assert_close(first @ first.T, torch.ones(3, 3))


# the pages


def sections(page: str) -> list[dict[str, list[str]]]:
    """What each section of a page must share with the other page's: formulas, names, links, the counter-example."""
    text = PAGES[page].read_text(encoding="utf-8")
    return [
        {
            "formulas": re.findall(r"^```.*?^```", part, re.MULTILINE | re.DOTALL),
            "names": sorted(set(re.findall(r"`([^`\n]+)`", part))),
            "links": re.findall(r"\]\((https://[^)\s]+)\)", part),
            "tests": re.findall(r"\[`(test_\w+)`\]\(\.\./tests/test_common_mistakes\.py\)", part),
        }
        for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    ]


def test_both_pages_have_the_same_sections():
    assert len(sections("English")) == 9
    assert sections("Chinese") == sections("English")


@pytest.mark.parametrize("page", PAGES)
def test_every_section_names_a_counter_example_that_exists(page):
    here = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    there = {node.name for node in here.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    about_pages = {"test_both_pages_have_the_same_sections", "test_every_section_names_a_counter_example_that_exists"}
    named = [part["tests"] for part in sections(page)]
    assert [len(tests) for tests in named] == [1] * len(named)
    assert {tests[0] for tests in named} == there - about_pages
    for part in sections(page):
        assert len(part["formulas"]) == 2  # the wrong one and the right one
        assert part["links"]
