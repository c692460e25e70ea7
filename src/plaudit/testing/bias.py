"""What common estimators of the policy gradient really follow, by enumeration: which are unbiased, and how far off
the others are.

    print(bias_table())

The objective is that of the laboratory, J = E[r] - beta KL(pi, ref). How far a biased step lies from its gradient
depends on the task and the policy: the numbers are examples, the zeros are facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
from plaudit.losses import (
    KlEstimator,
    clipped_surrogate,
    masked_sum,
    reinforce_loss,
    sequence_clipped_surrogate,
    sequence_full_kl_loss,
    sequence_kl_loss,
    sequence_weights,
    token_kl_loss,
    token_weights,
    weighted_reinforce_loss,
)
from plaudit.testing.laboratory import (
    Comparison,
    Draws,
    Estimator,
    Laboratory,
    Table,
    compare,
    exact_gradient,
    expected_gradient,
    make_laboratory,
)

__all__ = ["bias_table", "biases"]


class _Case(NamedTuple):
    estimator: Estimator
    group: int | Sequence[int] = 1
    old: bool = False  # answers come from another policy


def biases(lab: Laboratory, policy: nn.Module, *, seed: int = 0) -> dict[str, Comparison]:
    """The expected step of each estimator against the exact gradient of J.

    Args:
        lab: a task with few answers: groups of three are enumerated. 15 answers take about a second.
        policy: any module whose call gives `logp_PSV`.
        seed: draws a critic that knows nothing, and the older policy of those that reuse answers, near `policy`.
    """
    generator = torch.Generator().manual_seed(seed)
    noise_PSV = torch.randn(lab.ref_PSV.shape, generator=generator, dtype=torch.float64)
    old_PSV = (policy().detach() + 0.5 * noise_PSV).log_softmax(-1)
    value_PS = torch.randn(lab.ref_PSV.shape[:2], generator=generator, dtype=torch.float64)
    exact_D = exact_gradient(lab, policy)

    def compared(case: _Case) -> Comparison:
        old = old_PSV if case.old else None
        return compare(expected_gradient(lab, policy, case.estimator, group=case.group, old_PSV=old), exact_D)

    cases = _baselines(lab) | _weightings(lab) | _critics(lab, value_PS) | _reuses(lab) | _penalties(lab)
    return {name: compared(case) for name, case in cases.items()}


def bias_table(lab: Laboratory | None = None, policy: nn.Module | None = None) -> str:
    """`biases` as a table in Markdown, on a task of 15 answers unless another one is given."""
    lab = make_laboratory(vocabulary=3, length=3) if lab is None else lab
    found = biases(lab, Table(lab, seed=1) if policy is None else policy)
    rows = [
        f"| {name} | {_number(c.error)} | {c.cosine:.3f} | {c.scale:.3f} | {_number(c.residual)} |"
        for name, c in found.items()
    ]
    return "\n".join(["| estimator | error | cosine | scale | residual |", "|---|---|---|---|---|", *rows])


def _number(error: float) -> str:
    return "0" if error < 1e-7 else f"{error:.3f}"


def _rewards(lab: Laboratory, draws: Draws) -> Tensor:
    kl_BT = k1(draws.logp_BT, draws.ref_logp_BT)
    return token_rewards(draws.reward_B, kl_BT, draws.mask_BT, beta=lab.beta)


def _returns(lab: Laboratory, draws: Draws) -> Tensor:
    return _rewards(lab, draws).sum(-1)


def _reinforce(advantage: Callable[[Draws], Tensor]) -> Estimator:
    def loss(draws: Draws) -> Tensor:
        return masked_sum(reinforce_loss(draws.logp_BT, per_token(advantage(draws), draws.mask_BT)), draws.mask_BT)

    return loss


def _by_group(draws: Draws, x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A function of one batch and its mask, applied to each of the enumerated ones, all of one size."""
    batches = x.view(-1, int((draws.group_B == draws.group_B[0]).sum()), x.shape[-1])
    masks = draws.mask_BT.view_as(batches)
    return torch.cat([function(batch, mask) for batch, mask in zip(batches, masks, strict=True)])


def _baselines(lab: Laboratory) -> dict[str, _Case]:
    together = tuple(range(lab.prompts))

    def whitened(draws: Draws) -> Tensor:
        advantage_BT = per_token(_returns(lab, draws), draws.mask_BT)
        return masked_sum(reinforce_loss(draws.logp_BT, _by_group(draws, advantage_BT, whiten)), draws.mask_BT)

    def by(advantage: Callable[[Tensor, Tensor], Tensor]) -> Estimator:
        return _reinforce(lambda draws: advantage(_returns(lab, draws), draws.group_B))

    grouped: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
        "leave-one-out, G = 2": (leave_one_out, 2),
        "leave-one-out, G = 3": (leave_one_out, 3),
        "group mean, own answer included, G = 2": (group_mean, 2),
        "group mean, own answer included, G = 3": (group_mean, 3),
        "group-normalised, G = 2": (group_normalised, 2),
        "group-normalised, G = 3": (group_normalised, 3),
    }
    return {
        "no baseline": _Case(_reinforce(lambda draws: _returns(lab, draws))),
        "constant 2.5": _Case(_reinforce(lambda draws: minus_baseline(_returns(lab, draws), 2.5))),
        "a baseline that knows the answer: its length": _Case(
            _reinforce(lambda draws: minus_baseline(_returns(lab, draws), draws.mask_BT.sum(-1).double()))
        ),
        **{name: _Case(by(advantage), group) for name, (advantage, group) in grouped.items()},
        "batch mean, one answer of each prompt": _Case(by(group_mean), together),  # each enumerated batch is a group
        "whitened over the batch's tokens": _Case(whitened, together),
    }


