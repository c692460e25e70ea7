"""The product's own policy stage on the laboratory's task: its seams are exact, and it learns nearly all there is.

`benchmarks/algorithms.py` runs every algorithm for ten seeds; here are a few, for a few seconds. Run with `-rP` to read
the figures.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.environments import play
from plaudit.records import Ended, Prompt
from plaudit.sampling import Request
from plaudit.sampling.draw import keep_top
from plaudit.testing import Network, Table, compare, make_laboratory
from plaudit.testing.stage import LaboratoryNetwork, LaboratorySampler, LaboratoryScorer, laboratory_stage
from plaudit.training.algorithms import estimated, loss_of
from plaudit.training.learner import Curvature, Part
from plaudit.training.policy_loss import PolicyBatch
from plaudit.training.rollouts import rolled_out, sampled
from plaudit.tuning import Policy, Sampling

LEARNING = {"learning_rate": 0.02, "warmup": 0, "decay": "linear", "clip_norm": 1e9}

SMALL = {**LEARNING, "learning_rate": 0.005}


def settings_of(**changes: Any) -> Policy:
    given = {
        "steps": 250,
        "prompts_per_round": 24,
        "answers_per_prompt": 8,
        "sampling": {"max_tokens": 4},
        "optimiser": LEARNING,
        "kl": {"beta": 1.0},
        **changes,
    }
    return Policy.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"algorithm": "rloo"}, 0.95),
        ({"algorithm": "ppo", "epochs": 2}, 0.97),
        ({"algorithm": "ppg", "epochs": 2}, 0.97),
        ({"algorithm": "trpo", "epochs": 2, "steps": 130}, 0.96),
        ({"algorithm": "sac", "steps": 100, "optimiser": {**LEARNING, "learning_rate": 0.01}}, 0.94),
        ({"algorithm": "grpo", "kl": {"beta": 1.0, "where": "reward", "estimator": "k1"}}, 0.93),
        ({"algorithm": "reinforce", "baseline": "greedy"}, 0.85),
        # nothing holds its ratios, so its steps are smaller
        ({"algorithm": "rloo", "objective": "weighted", "epochs": 2, "minibatch": 96, "optimiser": SMALL}, 0.95),
    ],
    ids=["rloo", "ppo", "ppg", "trpo", "sac", "grpo", "reinforce-greedy", "rloo-weighted"],
)
def test_it_goes_nearly_all_the_way(changes, least):
    lab = make_laboratory(0)
    task = laboratory_stage(lab, settings_of(**changes), seed=0)
    start = lab.share(task.policy())
    assert abs(start) < 0.02
    task.climb()
    share = lab.share(task.policy())
    print(f"{changes}: {share:.4f} of the way to the optimum")
    assert share > least


@pytest.mark.parametrize("objective", ["reinforce", "clip", "weighted"])
def test_with_top_p_the_expected_step_is_the_gradient_of_the_truncated_policy(objective):
    """All answers that can come, through sampler, rollout, advantages and loss, each as often as its probability."""
    lab = make_laboratory(0)
    policy = Table(lab, seed=1)
    settings = settings_of(
        algorithm="reinforce", objective=objective, sampling={"max_tokens": 4, "top_p": 0.7}, kl={"beta": 0.7}
    )
    stage = laboratory_stage(lab, settings, seed=0, policy=policy).stage
    groups = [
        dataclasses.replace(group, answers=tuple({a.token_ids: a for a in group.answers}.values()))
        for group in sampled(stage.sampler, stage.words, stage.prompts, settings.sampling, 0, "answer", answers=4_000)
    ]
    played = play(stage.sampler, stage.environment, stage.words, groups, settings.sampling, turns=1)
    rollout = rolled_out(stage.learner, stage.reference, played, critic=False)
    chance_B = rollout.old_logp_BT.sum(1).exp()
    assert float(chance_B.sum()) == pytest.approx(lab.prompts, abs=1e-6)  # no answer that can come was missed
    assert rollout.tree.answers < lab.prompts * lab.answers / 2  # and many cannot
    estimate = estimated(rollout, settings, stage.parts, beta=0.7)
    batch = PolicyBatch(
        tree=rollout.tree,
        old_logp_BT=rollout.old_logp_BT,
        ref_logp_BT=rollout.ref_logp_BT,
        advantage_BT=estimate.advantage_BT * chance_B[:, None],
        return_BT=estimate.return_BT,
        value_BT=rollout.value_BT,
    )
    assert isinstance(stage.learner, Curvature)
    part = Part(batch, loss_of(settings, stage.parts, beta=0.7, entropy=0.0))
    step_D = -stage.learner.gradient(part, group="policy") * 4 * rollout.tree.answers  # the mean's denominator

    outside_PSV = keep_top(policy().detach().flatten(0, 1), 0.7).view_as(lab.ref_PSV) == -torch.inf

    def truncated(logp_PSV):
        return logp_PSV.masked_fill(outside_PSV, -1e30).log_softmax(-1)

    small = dataclasses.replace(lab, ref_PSV=truncated(lab.ref_PSV), beta=0.7)
    (exact_PSV,) = torch.autograd.grad(small.objective(truncated(policy())).sum(), list(policy.parameters()))
    found = compare(step_D, exact_PSV.flatten())
    print(f"{objective}: error {found.error:.1e}")
    assert found.error < 1e-5
    whole = dataclasses.replace(lab, beta=0.7)
    (other_PSV,) = torch.autograd.grad(whole.objective(policy()).sum(), list(policy.parameters()))
    assert compare(step_D, other_PSV.flatten()).error > 0.3  # it is another policy's gradient


def test_an_annealed_price_of_kl_ends_at_its_end():
    lab = make_laboratory(1, beta=0.3)
    task = laboratory_stage(lab, settings_of(algorithm="rloo", kl={"beta": 0.3, "start": 1.0}), seed=1)
    task.climb()
    assert lab.share(task.policy()) > 0.95


def test_rejection_rests_at_the_optimum():
    """There r - beta log(pi / ref) is the same for all answers of a prompt; the rewards alone are not."""
    shares = []
    for beta in (1.0, 0.0):
        lab = make_laboratory(0)
        policy = Table(lab)
        policy.logit_PSV.data = lab.optimum()
        task = laboratory_stage(
            lab, settings_of(algorithm="rejection", steps=60, kl={"beta": beta}), seed=0, policy=policy
        )
        task.climb()
        shares.append(lab.share(task.policy()))
    print(f"with its cost of KL {shares[0]:.4f}, without {shares[1]:.4f}")
    assert shares[0] > 0.99
    assert shares[1] < 0.9


def test_the_network_says_what_the_policy_says():
    lab = make_laboratory(0)
    policy = Network(lab, seed=3)
    network = LaboratoryNetwork(lab, policy)
    token_AT, mask_AT = lab.token_AT.tolist(), lab.mask_AT.sum(1).tolist()
    answers = [tuple(row[:n]) for row, n in zip(token_AT, mask_AT, strict=True)]
    tree = pack([((4 + p,), answers) for p in range(lab.prompts)])
    found = network.outputs(tree, Needs(logp=True, entropy=True, distribution=True))
    logp_PA = lab.answer_logp(policy())
    torch.testing.assert_close(found.logp_BT.sum(1).view(lab.prompts, -1), logp_PA)
    assert float(logp_PA.detach().exp().sum()) == pytest.approx(lab.prompts)
    expected_BT = -(found.distribution_BTV.exp() * found.distribution_BTV).sum(-1).masked_fill(~tree.mask_BT, 0.0)
    torch.testing.assert_close(found.entropy_BT, expected_BT)


def test_the_sampler_draws_as_the_policy_says():
    lab = make_laboratory(0, prompts=1)
    network = LaboratoryNetwork(lab, Table(lab, seed=1))
    sampler = LaboratorySampler(network)
    request = Request(prompt=Prompt(text="0", id="0"), context_ids=(4,), seeds=tuple(range(20_000)))
    (group,) = sampler.sample([request], Sampling(max_tokens=4))
    logp_A = lab.answer_logp(network.policy().detach())[0]
    index = {answer: a for a, answer in enumerate(sampler.answers)}
    count_A = torch.zeros(lab.answers)
    for answer in group.answers:
        a = index[answer.token_ids]
        count_A[a] += 1
        assert sum(answer.logps) == pytest.approx(float(logp_A[a]), abs=1e-9)
        assert (answer.ended is Ended.STOPPED) is (answer.token_ids[-1] == 0)
    probability_A = logp_A.detach().exp()
    error_A = (count_A / 20_000 - probability_A) / (probability_A / 20_000).sqrt()
    assert float(error_A.abs().max()) < 4.5
    (greedy,) = sampler.sample(
        [Request(prompt=request.prompt, context_ids=(4,), seeds=(7, 8))], Sampling(temperature=0)
    )
    assert greedy.answers[0].token_ids == greedy.answers[1].token_ids
    state = 0
    tokens: list[int] = []
    while len(tokens) < 4 and (not tokens or tokens[-1] != 0):
        tokens.append(int(network.policy()[0, state].argmax()))
        state = int(network.next_SV[state, tokens[-1]])
    assert list(greedy.answers[0].token_ids) == tokens


def test_the_scorer_gives_the_laboratorys_rewards():
    lab = make_laboratory(2)
    network = LaboratoryNetwork(lab, Table(lab))
    requests = [Request(prompt=Prompt(text=f"{p}", id=f"{p}"), context_ids=(4 + p,), seeds=(p, 9)) for p in range(3)]
    groups = LaboratorySampler(network).sample(requests, Sampling(max_tokens=4))
    scores = LaboratoryScorer(lab).score(groups)
    index = {answer: a for a, answer in enumerate(LaboratorySampler(network).answers)}
    for p, group in enumerate(groups):
        expected = [float(lab.reward_PA[p, index[answer.token_ids]]) for answer in group.answers]
        assert list(scores.value_PG[p]) == pytest.approx(expected)
