"""The exact laboratory on what is biased, by how much, and on variances. Run with `-rP` to read the figures."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from plaudit.advantages import (
    gae,
    group_mean,
    group_normalised,
    leave_one_out,
    minus_baseline,
    per_token,
    token_rewards,
    whiten,
)
from plaudit.kl import k1
from plaudit.losses import masked_sum, reinforce_loss
from plaudit.testing import (
    Comparison,
    Draws,
    Estimator,
    Laboratory,
    Network,
    Table,
    bias_table,
    biases,
    compare,
    exact_gradient,
    expected_gradient,
    make_laboratory,
    variance,
)

EXACT = 1e-12
SMALL = make_laboratory(seed=0, vocabulary=3, length=3)  # 15 answers
UNBIASED = {
    "no baseline",
    "constant 2.5",
    "leave-one-out, G = 2",
    "leave-one-out, G = 3",
    "any critic, lambda = 1.0",
    "old answers: weights of whole answers",
    "KL in the loss: k2 of the answer",
    "KL in the loss: ratio_k3 of the answer",
    "KL in the loss: whole vocabulary, later tokens too",
}
SCALED = {  # the right direction, and another length
    "group mean, own answer included, G = 2": 1 / 2,
    "group mean, own answer included, G = 3": 2 / 3,
    "batch mean, one answer of each prompt": 2 / 3,
    "divided by a constant, 4 tokens": 1 / 4,
}


def returns(lab: Laboratory, draws: Draws) -> Tensor:
    kl_BT = k1(draws.logp_BT, draws.ref_logp_BT)
    return token_rewards(draws.reward_B, kl_BT, draws.mask_BT, beta=lab.beta).sum(-1)


def reinforce(lab: Laboratory, baseline_P: Tensor | None = None) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        base_B = torch.zeros_like(draws.reward_B) if baseline_P is None else baseline_P[draws.prompt_B]
        advantage_B = minus_baseline(returns(lab, draws), base_B)
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    return loss


@pytest.fixture(scope="module")
def found() -> dict[str, Comparison]:
    return biases(SMALL, Table(SMALL, seed=1))


# the table


def test_what_is_exact_and_what_is_not(found):
    assert UNBIASED | SCALED.keys() < found.keys()
    for name, comparison in found.items():
        print(f"{name}: {comparison}, residual {comparison.residual:.3f}")
        if name in UNBIASED:
            assert comparison.error < EXACT, name
        elif name in SCALED:
            assert comparison.scale == pytest.approx(SCALED[name], abs=EXACT), name
            assert comparison.residual < 1e-7, name
        else:
            assert comparison.residual > 0.01, name


def test_biases_in_their_order(found):
    error = {name: comparison.error for name, comparison in found.items()}
    trusted = [error[f"any critic, lambda = {lambda_}"] for lambda_ in (1.0, 0.95, 0.5, 0.0)]
    assert trusted == sorted(trusted)
    # correcting tokens is better than nothing; a cap costs
    assert error["old answers: weights of tokens"] < error["old answers: no correction"]
    assert error["old answers: weights of tokens"] < error["old answers: weights of tokens, truncated at 1"]
    # the gradient through the weight adds nothing that k2 does not have, on-policy
    assert error["KL in the loss: k2 of each token"] == pytest.approx(error["KL in the loss: ratio_k3 of each token"])


def test_the_table_is_what_was_found(found):
    lines = bias_table(SMALL, Table(SMALL, seed=1)).splitlines()
    assert lines[0] == "| estimator | error | cosine | scale | residual |"
    cells = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}
    assert cells.keys() == found.keys()
    assert cells["no baseline"] == "| no baseline | 0 | 1.000 | 1.000 | 0 |"
    length = found["divided by the answer's length"]
    numbers = [float(x) for x in re.findall(r"\| (-?[\d.]+)", cells["divided by the answer's length"])]
    expected = [length.error, length.cosine, length.scale, length.residual]
    assert numbers == pytest.approx(expected, abs=5e-4)
    assert bias_table().splitlines() == lines  # the task it takes by itself


# what is biased, on larger tasks


def normalised(lab: Laboratory) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        advantage_B = group_normalised(returns(lab, draws), draws.group_B)
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    return loss


def by_length(lab: Laboratory) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        advantage_B = leave_one_out(returns(lab, draws), draws.group_B) / draws.mask_BT.sum(-1)
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    return loss


def test_how_far_off_the_published_weightings_are():
    # at the reference, G = 2, over all pairs of 121 answers
    cosines: dict[str, list[float]] = {"group-normalised": [], "divided by length": []}
    for seed in range(8):
        lab = make_laboratory(seed)
        policy = Table(lab)
        exact_D = exact_gradient(lab, policy)
        for name, estimator in zip(cosines, (normalised(lab), by_length(lab)), strict=True):
            comparison = compare(expected_gradient(lab, policy, estimator, group=2), exact_D)
            print(f"{name}, seed {seed}: cosine {comparison.cosine:.3f}, residual {comparison.residual:.3f}")
            cosines[name].append(comparison.cosine)
    assert 0.92 < min(cosines["group-normalised"]) < max(cosines["group-normalised"]) < 0.99
    assert 0.86 < min(cosines["divided by length"]) < max(cosines["divided by length"]) < 0.97


def test_the_kind_of_deviation_and_epsilon_change_only_the_length():
    policy = Table(SMALL, seed=1)
    exact_D, found = exact_gradient(SMALL, policy), {}
    for deviation in ("population", "sample"):

        def loss(draws: Draws, kind: str = deviation) -> Tensor:
            advantage_B = group_normalised(
                returns(SMALL, draws),
                draws.group_B,
                deviation=kind,  # type: ignore[arg-type]
                epsilon=0.0,
            )
            return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

        found[deviation] = compare(expected_gradient(SMALL, policy, loss, group=3), exact_D)
    assert found["sample"].cosine == pytest.approx(found["population"].cosine)
    assert found["population"].scale == pytest.approx(found["sample"].scale * (3 / 2) ** 0.5)


def test_a_pair_normalised_knows_only_who_won():
    # G = 2: the better answer gets 1, the worse -1 (population), whatever lies between them
    policy = Table(SMALL, seed=1)

    def sign(draws: Draws) -> Tensor:
        return_N2 = returns(SMALL, draws).view(-1, 2)
        advantage_B = (return_N2 - return_N2.flip(-1)).sign().flatten() / 2**0.5
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    sign_D = expected_gradient(SMALL, policy, sign, group=2)
    assert compare(expected_gradient(SMALL, policy, normalised(SMALL), group=2), sign_D).error < 0.01  # epsilon 1e-4


def test_whitened_scores_of_one_group_are_group_normalised():
    policy = Table(SMALL, seed=1)

    def whitened(draws: Draws) -> Tensor:
        return_N2 = returns(SMALL, draws).view(-1, 2)
        advantage_B = torch.cat([whiten(pair, torch.ones(2).bool(), epsilon=1e-12) for pair in return_N2])
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    whitened_D = expected_gradient(SMALL, policy, whitened, group=2)
    normalised_D = expected_gradient(SMALL, policy, normalised(SMALL), group=2)
    assert compare(normalised_D * 2**0.5, whitened_D).error < 0.01  # the sample's deviation is larger by sqrt 2


# variances


class Scores:
    """[A, D] the gradient of each answer's log-probability to one prompt, with its probability and return."""

    def __init__(self, lab: Laboratory, policy: torch.nn.Module, prompt: int) -> None:
        logp_A = lab.answer_logp(policy())[prompt]
        rows = torch.autograd.grad(
            logp_A, list(policy.parameters()), torch.eye(lab.answers, dtype=torch.float64), is_grads_batched=True
        )
        self.score_AD = torch.cat([row.flatten(1) for row in rows], -1)
        self.p_A = logp_A.detach().exp()
        kl_A = logp_A.detach() - lab.answer_logp(lab.ref_PSV)[prompt]
        self.return_A = lab.reward_PA[prompt] - lab.beta * kl_A

    def optimal_constant(self) -> float:
        """E[R |s|^2] / E[|s|^2]"""
        weight_A = self.p_A * self.score_AD.square().sum(-1)
        return float((weight_A * self.return_A).sum() / weight_A.sum())

    def leave_one_out(self, group: int) -> float:
        """Trace of the covariance of a U-statistic of pairs, 2 / (G (G - 1)) (2 (G - 2) zeta_1 + zeta_2)."""
        # the kernel of a pair is (r_a - r_b)(s_a - s_b) / 2
        p_A, r_A, s_AD = self.p_A, self.return_A, self.score_AD
        mean_D = (p_A * r_A) @ s_AD  # E[s] = 0
        one_AD = (r_A.unsqueeze(-1) * s_AD - (p_A @ r_A) * s_AD + mean_D) / 2  # given the first of the pair
        zeta_1 = p_A @ one_AD.square().sum(-1) - mean_D.square().sum()
        gram_AA = s_AD @ s_AD.T
        apart_AA = gram_AA.diag() + gram_AA.diag().unsqueeze(-1) - 2 * gram_AA
        pair_AA = (r_A - r_A.unsqueeze(-1)).square() * apart_AA / 4
        zeta_2 = p_A @ pair_AA @ p_A - mean_D.square().sum()
        return float(2 / (group * (group - 1)) * (2 * (group - 2) * zeta_1 + zeta_2))