def _weightings(lab: Laboratory) -> dict[str, _Case]:
    """What is done to the sum over an answer's tokens, with a baseline that is unbiased without it."""
    plain = _reinforce(lambda draws: leave_one_out(_returns(lab, draws), draws.group_B))

    def by_tokens(draws: Draws) -> Tensor:
        tokens_B = draws.mask_BT.sum(-1)
        of_batch_B = torch.zeros_like(tokens_B).index_add(0, draws.group_B, tokens_B)[draws.group_B]
        return plain(draws) * 2 / of_batch_B

    return {
        "divided by a constant, 4 tokens": _Case(lambda draws: plain(draws) / 4, 2),
        "divided by the answer's length": _Case(lambda draws: plain(draws) / draws.mask_BT.sum(-1), 2),
        "divided by the batch's tokens": _Case(by_tokens, 2),
    }


def _critics(lab: Laboratory, value_PS: Tensor) -> dict[str, _Case]:
    def with_gae(lambda_: float) -> Estimator:
        def loss(draws: Draws) -> Tensor:
            value_BT = value_PS[draws.prompt_B.unsqueeze(-1), draws.state_BT]
            advantage_BT = gae(_rewards(lab, draws), value_BT, draws.mask_BT, lambda_=lambda_).advantage_BT
            return masked_sum(reinforce_loss(draws.logp_BT, advantage_BT), draws.mask_BT)

        return loss

    return {f"any critic, lambda = {lambda_}": _Case(with_gae(lambda_)) for lambda_ in (1.0, 0.95, 0.5, 0.0)}


def _reuses(lab: Laboratory) -> dict[str, _Case]:
    def weighted(weights: Callable[[Draws], Tensor]) -> Estimator:
        def loss(draws: Draws) -> Tensor:
            advantage_BT = per_token(_returns(lab, draws), draws.mask_BT)
            return masked_sum(weighted_reinforce_loss(draws.logp_BT, advantage_BT, weights(draws)), draws.mask_BT)

        return loss

    def of_answer(truncate: float | None) -> Callable[[Draws], Tensor]:
        def weights(draws: Draws) -> Tensor:
            weight_B = sequence_weights(draws.logp_BT, draws.old_logp_BT, draws.mask_BT, truncate=truncate)
            return per_token(weight_B, draws.mask_BT)

        return weights

    def ppo(draws: Draws) -> Tensor:
        advantage_BT = per_token(_returns(lab, draws), draws.mask_BT)
        return masked_sum(clipped_surrogate(draws.logp_BT, draws.old_logp_BT, advantage_BT).loss_BT, draws.mask_BT)

    def gspo(draws: Draws) -> Tensor:
        advantage_B = _returns(lab, draws)
        return sequence_clipped_surrogate(draws.logp_BT, draws.old_logp_BT, advantage_B, draws.mask_BT).loss_B

    cases: dict[str, Estimator] = {
        "weights of whole answers": weighted(of_answer(None)),
        "weights of whole answers, truncated at 1": weighted(of_answer(1.0)),
        "weights of tokens": weighted(lambda draws: token_weights(draws.logp_BT, draws.old_logp_BT)),
        "weights of tokens, truncated at 1": weighted(
            lambda draws: token_weights(draws.logp_BT, draws.old_logp_BT, truncate=1.0)
        ),
        "no correction": weighted(lambda draws: torch.ones_like(draws.logp_BT)),
        "PPO's clip": ppo,
        "GSPO's clip": gspo,
    }
    return {f"old answers: {name}": _Case(estimator, old=True) for name, estimator in cases.items()}


def _penalties(lab: Laboratory) -> dict[str, _Case]:
    """REINFORCE on the reward alone, and the KL as a term of the loss."""
    reward = _reinforce(lambda draws: draws.reward_B)

    def with_sequence(estimator: KlEstimator) -> Estimator:
        return lambda draws: (
            reward(draws)
            + lab.beta * sequence_kl_loss(draws.logp_BT, draws.ref_logp_BT, draws.mask_BT, estimator=estimator)
        )

    def with_token(estimator: KlEstimator) -> Estimator:
        return lambda draws: (
            reward(draws)
            + lab.beta * masked_sum(token_kl_loss(draws.logp_BT, draws.ref_logp_BT, estimator=estimator), draws.mask_BT)
        )

    def with_vocabulary(draws: Draws) -> Tensor:
        kl_B = sequence_full_kl_loss(draws.logp_BT, draws.logp_BTV, draws.ref_logp_BTV, draws.mask_BT)
        return reward(draws) + lab.beta * kl_B

    names: tuple[KlEstimator, ...] = ("k2", "ratio_k3", "k3")
    return {
        **{f"KL in the loss: {name} of the answer": _Case(with_sequence(name)) for name in names},
        "KL in the loss: whole vocabulary, later tokens too": _Case(with_vocabulary),
        **{f"KL in the loss: {name} of each token": _Case(with_token(name)) for name in names},
    }
