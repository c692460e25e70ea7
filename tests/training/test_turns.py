"""Advantages of episodes of several turns: every pair of episodes enumerated, against the exact gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from plaudit.batch import pack
from plaudit.recipe import Policy
from plaudit.training.algorithms import estimated, kept, loss_of
from plaudit.training.rollouts import Rollout
from plaudit.tuning import parts_of

EPISODES = [(0,), (1, 0), (1, 1), (1, 2)]
"""The first turn says 0, and that is all, or 1, and then there is a second with three things to say."""
REWARDS = [(0.3,), (-0.2, 1.0), (-0.2, 0.4), (-0.2, -0.7)]
REF = [torch.tensor([0.5, 0.5]).log().double(), torch.tensor([0.2, 0.3, 0.5]).log().double()]
BETA = 0.2


def logits() -> list[Tensor]:
    values = [torch.tensor([0.4, -0.1]), torch.tensor([0.3, 0.0, -0.5])]
    return [value.double().requires_grad_() for value in values]


def logp_of(theta: list[Tensor], episode: tuple[int, ...]) -> list[Tensor]:
    return [theta[turn].log_softmax(0)[said] for turn, said in enumerate(episode)]


def rollout_of(theta: list[Tensor], numbers: tuple[int, ...], values: tuple[float, float]) -> Rollout:
    """Episodes from one prompt: their first turns, then the second turns of those that have one."""
    longer = [i for i, number in enumerate(numbers) if len(EPISODES[number]) == 2]
    rows = [(i, 0) for i in range(len(numbers))] + [(i, 1) for i in longer]
    later = [((1, 5), [(EPISODES[numbers[i]][1] + 2,)]) for i in longer]
    logp = [logp_of(theta, EPISODES[numbers[i]])[turn].detach() for i, turn in rows]
    ref = [REF[turn][EPISODES[numbers[i]][turn]] for i, turn in rows]
    return Rollout(
        tree=pack([((1,), [(EPISODES[number][0] + 2,) for number in numbers]), *later]),
        score_B=torch.tensor([REWARDS[numbers[i]][turn] for i, turn in rows], dtype=torch.float64),
        keep_B=torch.ones(len(rows), dtype=torch.bool),
        old_logp_BT=torch.stack(logp)[:, None],
        ref_logp_BT=torch.stack(ref)[:, None],
        value_BT=torch.tensor([values[turn] for _, turn in rows], dtype=torch.float64)[:, None],
        episode_B=torch.tensor([i for i, _ in rows]),
        turn_B=torch.tensor([turn for _, turn in rows]),
        baseline_E=torch.zeros(len(numbers), dtype=torch.float64),
    )


def settings_of(**changes: object) -> Policy:
    return Policy.model_validate(
        {"prompts_per_round": 1, "answers_per_prompt": 2, "kl": {"beta": BETA}, "lambda_": 1.0, **changes}
    )


def exact() -> Tensor:
    """The gradient of what an episode earns less what it costs to leave the reference."""
    theta = logits()
    total = torch.zeros((), dtype=torch.float64)
    for episode, rewards in zip(EPISODES, REWARDS, strict=True):
        logp = torch.stack(logp_of(theta, episode))
        ref = torch.stack([REF[turn][said] for turn, said in enumerate(episode)])
        total = total + logp.sum().exp() * (sum(rewards) - BETA * (logp - ref).sum())
    return torch.cat(torch.autograd.grad(total, theta))


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"algorithm": "reinforce"}, 1.0),
        ({"algorithm": "reinforce", "baseline": "constant", "constant": 0.7}, 1.0),
        ({"algorithm": "reinforce", "baseline": "constant", "constant": 0.7, "to_go": False}, 1.0),
        ({"algorithm": "reinforce", "baseline": "running"}, 1.0),
        ({"algorithm": "rloo"}, 1.0),
        ({"algorithm": "a2c"}, 1.0),
        ({"algorithm": "dr-grpo", "kl": {"beta": BETA, "where": "reward", "estimator": "k1"}}, 0.5),  # (G - 1) / G
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_over_turns_the_expected_estimate_is_the_gradient(changes, share):
    theta, settings = logits(), settings_of(**changes)
    parts = parts_of(settings)
    expected = torch.zeros(5, dtype=torch.float64)
    for numbers in itertools.product(range(4), repeat=2):
        rollout = rollout_of(theta, numbers, values=(0.25, -0.4))
        found = estimated(kept(rollout, parts), settings, parts, beta=BETA, running=0.3)
        logp = [logp_of(theta, EPISODES[number]) for number in numbers]
        rows = [logp[i][turn] for i, turn in zip(rollout.episode_B, rollout.turn_B, strict=True)]
        estimate = (found.advantage_BT[:, 0] * torch.stack(rows)).sum() / 2
        chance = torch.stack([torch.stack(own).sum() for own in logp]).sum().exp().detach()
        expected += chance * torch.cat(torch.autograd.grad(estimate, theta, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(expected, share * exact(), rtol=0, atol=1e-12)


def test_a_turn_earns_what_the_later_ones_do_by_hand():
    """Episodes (1, 0) and (0): -0.2 then 1.0, and 0.3; a later reward counts half."""
    settings = settings_of(algorithm="rloo", turn_discount=0.5, kl={"beta": 0.0})
    rollout = rollout_of(logits(), (1, 0), values=(0.0, 0.0))
    found = estimated(rollout, settings, parts_of(settings), beta=0.0)
    # returns 0.3 (-0.2 + 0.5 * 1.0), 0.3, and 1.0 for the second turn; the other episode's 0.3 is subtracted from each
    torch.testing.assert_close(found.advantage_BT[:, 0], torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))


def test_a_group_is_left_out_by_what_its_episodes_earn_in_all():
    """The first turns of (1, 0) and (1, 2) earn the same, the episodes do not."""
    settings = settings_of(algorithm="dapo")
    rollout = rollout_of(logits(), (1, 3), values=(0.0, 0.0))
    assert kept(rollout, parts_of(settings)).keep_B.tolist() == [True] * 4
    assert kept(rollout_of(logits(), (2, 2), values=(0.0, 0.0)), parts_of(settings)).keep_B.tolist() == [False] * 4


def test_sums_are_divided_by_the_number_of_episodes():
    """Six answers of four episodes of up to 12 tokens: 6 x (12 / 1.5) is 4 x 12."""
    settings = settings_of(algorithm="rloo", sampling={"max_tokens": 12})
    assert loss_of(settings, parts_of(settings), beta=0.0, entropy=0.0, turns=6 / 4).longest == 8