def grouped(lab: Laboratory) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        advantage_B = leave_one_out(returns(lab, draws), draws.group_B)
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    return loss


@pytest.mark.parametrize("group", [2, 3, 4])
def test_leave_one_out_has_the_variance_of_its_u_statistic(group):
    policy = Network(SMALL, seed=1, hidden=8)
    expected_P = torch.tensor([Scores(SMALL, policy, p).leave_one_out(group) for p in range(3)], dtype=torch.float64)
    torch.testing.assert_close(variance(SMALL, policy, grouped(SMALL), group=group), expected_P)


def test_the_own_answer_in_the_mean_shrinks_the_scatter_too():
    policy = Table(SMALL, seed=1)

    def shrunk(draws: Draws) -> Tensor:
        advantage_B = group_mean(returns(SMALL, draws), draws.group_B)
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage_B, draws.mask_BT)), draws.mask_BT)

    shrunk_P = variance(SMALL, policy, shrunk, group=3)
    torch.testing.assert_close(shrunk_P, (2 / 3) ** 2 * variance(SMALL, policy, grouped(SMALL), group=3))


@pytest.mark.parametrize("offset", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("kind", ["table", "network"])
def test_the_optimal_constant_never_raises_the_variance(kind, offset):
    for seed in range(5):
        lab = make_laboratory(seed, vocabulary=3, length=3, offset=offset)
        policy = Table(lab, seed=seed) if kind == "table" else Network(lab, seed=seed, hidden=8)
        best_P = torch.tensor([Scores(lab, policy, p).optimal_constant() for p in range(3)], dtype=torch.float64)
        with_best_P = variance(lab, policy, reinforce(lab, best_P))
        assert (with_best_P <= variance(lab, policy, reinforce(lab))).all()
        for step in (-0.1, 0.1):  # and no other constant does better
            assert (with_best_P < variance(lab, policy, reinforce(lab, best_P + step))).all()


def with_value(lab: Laboratory, policy: torch.nn.Module) -> Estimator:
    value_PS = lab.values(policy())

    def loss(draws: Draws) -> Tensor:
        reward_BT = token_rewards(draws.reward_B, k1(draws.logp_BT, draws.ref_logp_BT), draws.mask_BT, beta=lab.beta)
        value_BT = value_PS[draws.prompt_B.unsqueeze(-1), draws.state_BT]
        advantage_BT = gae(reward_BT, value_BT, draws.mask_BT, lambda_=1.0).advantage_BT
        return masked_sum(reinforce_loss(draws.logp_BT, advantage_BT), draws.mask_BT)

    return loss


def test_which_baseline_helps_and_when():
    # summed over prompts, 4 answers each, 121 answers: over "no baseline", at three scales of the prompts' offsets
    shares: dict[float, list[tuple[float, float]]] = {0.0: [], 2.0: [], 5.0: []}
    for offset, share in shares.items():
        for seed in range(3):
            lab = make_laboratory(seed, offset=offset)
            policy = Table(lab, seed=seed)
            none = float(variance(lab, policy, reinforce(lab)).sum()) / 4
            others = sum(Scores(lab, policy, p).leave_one_out(4) for p in range(3))
            exact = float(variance(lab, policy, with_value(lab, policy)).sum()) / 4
            share.append((others / none, exact / none))
            print(f"offset {offset}, seed {seed}: leave-one-out {others / none:.3f}, exact value {exact / none:.3f}")
    for offset in (2.0, 5.0):
        assert max(max(share) for share in shares[offset]) < 1
    assert all(value < 1 for _, value in shares[0.0])
    assert any(others > 1 for others, _ in shares[0.0])  # rewards centre on zero: there is little to take away
