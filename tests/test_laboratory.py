"""The exact laboratory: that it is exact, and what it says about PPO, leave-one-out and KL.

Run with `-rP` to read the figures.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from plaudit.advantages import gae, group_mean, leave_one_out, reward_to_go, token_rewards
from plaudit.errors import RecipeError
from plaudit.kl import full_kl, k1, k2, k3
from plaudit.losses import clipped_surrogate, entropy, masked_sum, reinforce_loss
from plaudit.testing import (
    Comparison,
    Draws,
    Estimator,
    Laboratory,
    Network,
    Table,
    compare,
    exact_gradient,
    expected_gradient,
    imitate,
    make_laboratory,
    variance,
)

EXACT = 1e-12  # what the issue asks is 1e-6; float64 gives this
LAB = make_laboratory(seed=0)
SMALL = make_laboratory(seed=0, vocabulary=3, length=3)  # 15 answers, 3,375 triples
POLICIES = {"table": Table(LAB, seed=1), "network": Network(LAB, seed=1, hidden=16)}


def verdict(lab: Laboratory, policy: torch.nn.Module, estimator: Estimator, group: int = 1) -> Comparison:
    return compare(expected_gradient(lab, policy, estimator, group=group), exact_gradient(lab, policy))


# estimators


def rewards(lab: Laboratory, draws: Draws) -> Tensor:
    return token_rewards(draws.reward_B, k1(draws.logp_BT, draws.ref_logp_BT), draws.mask_BT, beta=lab.beta)


def reinforce(lab: Laboratory, baseline: Callable[[Draws], Tensor] | float = 0.0) -> Estimator:
    """The whole return of the answer, less a baseline for the answer, on each of its tokens."""

    def loss(draws: Draws) -> Tensor:
        base_B = baseline(draws) if callable(baseline) else torch.full_like(draws.reward_B, baseline)
        advantage_B = rewards(lab, draws).sum(-1) - base_B
        loss_BT = reinforce_loss(draws.logp_BT, advantage_B.unsqueeze(-1).expand_as(draws.logp_BT))
        return masked_sum(loss_BT, draws.mask_BT)

    return loss


def grouped(lab: Laboratory, advantage: Callable[[Tensor, Tensor], Tensor]) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        advantage_B = advantage(rewards(lab, draws).sum(-1), draws.group_B)
        loss_BT = reinforce_loss(draws.logp_BT, advantage_B.unsqueeze(-1).expand_as(draws.logp_BT))
        return masked_sum(loss_BT, draws.mask_BT)

    return loss


def actor_critic(lab: Laboratory, value_PS: Tensor, lambda_: float, *, ppo: bool = False) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        value_BT = value_PS[draws.prompt_B.unsqueeze(-1), draws.state_BT]
        advantage_BT = gae(rewards(lab, draws), value_BT, draws.mask_BT, lambda_=lambda_).advantage_BT
        if ppo:
            loss_BT = clipped_surrogate(draws.logp_BT, draws.logp_BT, advantage_BT).loss_BT
        else:
            loss_BT = reinforce_loss(draws.logp_BT, advantage_BT)
        return masked_sum(loss_BT, draws.mask_BT)

    return loss


def random_values(lab: Laboratory, seed: int = 5) -> Tensor:
    shape = lab.ref_PSV.shape[:2]
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# the laboratory itself


def test_everything_is_listed():
    assert LAB.answers == 121  # 1 + 3 + 9 + 27 that end, 81 that are cut
    assert LAB.ref_PSV.shape == (3, 40, 4)  # 1 + 3 + 9 + 27 prefixes
    rows = {tuple(row[m].tolist()) for row, m in zip(LAB.token_AT, LAB.mask_AT, strict=True)}
    assert len(rows) == 121
    assert all(0 not in row[:-1] and (row[-1] == 0 or len(row) == 4) for row in rows)
    assert (LAB.token_AT[~LAB.mask_AT] == 0).all()


def test_a_prefix_is_what_came_before():
    seen: dict[int, tuple[int, ...]] = {}
    for token_T, state_T, mask_T in zip(LAB.token_AT, LAB.state_AT, LAB.mask_AT, strict=True):
        for t in range(int(mask_T.sum())):
            prefix = tuple(token_T[:t].tolist())
            assert seen.setdefault(int(state_T[t]), prefix) == prefix
    assert len(set(seen.values())) == 40
    for state, prefix in seen.items():
        one_hot_TV = LAB.prefix_SF[state].view(4, 4)
        assert one_hot_TV.argmax(-1).tolist() == [*prefix, *[0] * (4 - len(prefix))]


def test_rewards_are_standard_but_for_their_offset():
    torch.testing.assert_close(LAB.reward_PA.std(-1, correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(LAB.reward_PA.mean(-1), torch.tensor([-0.5, 0.5, 1.5], dtype=torch.float64))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_probabilities_of_answers_add_up_to_one_and_back(policy):
    logp_PSV = policy().detach()
    probability_PA = LAB.answer_logp(logp_PSV).exp()
    torch.testing.assert_close(probability_PA.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(LAB.policy_of(probability_PA), logp_PSV)


def test_objective_is_its_definition():
    logp_PSV = POLICIES["table"]().detach()
    expected = 0.0
    for a in range(LAB.answers):  # prompt 1, one token at a time
        logp, ref_logp = 0.0, 0.0
        for t in range(int(LAB.mask_AT[a].sum())):
            state, token = int(LAB.state_AT[a, t]), int(LAB.token_AT[a, t])
            logp += float(logp_PSV[1, state, token])
            ref_logp += float(LAB.ref_PSV[1, state, token])
        expected += math.exp(logp) * (float(LAB.reward_PA[1, a]) - LAB.beta * (logp - ref_logp))
    assert float(LAB.objective(logp_PSV)[1]) == pytest.approx(expected, rel=1e-12)


def test_gradient_is_a_finite_difference():
    policy = Table(SMALL, seed=3)
    exact_D = exact_gradient(SMALL, policy)
    logit_D = policy.logit_PSV.data.view(-1)
    for d in (0, 7, 31):
        ends = []
        for step in (1e-5, -2e-5):
            logit_D[d] += step
            ends.append(float(SMALL.objective(policy().detach()).mean()))
        logit_D[d] += 1e-5
        assert float(exact_D[d]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_optimum_is_the_optimum(beta):
    lab = make_laboratory(seed=4, beta=beta)
    best_PSV = lab.optimum()
    torch.testing.assert_close(lab.objective(best_PSV), lab.optimal_value())
    best = Table(lab)
    best.logit_PSV.data = best_PSV.clone()
    assert exact_gradient(lab, best).norm() < EXACT
    assert lab.share(best_PSV) == pytest.approx(1.0)
    assert lab.share(lab.ref_PSV) == 0.0
    # J* - J(pi) = beta KL(pi || pi*), for any pi
    logp_PSV = Table(lab, seed=2)().detach()
    logp_PA = lab.answer_logp(logp_PSV)
    kl_P = (logp_PA.exp() * (logp_PA - lab.answer_logp(best_PSV))).sum(-1)
    torch.testing.assert_close(lab.optimal_value() - lab.objective(logp_PSV), beta * kl_P)


def test_values_obey_bellman():
    logp_PSV = POLICIES["table"]().detach()
    value_PS = LAB.values(logp_PSV)
    torch.testing.assert_close(value_PS[:, 0], LAB.objective(logp_PSV))
    earned_PSV = -LAB.beta * (logp_PSV - LAB.ref_PSV)  # of one token, and then what comes after it
    done = set()
    for a in range(LAB.answers):
        steps = list(zip(LAB.state_AT[a].tolist(), LAB.token_AT[a].tolist(), strict=True))[: int(LAB.mask_AT[a].sum())]
        for t, (state, token) in enumerate(steps):
            if (state, token) not in done:
                last = t == len(steps) - 1
                earned_PSV[:, state, token] += LAB.reward_PA[:, a] if last else value_PS[:, steps[t + 1][0]]
                done.add((state, token))
    torch.testing.assert_close((logp_PSV.exp() * earned_PSV).sum(-1), value_PS)


def test_samples_follow_the_policy():
    logp_PSV = POLICIES["table"]().detach()
    answer_PG = LAB.sample(logp_PSV, 20_000, torch.Generator().manual_seed(0))
    found_A = torch.bincount(answer_PG[2], minlength=LAB.answers) / 20_000
    expected_A = LAB.answer_logp(logp_PSV)[2].exp()
    assert (found_A - expected_A).abs().max() < 4 * math.sqrt(0.25 / 20_000)


def test_draws_are_what_was_drawn():
    logp_PSV = POLICIES["table"]()
    answer_PG = torch.tensor([[0, 5], [7, 7], [120, 40]])
    draws = LAB.draws(logp_PSV, answer_PG)
    assert draws.prompt_B.tolist() == draws.group_B.tolist() == [0, 0, 1, 1, 2, 2]
    assert draws.answer_B.tolist() == [0, 5, 7, 7, 120, 40]
    torch.testing.assert_close(draws.reward_B, LAB.reward_PA.gather(1, answer_PG).flatten())
    logp_PG = LAB.answer_logp(logp_PSV).gather(1, answer_PG)
    torch.testing.assert_close(draws.logp_BT.sum(-1), logp_PG.flatten())
    ref_logp_PG = LAB.answer_logp(LAB.ref_PSV).gather(1, answer_PG)
    torch.testing.assert_close(draws.ref_logp_BT.sum(-1), ref_logp_PG.flatten())
    assert torch.equal(draws.logp_BTV[4, 3], logp_PSV[2, LAB.state_AT[120, 3]])
    assert torch.equal(draws.ref_logp_BTV[4, 3], LAB.ref_PSV[2, LAB.state_AT[120, 3]])


def test_variance_is_its_definition():
    # every pair by a backward pass of its own: E|g|^2 - |E g|^2, one prompt
    lab = make_laboratory(seed=0, vocabulary=3, length=2, prompts=1)
    policy = Network(lab, seed=0, hidden=5)
    estimator = grouped(lab, leave_one_out)
    logp_A = lab.answer_logp(policy().detach())[0]
    square, mean_D = torch.zeros(()), torch.zeros(())
    for pair in itertools.product(range(lab.answers), repeat=2):
        loss = estimator(lab.draws(policy(), torch.tensor([pair]))).mean()
        step_D = torch.cat([-g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])
        weight = logp_A[list(pair)].sum().exp()
        square, mean_D = square + weight * step_D.square().sum(), mean_D + weight * step_D
    torch.testing.assert_close(variance(lab, policy, estimator, group=2)[0], square - mean_D.square().sum())


def test_imitation_starts_a_network_at_the_reference():
    network = Network(SMALL, seed=3, hidden=16)
    assert full_kl(SMALL.ref_PSV, network().detach()).mean() > 0.1
    imitate(network, SMALL.ref_PSV, steps=200)
    assert full_kl(SMALL.ref_PSV, network().detach()).mean() < 0.001


def test_what_is_refused():
    with pytest.raises(RecipeError, match=r"beta > 0; got 4, 4, 3, 0"):
        make_laboratory(beta=0)


# REINFORCE and its baselines


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
@pytest.mark.parametrize("baseline", [0.0, 2.5], ids=["none", "constant"])
def test_reinforce_is_unbiased(policy, baseline):
    assert verdict(LAB, policy, reinforce(LAB, baseline)).error < EXACT


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_reward_to_go_is_unbiased(policy):
    def loss(draws: Draws) -> Tensor:
        to_go_BT = reward_to_go(rewards(LAB, draws), draws.mask_BT)
        return masked_sum(reinforce_loss(draws.logp_BT, to_go_BT), draws.mask_BT)

    assert verdict(LAB, policy, loss).error < EXACT


def test_a_baseline_that_knows_the_answer_is_biased():
    found = verdict(LAB, POLICIES["table"], reinforce(LAB, lambda draws: 0.5 * draws.mask_BT.sum(-1)))
    print(f"baseline 0.5 x length of the answer itself: {found}")
    assert found.error > 0.05


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_leave_one_out_is_unbiased_over_all_pairs(policy):
    assert verdict(LAB, policy, grouped(LAB, leave_one_out), group=2).error < EXACT


@pytest.mark.parametrize("group", [3, 4])
def test_leave_one_out_is_unbiased_over_all_larger_groups(group):
    assert verdict(SMALL, Table(SMALL, seed=1), grouped(SMALL, leave_one_out), group=group).error < EXACT


@pytest.mark.parametrize(("lab", "group"), [(LAB, 2), (SMALL, 3), (SMALL, 4)])
def test_the_mean_with_the_own_answer_gives_less_of_the_gradient(lab, group):
    policy = Table(lab, seed=1)
    shrunk_D = expected_gradient(lab, policy, grouped(lab, group_mean), group=group)
    exact_D = exact_gradient(lab, policy)
    assert compare(shrunk_D, (group - 1) / group * exact_D).error < EXACT
    assert compare(shrunk_D, exact_D).scale == pytest.approx((group - 1) / group, abs=EXACT)


def test_what_leave_one_out_does_to_the_variance():
    # one group of 4 answers, summed over prompts, against 4 answers without a baseline
    figures = []
    for offset in (0.0, 2.0, 5.0):
        lab = make_laboratory(seed=0, vocabulary=3, length=3, offset=offset)
        policy = Table(lab, seed=1)
        with_baseline = variance(lab, policy, grouped(lab, leave_one_out), group=4).sum()
        without = variance(lab, policy, reinforce(lab)).sum() / 4
        figures.append(float(with_baseline / without))
        print(f"offset {offset}: leave-one-out (G = 4) has {figures[-1]:.3f} of the variance without a baseline")
    assert figures[0] > 1 > figures[1] > figures[2]  # it need not help where rewards centre on zero


# the critic and PPO


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_any_critic_is_unbiased_at_lambda_one(policy):
    assert verdict(LAB, policy, actor_critic(LAB, random_values(LAB), 1.0)).error < EXACT


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95])
def test_a_right_critic_is_unbiased_at_any_lambda(lambda_):
    policy = POLICIES["table"]
    assert verdict(LAB, policy, actor_critic(LAB, LAB.values(policy()), lambda_)).error < EXACT


def test_a_wrong_critic_is_biased_below_lambda_one():
    errors = []
    for lambda_ in (1.0, 0.99, 0.95, 0.8, 0.5, 0.0):
        found = verdict(LAB, POLICIES["table"], actor_critic(LAB, random_values(LAB), lambda_))
        print(f"lambda {lambda_}: error {found.error:.2e}, cosine {found.cosine:.4f}, scale {found.scale:.4f}")
        errors.append(found.error)
    assert errors == sorted(errors)
    assert errors[0] < EXACT < 1e-2 < errors[1]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
@pytest.mark.parametrize("lambda_", [0.95, 1.0])
def test_before_the_first_step_ppo_is_reinforce(policy, lambda_):
    value_PS = random_values(LAB)
    ppo_D = expected_gradient(LAB, policy, actor_critic(LAB, value_PS, lambda_, ppo=True))
    reinforce_D = expected_gradient(LAB, policy, actor_critic(LAB, value_PS, lambda_))
    assert torch.equal(ppo_D, reinforce_D)


# KL in a loss


def sequence_kl(estimate: Callable[[Tensor, Tensor], Tensor]) -> Estimator:
    return lambda draws: estimate(draws.logp_BT.sum(-1), draws.ref_logp_BT.sum(-1))


def token_kl(estimate: Callable[[Tensor, Tensor], Tensor]) -> Estimator:
    return lambda draws: masked_sum(estimate(draws.logp_BT, draws.ref_logp_BT), draws.mask_BT)


def kl_gradients(lab: Laboratory, policy: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Of KL(pi || ref) and of KL(ref || pi), by enumeration; the step a loss takes is minus these."""
    logp_PA, ref_logp_PA = lab.answer_logp(policy()), lab.answer_logp(lab.ref_PSV)
    both = (logp_PA.exp() * (logp_PA - ref_logp_PA)).sum(-1), (ref_logp_PA.exp() * (ref_logp_PA - logp_PA)).sum(-1)
    reverse_D, forward_D = (
        torch.cat([g.flatten() for g in torch.autograd.grad(kl_P.mean(), list(policy.parameters()), retain_graph=True)])
        for kl_P in both
    )
    return reverse_D, forward_D


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_what_kl_estimators_do_in_a_loss(policy):
    reverse_D, forward_D = kl_gradients(LAB, policy)
    steps = {e.__name__: expected_gradient(LAB, policy, sequence_kl(e)) for e in (k1, k2, k3)}
    assert steps["k1"].norm() < EXACT * reverse_D.norm()  # nothing at all
    assert compare(steps["k2"], -reverse_D).error < EXACT
    assert compare(steps["k3"], -forward_D).error < EXACT
    assert compare(steps["k3"], -reverse_D).error > 0.1


