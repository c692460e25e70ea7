"""The exact laboratory on policy gradients: which estimators are unbiased, over all answers or all groups of answers.

What is biased, and the variances: `test_laboratory_bias`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from plaudit.advantages import (
    RunningMean,
    group_mean,
    leave_one_out,
    minus_baseline,
    per_token,
    token_rewards,
)
from plaudit.kl import full_kl, k1
from plaudit.losses import (
    KlEstimator,
    Measured,
    conjugate_gradient,
    dpo_loss,
    line_search,
    masked_sum,
    mean_of,
    q_of,
    ratio_surrogate,
    reinforce_loss,
    sequence_full_kl_loss,
    sequence_kl_loss,
    sequence_weights,
    soft_policy,
    soft_target,
    soft_value,
    step_size,
    token_kl_loss,
    token_portion,
    weighted_reinforce_loss,
)
from plaudit.testing import (
    Draws,
    Estimator,
    Laboratory,
    Network,
    Table,
    compare,
    exact_gradient,
    expected_gradient,
    make_laboratory,
)

EXACT = 1e-12  # what the issue asks is 1e-6; float64 gives this
LAB = make_laboratory(seed=0)
SMALL = make_laboratory(seed=0, vocabulary=3, length=3)  # 15 answers, 3,375 triples
POLICIES = {"table": Table(LAB, seed=1), "network": Network(LAB, seed=1, hidden=16)}
both = pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(lab: Laboratory, policy: torch.nn.Module, estimator: Estimator, **how: object) -> float:
    found_D = expected_gradient(lab, policy, estimator, **how)  # type: ignore[arg-type]
    return compare(found_D, exact_gradient(lab, policy)).error


def returns(lab: Laboratory, draws: Draws) -> Tensor:
    kl_BT = k1(draws.logp_BT, draws.ref_logp_BT)
    return token_rewards(draws.reward_B, kl_BT, draws.mask_BT, beta=lab.beta).sum(-1)


def reinforce(advantage: Callable[[Draws], Tensor]) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage(draws), draws.mask_BT)), draws.mask_BT)

    return loss


def older(policy: torch.nn.Module, lab: Laboratory) -> Tensor:
    """A policy that is not the one being tuned."""
    logp_PSV: Tensor = policy().detach()
    return (logp_PSV + normal(*lab.ref_PSV.shape, seed=9)).log_softmax(-1)


def kl_step(lab: Laboratory, policy: torch.nn.Module) -> Tensor:
    """Minus the gradient of KL(pi, ref), by enumeration."""
    logp_PA, ref_logp_PA = lab.answer_logp(policy()), lab.answer_logp(lab.ref_PSV)
    kl = (logp_PA.exp() * (logp_PA - ref_logp_PA)).sum(-1).mean()
    gradients: tuple[Tensor, ...] = torch.autograd.grad(kl, list(policy.parameters()))
    step_D: Tensor = -torch.cat([gradient.flatten() for gradient in gradients])
    return step_D


# baselines known before the answer


@both
def test_the_mean_of_past_rounds_is_unbiased(policy):
    running, generator = RunningMean(decay=0.8), torch.Generator().manual_seed(0)
    for _ in range(3):
        past = LAB.draws(policy(), LAB.sample(policy(), 4, generator))
        running = running.update(returns(LAB, past))
    assert abs(running.baseline) > 0.01
    assert error(LAB, policy, reinforce(lambda draws: minus_baseline(returns(LAB, draws), running.baseline))) < EXACT


def test_a_running_mean_updated_before_its_use_shrinks_the_gradient():
    policy, running = POLICIES["table"], RunningMean(decay=1.0).update(torch.tensor([0.3, -1.0, 2.0]))

    def too_early(draws: Draws) -> Tensor:
        return_B = returns(LAB, draws)
        baseline_B = torch.stack([torch.tensor(running.update(r.view(1)).baseline) for r in return_B]).double()
        return minus_baseline(return_B, baseline_B)

    # r - (total + r) / (3 + 1) = 3/4 r - total / 4
    found = compare(expected_gradient(LAB, policy, reinforce(too_early)), 0.75 * exact_gradient(LAB, policy))
    assert found.error < 1e-6


@both
def test_the_score_of_the_prompt_is_unbiased(policy):
    score_P = normal(LAB.prompts)
    assert error(LAB, policy, reinforce(lambda d: minus_baseline(returns(LAB, d), score_P[d.prompt_B]))) < EXACT


@both
def test_the_greedy_answer_is_unbiased(policy):
    logp_PSV = policy().detach()
    choice_PS = logp_PSV.argmax(-1)
    # the answer all of whose tokens are the likeliest after their prefix
    agrees_PAT = (choice_PS[:, LAB.state_AT] == LAB.token_AT) | ~LAB.mask_AT
    greedy_P = agrees_PAT.all(-1).long().argmax(-1)
    assert agrees_PAT.all(-1).sum(-1).tolist() == [1, 1, 1]
    baseline_P = returns(LAB, LAB.draws(logp_PSV, greedy_P.unsqueeze(-1)))
    assert error(LAB, policy, reinforce(lambda d: minus_baseline(returns(LAB, d), baseline_P[d.prompt_B]))) < EXACT


@pytest.mark.parametrize(("lab", "group"), [(LAB, 2), (SMALL, 3)])
def test_the_mean_of_fresh_answers_is_unbiased(lab, group):
    # the first of a group is trained on, the others are only its baseline
    def loss(draws: Draws) -> Tensor:
        return_NG = returns(lab, draws).view(-1, group)
        advantage_NG = torch.zeros_like(return_NG)
        advantage_NG[:, 0] = minus_baseline(return_NG[:, 0], return_NG[:, 1:].mean(-1))
        loss_BT = reinforce_loss(draws.logp_BT, per_token(advantage_NG.flatten(), draws.mask_BT))
        loss_B: Tensor = group * masked_sum(loss_BT, draws.mask_BT)
        return loss_B

    assert error(lab, Table(lab, seed=1), loss, group=group) < EXACT


@both
def test_any_value_per_prefix_is_unbiased_with_the_whole_return(policy):
    value_PS = 3 * normal(*LAB.ref_PSV.shape[:2], seed=5)

    def loss(draws: Draws) -> Tensor:
        value_BT = value_PS[draws.prompt_B.unsqueeze(-1), draws.state_BT]
        advantage_BT = returns(LAB, draws).unsqueeze(-1) - value_BT
        return masked_sum(reinforce_loss(draws.logp_BT, advantage_BT), draws.mask_BT)

    assert error(LAB, policy, loss) < EXACT


# batches of several prompts


def test_a_batch_of_several_prompts_is_as_good_as_one_prompt_at_a_time():
    policy = Table(SMALL, seed=1)
    estimator = reinforce(lambda draws: returns(SMALL, draws))
    one_D = expected_gradient(SMALL, policy, estimator)
    assert compare(expected_gradient(SMALL, policy, estimator, group=(0, 1, 2)), one_D).error < EXACT
    # prompt 2 alone
    (alone_D,) = torch.autograd.grad(SMALL.objective(policy())[2], list(policy.parameters()))
    assert compare(expected_gradient(SMALL, policy, estimator, group=(2,)), alone_D.flatten()).error < EXACT


def test_the_mean_of_a_batch_of_several_prompts():
    # here each enumerated batch is a group: one answer to each of three prompts
    policy = Table(SMALL, seed=1)
    exact_D = exact_gradient(SMALL, policy)
    others = reinforce(lambda draws: leave_one_out(returns(SMALL, draws), draws.group_B))
    assert compare(expected_gradient(SMALL, policy, others, group=(0, 1, 2)), exact_D).error < EXACT
    everyone = reinforce(lambda draws: group_mean(returns(SMALL, draws), draws.group_B))
    shrunk_D = expected_gradient(SMALL, policy, everyone, group=(0, 1, 2))
    assert compare(shrunk_D, 2 / 3 * exact_D).error < EXACT


# answers of another policy


def test_draws_remember_who_sampled_them():
    policy = POLICIES["table"]
    old_PSV, answer_PG = older(policy, LAB), torch.tensor([[0, 5], [7, 7], [120, 40]])
    draws = LAB.draws(policy(), answer_PG, old_PSV)
    expected_B = LAB.answer_logp(old_PSV).gather(1, answer_PG).flatten()
    torch.testing.assert_close(draws.old_logp_BT.sum(-1), expected_B)
    assert not draws.old_logp_BT.requires_grad
    assert torch.equal(LAB.draws(policy(), answer_PG).old_logp_BT, draws.logp_BT.detach())


@both
@pytest.mark.parametrize("baseline", [0.0, 2.5])
def test_weights_of_whole_answers_are_unbiased(policy, baseline):
    def loss(draws: Draws) -> Tensor:
        weight_B = sequence_weights(draws.logp_BT, draws.old_logp_BT, draws.mask_BT)
        advantage_BT = per_token(minus_baseline(returns(LAB, draws), baseline), draws.mask_BT)
        loss_BT = weighted_reinforce_loss(draws.logp_BT, advantage_BT, per_token(weight_B, draws.mask_BT))
        return masked_sum(loss_BT, draws.mask_BT)

    assert error(LAB, policy, loss, old_PSV=older(policy, LAB)) < EXACT
    assert error(LAB, policy, loss) < EXACT  # on-policy, all weights are 1


# KL in the loss


EXACT_ESTIMATORS: tuple[KlEstimator, ...] = ("k2", "ratio_k3")


def of_answers(name: KlEstimator) -> Estimator:
    return lambda d: sequence_kl_loss(d.logp_BT, d.ref_logp_BT, d.mask_BT, estimator=name, old_logp_BT=d.old_logp_BT)


@both
def test_which_kl_losses_are_exact_for_whole_answers(policy):
    step_D = kl_step(LAB, policy)
    for estimator in EXACT_ESTIMATORS:
        assert compare(expected_gradient(LAB, policy, of_answers(estimator)), step_D).error < EXACT
    found_D = expected_gradient(
        LAB, policy, lambda d: sequence_full_kl_loss(d.logp_BT, d.logp_BTV, d.ref_logp_BTV, d.mask_BT)
    )
    assert compare(found_D, step_D).error < EXACT


def test_the_weighted_k3_is_exact_for_answers_of_another_policy_and_k2_is_not():
    policy = POLICIES["table"]
    step_D, old_PSV, found = kl_step(LAB, policy), older(policy, LAB), {}
    for name in EXACT_ESTIMATORS:
        found[name] = compare(expected_gradient(LAB, policy, of_answers(name), old_PSV=old_PSV), step_D)
    assert found["ratio_k3"].error < EXACT
    assert found["k2"].error > 0.1


@both
def test_what_kl_losses_per_token_follow(policy):
    # the divergence after each prefix, in one direction or the other, with the visits held fixed
    def visited(divergence: Callable[[Draws], Tensor]) -> Tensor:
        return expected_gradient(LAB, policy, lambda d: masked_sum(divergence(d), d.mask_BT))

    def of_tokens(estimator: KlEstimator) -> Tensor:
        return visited(lambda d: token_kl_loss(d.logp_BT, d.ref_logp_BT, estimator=estimator))

    reverse_D = visited(lambda d: full_kl(d.logp_BTV, d.ref_logp_BTV))
    forward_D = visited(lambda d: -(d.ref_logp_BTV.exp() * d.logp_BTV).sum(-1))  # KL(ref, pi) but for a constant
    assert compare(of_tokens("k2"), reverse_D).error < EXACT
    assert compare(of_tokens("ratio_k3"), reverse_D).error < EXACT
    assert compare(of_tokens("k3"), forward_D).error < EXACT
    assert compare(reverse_D, kl_step(LAB, policy)).error > 0.05


# soft values


def exact_q(lab: Laboratory, alpha: float, ref_PSV: Tensor | None) -> tuple[Tensor, Tensor]:
    """[P, S, V] and [P, S] the soft Bellman recursion, from the last tokens back; prefixes are ordered by length."""
    q_PSV = torch.zeros_like(lab.ref_PSV)
    value_PS = torch.zeros_like(lab.ref_PSV[..., 0])
    steps: dict[int, dict[int, tuple[int, int | None]]] = {}  # prefix -> token -> an answer through it, next prefix
    for a in range(lab.answers):
        length = int(lab.mask_AT[a].sum())
        for t in range(length):
            following = int(lab.state_AT[a, t + 1]) if t + 1 < length else None
            steps.setdefault(int(lab.state_AT[a, t]), {})[int(lab.token_AT[a, t])] = (a, following)
    for state in sorted(steps, reverse=True):
        for token, (a, following) in steps[state].items():
            q_PSV[:, state, token] = lab.reward_PA[:, a] if following is None else value_PS[:, following]
        ref_PV = None if ref_PSV is None else ref_PSV[:, state]
        value_PS[:, state] = soft_value(q_PSV[:, state], ref_PV, alpha=alpha)
    return q_PSV, value_PS


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_soft_bellman_recursion_reaches_the_optimum(beta):
    lab = make_laboratory(seed=4, beta=beta)
    q_PSV, value_PS = exact_q(lab, beta, lab.ref_PSV)
    torch.testing.assert_close(value_PS[:, 0], lab.optimal_value())  # J* = beta log Z
    best_PSV = soft_policy(q_PSV, lab.ref_PSV, alpha=beta)
    torch.testing.assert_close(best_PSV, lab.optimum())
    torch.testing.assert_close(lab.values(best_PSV), value_PS)
    # and the targets of any answers are these Q, however far they look
    draws = lab.draws(best_PSV, torch.arange(lab.answers).expand(3, -1))
    where = (draws.prompt_B.unsqueeze(-1), draws.state_BT)
    score_BT = token_rewards(draws.reward_B, torch.zeros_like(draws.logp_BT), draws.mask_BT, beta=0.0)
    q_BT = q_of(q_PSV[where], lab.token_AT[draws.answer_B])
    for lambda_ in (0.0, 0.5, 1.0):
        target_BT = soft_target(score_BT, value_PS[where], q_BT, draws.mask_BT, lambda_=lambda_)
        torch.testing.assert_close(target_BT, q_BT.masked_fill(~draws.mask_BT, 0.0))


def test_with_plain_entropy_all_answers_weigh_the_same():
    lab = make_laboratory(seed=4, beta=0.5)
    q_PSV, value_PS = exact_q(lab, 0.5, None)
    torch.testing.assert_close(value_PS[:, 0], 0.5 * (lab.reward_PA / 0.5).logsumexp(-1))
    best_PA = lab.answer_logp(soft_policy(q_PSV, alpha=0.5))
    torch.testing.assert_close(best_PA, (lab.reward_PA / 0.5).log_softmax(-1))


# DPO


def test_dpo_on_honest_labels_rests_at_the_optimum():
    # labels P(a wins) = sigmoid(r_a - r_b) and beta_dpo = beta: over all pairs, drawn from the reference
    lab = make_laboratory(seed=2, vocabulary=3, length=3, beta=0.4)
    ref_logp_PA = lab.answer_logp(lab.ref_PSV)
    weight_PAB = (ref_logp_PA.unsqueeze(-1) + ref_logp_PA.unsqueeze(1)).exp()
    weight_PAB = weight_PAB * torch.sigmoid(lab.reward_PA.unsqueeze(-1) - lab.reward_PA.unsqueeze(1))

    def gradient(policy: Table, beta: float) -> Tensor:
        logp_PA = lab.answer_logp(policy())
        pair = (logp_PA.unsqueeze(-1), logp_PA.unsqueeze(1), ref_logp_PA.unsqueeze(-1), ref_logp_PA.unsqueeze(1))
        better, worse, ref_better, ref_worse = (x.expand_as(weight_PAB) for x in pair)
        loss = (weight_PAB * dpo_loss(better, worse, ref_better, ref_worse, beta=beta)).sum()
        return torch.autograd.grad(loss, list(policy.parameters()))[0]

    best = Table(lab)
    best.logit_PSV.data = lab.optimum()
    assert gradient(best, 0.4).norm() < EXACT
    assert gradient(best, 0.5).norm() > 1e-3
    assert gradient(Table(lab), 0.4).norm() > 1e-2


# TRPO


@pytest.mark.parametrize(
    ("bound", "spoilt"), [(1e-5, False), (0.01, False), (0.01, True)], ids=["a small step", "a step", "no step"]
)
def test_a_trust_region_step_keeps_its_promise(bound, spoilt):
    policy, lab = Network(LAB, seed=1, hidden=16), LAB
    parameters = list(policy.parameters())
    with torch.no_grad():
        old_PSV = policy()
    answer_PG = lab.sample(old_PSV, 32, torch.Generator().manual_seed(0))
    old = lab.draws(old_PSV, answer_PG)
    advantage_BT = per_token(leave_one_out(returns(lab, old), old.group_B), old.mask_BT)

    def surrogate(draws: Draws) -> Tensor:
        return -mean_of([token_portion(ratio_surrogate(draws.logp_BT, old.logp_BT, advantage_BT), old.mask_BT)])

    def divergence(draws: Draws) -> Tensor:  # KL(old, new) on the visited prefixes
        kl_BT = (old.logp_BTV.exp() * (old.logp_BTV - draws.logp_BTV)).sum(-1)
        return mean_of([token_portion(kl_BT, old.mask_BT)])

    def flat(tensors: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in tensors])

    def fisher(x_D: Tensor) -> Tensor:
        slope_D = flat(torch.autograd.grad(divergence(lab.draws(policy(), answer_PG)), parameters, create_graph=True))
        return flat(torch.autograd.grad(slope_D @ x_D, parameters)) + 1e-4 * x_D

    before = surrogate(lab.draws(policy(), answer_PG))
    gradient_D, start = flat(torch.autograd.grad(before, parameters)), before.item()
    x_D = conjugate_gradient(fisher, gradient_D, iterations=20)
    full_D = step_size(x_D, fisher(x_D), bound=bound) * x_D * (-1 if spoilt else 1)
    before_D = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    assert float(gradient_D @ full_D) * (-1 if spoilt else 1) > 0

    @torch.no_grad()
    def measure(fraction: float) -> Measured:
        torch.nn.utils.vector_to_parameters(before_D + fraction * full_D, parameters)
        draws = lab.draws(policy(), answer_PG)
        return Measured(float(surrogate(draws)), float(divergence(draws)))

    found = line_search(measure, start=start, bound=bound)
    with torch.no_grad():
        now = lab.draws(policy(), answer_PG)
    if spoilt:  # downhill all the way
        assert found.measured is None
        assert measure(0.0).surrogate == pytest.approx(start)
    else:
        assert found.measured is not None
        assert float(divergence(now)) <= bound
        assert float(surrogate(now)) > start
        assert found.measured == Measured(float(surrogate(now)), float(divergence(now)))
    if bound == 1e-5:  # where the quadratic is right; a hair above the bound and it shrinks once
        assert found.fraction >= 0.8
        assert float(divergence(now)) == pytest.approx(found.fraction**2 * bound, rel=0.1)


def test_a_comparison_knows_what_is_left_after_rescaling():
    exact_D = torch.tensor([3.0, 0.0])
    found = compare(torch.tensor([0.3, 0.4]), exact_D)  # cosine 3/5
    assert found.cosine == pytest.approx(0.6)
    assert found.scale == pytest.approx(0.1)
    assert found.error == pytest.approx((2.7**2 + 0.4**2) ** 0.5 / 3)
    assert found.residual == pytest.approx(0.8)
    assert compare(2 * exact_D, exact_D).residual == 0.0
