"""PPO and leave-one-out REINFORCE learn from sampled answers, nearly all the way to the closed-form optimum.

The task is `make_laboratory(seed)` with beta 1, from the reference, three tasks each with its own rewards, reference,
initialisation and sampling. The share of the way to the optimum is by enumeration. Run with `-rP` to read the figures.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plaudit.advantages import gae, leave_one_out, token_rewards, whiten
from plaudit.kl import k1
from plaudit.losses import clipped_surrogate, masked_sum, mean_of, reinforce_loss, token_portion, value_loss
from plaudit.testing import Critic, Draws, Laboratory, Network, Table, imitate, make_laboratory

SEEDS = 3


class Descent:
    """Adam, its learning rates falling to 0."""

    def __init__(self, steps: int, *modules: tuple[nn.Module, float]) -> None:
        groups = [{"params": list(module.parameters()), "lr": rate} for module, rate in modules]
        self.optimiser = torch.optim.Adam(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimiser, 1.0, 0.0, steps)

    def step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()


def rewards(lab: Laboratory, draws: Draws) -> Tensor:
    return token_rewards(draws.reward_B, k1(draws.logp_BT, draws.ref_logp_BT), draws.mask_BT, beta=lab.beta)


def learn_rloo(
    lab: Laboratory, policy: nn.Module, seed: int, *, rounds: int, answers: int, learning_rate: float, group: int = 4
) -> None:
    generator = torch.Generator().manual_seed(seed)
    descent = Descent(rounds, (policy, learning_rate))
    for _ in range(rounds):
        logp_PSV = policy()
        draws = lab.draws(logp_PSV, lab.sample(logp_PSV, answers, generator))
        group_B = torch.arange(len(draws.answer_B)) // group
        advantage_B = leave_one_out(rewards(lab, draws).sum(-1), group_B)
        loss_BT = reinforce_loss(draws.logp_BT, advantage_B.unsqueeze(-1).expand_as(draws.logp_BT))
        descent.step(masked_sum(loss_BT, draws.mask_BT).mean())


def learn_ppo(
    lab: Laboratory, policy: nn.Module, seed: int, *, rounds: int, answers: int, learning_rate: float, epochs: int = 2
) -> None:
    generator = torch.Generator().manual_seed(seed)
    critic = Critic(lab, seed=seed)
    descent = Descent(rounds * epochs, (policy, learning_rate), (critic, 1e-2))
    for _ in range(rounds):
        with torch.no_grad():
            old_PSV, old_value_PS = policy(), critic()
        answer_PG = lab.sample(old_PSV, answers, generator)
        old = lab.draws(old_PSV, answer_PG)
        place = (old.prompt_B.unsqueeze(-1), old.state_BT)
        found = gae(rewards(lab, old), old_value_PS[place], old.mask_BT, lambda_=0.95)
        advantage_BT = whiten(found.advantage_BT, old.mask_BT)
        for _ in range(epochs):
            draws = lab.draws(policy(), answer_PG)
            loss_BT = clipped_surrogate(draws.logp_BT, old.logp_BT, advantage_BT).loss_BT
            critic_loss_BT = value_loss(critic()[place], found.return_BT)
            descent.step(mean_of([token_portion(loss_BT + critic_loss_BT, old.mask_BT)]))


def at_reference(lab: Laboratory, kind: str, seed: int) -> nn.Module:
    if kind == "table":
        return Table(lab)
    policy = Network(lab, seed=seed)
    imitate(policy, lab.ref_PSV, steps=200)
    return policy


@pytest.mark.parametrize(
    ("learn", "kind", "rounds", "answers", "learning_rate"),
    [
        (learn_rloo, "table", 250, 64, 0.1),
        (learn_rloo, "network", 600, 128, 0.02),
        (learn_ppo, "table", 200, 128, 0.03),
        (learn_ppo, "network", 300, 192, 0.015),
    ],
)
def test_learns(learn: Callable[..., None], kind: str, rounds: int, answers: int, learning_rate: float):
    shares = []
    for seed in range(SEEDS):
        lab = make_laboratory(seed)
        policy = at_reference(lab, kind, seed)
        start = lab.share(policy())
        assert abs(start) < 0.02
        learn(lab, policy, seed, rounds=rounds, answers=answers, learning_rate=learning_rate)
        shares.append(lab.share(policy()))
    drawn = rounds * answers * lab.prompts
    listed = ", ".join(f"{share:.4f}" for share in shares)
    print(f"{learn.__name__} {kind}: {listed} of the way to the optimum from {drawn:,} answers")
    assert sum(shares) / SEEDS >= 0.99
    assert min(shares) >= 0.97