def test_what_kl_estimators_forget_token_by_token():
    reverse_D, forward_D = kl_gradients(LAB, POLICIES["table"])
    per_state = lambda draws: masked_sum(full_kl(draws.logp_BTV, draws.ref_logp_BTV), draws.mask_BT)  # noqa: E731
    assert expected_gradient(LAB, POLICIES["table"], token_kl(k1)).norm() < EXACT * reverse_D.norm()
    for name, estimator, aim_D in (
        ("k2 per token against KL(pi || ref)", token_kl(k2), reverse_D),
        ("full KL per state against KL(pi || ref)", per_state, reverse_D),
        ("k3 per token against KL(ref || pi)", token_kl(k3), forward_D),
    ):
        found = compare(expected_gradient(LAB, POLICIES["table"], estimator), -aim_D)
        print(f"{name}: error {found.error:.3f}, cosine {found.cosine:.3f}")
        assert found.error > 0.05
        assert found.cosine > 0.5


def test_k1_and_k3_as_numbers_expect_the_kl_and_k2_does_not():
    logp_PA, ref_logp_PA = LAB.answer_logp(POLICIES["table"]().detach()), LAB.answer_logp(LAB.ref_PSV)
    found = {e.__name__: (logp_PA.exp() * e(logp_PA, ref_logp_PA)).sum(-1) for e in (k1, k2, k3)}
    # token by token: the full KL at each prefix, times how often it is reached
    draws = LAB.draws(POLICIES["table"]().detach(), torch.arange(LAB.answers).expand(3, -1))
    kl_PA = masked_sum(full_kl(draws.logp_BTV, draws.ref_logp_BTV), draws.mask_BT).view(3, -1)
    kl_P = (logp_PA.exp() * kl_PA).sum(-1)
    torch.testing.assert_close(found["k1"], kl_P)
    torch.testing.assert_close(found["k3"], kl_P)
    assert ((found["k2"] - kl_P).abs() > 0.01).all()


def test_kl_in_the_reward_is_kl_in_the_objective():
    # the rewards alone give grad E[r]; with -beta k1 in them, grad (E[r] - beta KL)
    policy, reverse_D = POLICIES["table"], kl_gradients(LAB, POLICIES["table"])[0]

    def without_kl(draws: Draws) -> Tensor:
        advantage_BT = draws.reward_B.unsqueeze(-1).expand_as(draws.logp_BT)
        return masked_sum(reinforce_loss(draws.logp_BT, advantage_BT), draws.mask_BT)

    kl_part_D = expected_gradient(LAB, policy, without_kl) - expected_gradient(LAB, policy, reinforce(LAB))
    assert compare(kl_part_D, LAB.beta * reverse_D).error < EXACT


def test_entropy_in_a_loss_is_the_entropy_at_the_visited_prefixes():
    policy = POLICIES["table"]
    found_D = expected_gradient(LAB, policy, lambda draws: masked_sum(-entropy(draws.logp_BTV), draws.mask_BT))
    logp_PSV: Tensor = policy()
    reached_PS = torch.zeros(3, 40, dtype=torch.float64)
    probability_PA = LAB.answer_logp(logp_PSV.detach()).exp()
    for a, t in LAB.mask_AT.nonzero().tolist():
        reached_PS[:, LAB.state_AT[a, t]] += probability_PA[:, a]
    bonus = -(reached_PS * (logp_PSV.exp() * logp_PSV).sum(-1)).sum(-1).mean()
    (expected_PSV,) = torch.autograd.grad(bonus, list(policy.parameters()))
    assert compare(found_D, expected_PSV.flatten()).error < EXACT
