"""The policy stage: advantages by hand, learning in about a second, going on bit for bit, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from typing import get_args

import pytest
import torch

from plaudit.batch import Needs, Outputs, pack
from plaudit.environments import FunctionEnvironment, OneTurn, Played
from plaudit.errors import NumberError, RecipeError, RecordError
from plaudit.models.load import Machine, adapted
from plaudit.models.network import Critic, LanguageNetwork, TwinQ, new_head
from plaudit.models.packed import body_of
from plaudit.recipe import Adapter, Kl, Optimiser, Policy, Recipe, Sampling, Text
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.runs import Run
from plaudit.sampling import ModelSampler
from plaudit.scorers import FunctionScorer, Scores
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.algorithms import best_of_groups, estimated, kept, loss_of
from plaudit.training.learner import ModelLearner
from plaudit.training.objectives import TextBatch
from plaudit.training.policy_loss import PolicyBatch, PolicyLoss, apart, check_agreement
from plaudit.training.policy_stage import PolicyMemory, PolicyStage, train_policy
from plaudit.training.rollouts import Reference, Rollout, rolled_out, sampled
from plaudit.training.text_stages import TokenText, texts_beside
from plaudit.tuning import PARTS, Algorithm, parts_of

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)
PROMPTS = [Prompt(text=text, id=text) for text in ("a", "be", "see", "d", "ewe", "if", "go", "ha")]
EARLY = FunctionScorer(lambda prompt, answer: statistics.fmean([c in "abcdefgh" for c in answer] or [0.0]))
"""Share of an answer's letters that come early in the alphabet."""

TOP_P = Sampling(max_tokens=6, temperature=0.9, top_p=0.9)

SAMPLING = [name for name, parts in PARTS.items() if parts.rounds]
"""The algorithms that learn from answers of their own."""


def settings_of(**changes):
    given = {
        "steps": 4,
        "prompts_per_round": 4,
        "answers_per_prompt": 4,
        "sampling": Sampling(max_tokens=6, temperature=0.9),
        "optimiser": Optimiser(learning_rate=1e-2, warmup=0, decay="constant"),
        "kl": Kl(beta=0.01),
        **changes,
    }
    return Policy(**given)


class Stage:
    """A policy stage on tiny models that can be begun again."""

    def __init__(
        self,
        folder,
        settings,
        *,
        scorer=EARLY,
        prompts=PROMPTS,
        adapter=None,
        seed=0,
        save_every=2,
        environment=None,
        beside=lambda step: (),
    ):
        self.beside = beside
        self.environment = OneTurn(scorer) if environment is None else environment
        self.folder, self.settings, self.scorer, self.prompts = folder, settings, scorer, prompts
        self.recipe = Recipe.model_validate({"world": {}, "seed": seed, "save_every": save_every})
        model = adapted(tiny_model(), adapter, seed=1)
        critic = None
        if parts_of(settings).baseline == "value":
            head = new_head(32, bias=True, seed=0)
            critic = Critic(head, None if settings.critic == "shared" else body_of(tiny_model(seed=1)))
        phasic = parts_of(settings).update == "phasic"
        auxiliary = Critic(new_head(32, bias=True, seed=2)) if phasic else None
        temperature = settings.sampling.temperature
        twins = None
        if parts_of(settings).update == "soft":
            heads = new_head(32, bias=False, seed=3, outputs=2 * model.config.vocab_size)
            with torch.no_grad():
                heads.weight.mul_(0.01)
            twins = TwinQ(heads, body_of(tiny_model()))
        self.network = LanguageNetwork(model, critic, auxiliary=auxiliary, twins=twins, temperature=temperature)
        frozen = self.network if adapter is not None else LanguageNetwork(tiny_model(), temperature=temperature)
        self.reference = Reference(frozen, adapted=adapter is not None, machine=CPU, micro_tokens=8192)
        self.learner = ModelLearner(self.network, settings.optimiser, steps=99, machine=CPU, micro_tokens=8192)

    def go(self):
        run = Run(self.folder, self.recipe)
        try:
            stage = PolicyStage(
                learner=self.learner,
                reference=self.reference,
                sampler=ModelSampler(self.network.model, WORDS, CPU),
                environment=self.environment,
                turns=2,
                words=WORDS,
                prompts=self.prompts,
                settings=self.settings,
                seed=self.recipe.seed,
                beside=self.beside,
            )
            train_policy(run, stage, self.recipe)
        finally:
            run.close()
        return self

    def metrics(self):
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().split("\n")[:-1]]
        return [
            {name.removeprefix("policy/"): value for name, value in line.items() if name not in ("seconds", "stage")}
            for line in lines
        ]

    def samples(self):
        return [json.loads(line) for line in (self.folder / "samples.jsonl").read_text().split("\n")[:-1]]

    def weights(self):
        return {name: tensor.clone() for name, tensor in self.learner.weights().items()}


# --- it learns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "ppo"},
        {"algorithm": "ppo", "critic": "shared"},
        {"algorithm": "ppo", "epochs": 2, "minibatch": 16},
        *({"algorithm": name} for name in SAMPLING if name not in ("ppo", "ppo-ptx", "trpo", "sac")),
        {"algorithm": "trpo", "trust": {"bound": 0.3}},
        {"algorithm": "ppo-ptx", "pretraining": 0.1},
        {"algorithm": "rloo", "objective": "weighted", "epochs": 2, "minibatch": 16},
        {"algorithm": "dr-grpo", "kl": Kl(beta=0.01, estimator="full")},
        *(
            {"algorithm": "reinforce", "baseline": name}
            for name in ("constant", "running", "prompt", "greedy", "fresh")
        ),
        {"algorithm": "rloo", "curriculum": True},
        *({"algorithm": name, "sampling": TOP_P} for name in ("ppo", "rloo", "grpo", "gspo", "ppg", "rejection")),
        {"algorithm": "trpo", "trust": {"bound": 0.3}, "sampling": TOP_P},
        {"algorithm": "dr-grpo", "kl": Kl(beta=0.01, estimator="full"), "sampling": TOP_P},
        {"algorithm": "rloo", "objective": "weighted", "epochs": 2, "minibatch": 16, "sampling": TOP_P},
    ],
    ids=lambda changes: "-".join(
        value if isinstance(value, str) else "top-p"
        for value in changes.values()
        if value is TOP_P or isinstance(value, str)
    ),
)
def test_it_learns_what_is_rewarded(tmp_path, changes):
    steps = 20 if "trust" in changes else 14
    settings = settings_of(steps=steps, prompts_per_round=4, answers_per_prompt=8, **changes)
    metrics = Stage(tmp_path, settings).go().metrics()
    rewards = [line["reward"] for line in metrics]
    assert rewards[0] < 0.35
    assert statistics.fmean(rewards[-3:]) > 0.7
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-4)  # before the first step it is its reference
    assert metrics[-1].get("kl_whole", metrics[-1]["kl"]) > 0.5


def test_soft_actor_critic_learns_what_is_rewarded(tmp_path):
    """It must try a token before it knows its worth, so it takes a dearer KL, smaller steps and more of them."""
    settings = settings_of(
        steps=20,
        answers_per_prompt=8,
        algorithm="sac",
        kl=Kl(beta=0.1),
        soft={"updates": 24},
        optimiser=Optimiser(learning_rate=3e-3, warmup=0, decay="constant"),
    )
    metrics = Stage(tmp_path, settings).go().metrics()
    assert metrics[0]["reward"] < 0.2
    assert statistics.fmean(line["reward"] for line in metrics[-5:]) > 0.4
    assert metrics[-1]["q_loss"] < metrics[1]["q_loss"]


def test_a_high_price_of_kl_keeps_it_where_it_was(tmp_path):
    slow = Optimiser(learning_rate=3e-3, warmup=0, decay="constant")
    free, dear = (
        Stage(
            tmp_path / str(beta),
            settings_of(steps=12, answers_per_prompt=8, algorithm="rloo", kl=Kl(beta=beta), optimiser=slow),
        )
        .go()
        .metrics()
        for beta in (0.0, 3.0)
    )
    assert dear[-1]["kl"] < 0.3 * free[-1]["kl"]
    assert dear[-1]["reward"] < free[-1]["reward"] - 0.2


# --- it goes on -----------------------------------------------------------------------------------------------------


class Falls:
    """A scorer that fails in one of its calls."""

    def __init__(self, at):
        self.at = at

    def score(self, groups):
        self.at -= 1
        if self.at < 0:
            raise RuntimeError("power cut")
        return EARLY.score(groups)


@pytest.mark.parametrize(
    ("changes", "adapter"),
    [
        ({"algorithm": "ppo", "kl": Kl(beta=0.1, target=0.5, horizon=40), "epochs": 2, "minibatch": 4}, None),
        ({"algorithm": "rloo", "kl": Kl(beta=0.1, target=0.5, horizon=40)}, Adapter(rank=2)),
        ({"algorithm": "ppg", "auxiliary": {"every": 3}, "kl": Kl(beta=0.1, target=0.5, horizon=40)}, None),
        ({"algorithm": "sac", "soft": {"replay": 3, "updates": 2}, "kl": Kl(beta=0.1, target=0.5, horizon=40)}, None),
        ({"algorithm": "reinforce", "baseline": "running", "kl": Kl(beta=0.1, target=0.5, horizon=40)}, None),
        ({"algorithm": "trpo", "curriculum": True, "kl": Kl(beta=0.1, target=0.5, horizon=40)}, None),
        (
            {
                "algorithm": "ppg",
                "auxiliary": {"every": 3},
                "kl": Kl(beta=0.1, target=9, horizon=40),
                "sampling": Sampling(top_p=0.8, max_tokens=6),
            },
            None,
        ),
    ],
    ids=["ppo", "rloo-adapter", "ppg", "sac", "running-mean", "trpo-curriculum", "ppg-top-p"],
)
def test_interrupted_it_ends_with_the_same_bits(tmp_path, changes, adapter):
    """Weights, metrics and samples; the adaptive price of KL among them."""
    settings = settings_of(steps=4, **changes)
    straight = Stage(tmp_path / "straight", settings, adapter=adapter).go()
    with pytest.raises(RuntimeError, match="power cut"):
        Stage(tmp_path / "cut", settings, adapter=adapter, scorer=Falls(3)).go()
    again = Stage(tmp_path / "cut", settings, adapter=adapter).go()
    assert again.metrics() == straight.metrics()
    assert again.samples() == straight.samples()
    for name, tensor in straight.weights().items():
        assert torch.equal(again.weights()[name], tensor)
    betas = [line["beta"] for line in straight.metrics()]
    assert betas[0] == 0.1
    # far under its target beta falls by 0.2 x 16 / 40; what it does next depends on the KL
    assert betas[1] == pytest.approx(0.1 * (1 - 0.2 * 16 / 40))
    assert len(set(betas)) == 4


def test_another_seed_gives_other_answers(tmp_path):
    settings = settings_of(steps=1, algorithm="rloo")
    one, same, other = (Stage(tmp_path / str(i), settings, seed=seed).go() for i, seed in enumerate((0, 0, 1)))
    assert one.samples() == same.samples()
    assert one.samples() != other.samples()


def test_too_far_from_the_reference_it_ends(tmp_path):
    settings = settings_of(steps=9, algorithm="rloo", kl=Kl(beta=0.0, stop=0.05))
    straight = Stage(tmp_path / "one", settings, save_every=1).go()
    metrics = straight.metrics()
    assert 2 <= len(metrics) < 9
    assert metrics[-1]["kl"] > 0.05
    assert all(line["kl"] <= 0.05 for line in metrics[:-1])
    again = Stage(tmp_path / "one", settings, save_every=1).go()  # from the checkpoint after its last round
    assert again.metrics() == metrics


def test_with_top_p_the_way_gone_is_measured_among_all_tokens(tmp_path):
    """Nuclei shrink to the one token that is rewarded, where KL among them is 0; stopping goes by the real one."""
    settings = settings_of(algorithm="rloo", steps=14, answers_per_prompt=8, sampling=TOP_P)
    metrics = Stage(tmp_path / "free", settings).go().metrics()
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert 0 < metrics[0]["kl_whole"] < -6 * math.log(0.9)  # at most what the nuclei of 6 tokens leave out
    assert metrics[-1]["kl"] < 0.5
    assert metrics[-1]["kl_whole"] > 10
    stop = settings.model_copy(update={"kl": Kl(beta=0.01, stop=10)})
    stopped = Stage(tmp_path / "stopped", stop).go().metrics()
    assert stopped == metrics[: len(stopped)]
    assert len(stopped) < len(metrics)
    assert stopped[-1]["kl_whole"] > 10
    assert stopped[-1]["kl"] < 10


# --- what it says of a round ----------------------------------------------------------------------------------------


def test_a_round_is_described(tmp_path):
    scorer = FunctionScorer(lambda prompt, answer: 1.0 if prompt.id in ("a", "be", "see", "d") else len(answer))
    settings = settings_of(steps=2, algorithm="rloo", answers_per_prompt=4, prompts_per_round=4)
    stage = Stage(tmp_path, settings, scorer=scorer, prompts=PROMPTS[:4]).go()
    first = stage.metrics()[0]
    assert first["groups_without_variance"] == 4
    assert first["reward"] == 1.0
    assert first["reward_sd"] == 0.0
    assert 1 <= first["answer_tokens"] <= 6
    assert 0 <= first["cut_share"] <= 1
    assert first["kl_to_old"] < 1e-6
    assert first["clip_share"] == 0
    assert 0 < first["entropy"] < math.log(47)
    assert first["policy_loss"] == pytest.approx(0, abs=1e-6)  # nobody did better than another
    samples = stage.samples()
    assert len(samples) == 2 * 4
    assert {sample["prompt_id"] for sample in samples[:4]} == {"a", "be", "see", "d"}
    assert set(samples[0]) == {"stage", "step", "prompt_id", "prompt", "answer", "reward", "kl", "ended", "tokens"}


def test_an_answer_that_was_cut_gets_the_reward_that_was_set(tmp_path):
    one = FunctionScorer(lambda prompt, answer: 1.0)
    settings = settings_of(steps=1, algorithm="rloo", cut_reward=-1.0)
    stage = Stage(tmp_path, settings, scorer=one).go()
    cut = stage.metrics()[0]["cut_share"]
    assert 0 < cut < 1
    assert stage.metrics()[0]["reward"] == pytest.approx(1 - 2 * cut)
    for sample in stage.samples():
        assert sample["reward"] == (-1.0 if sample["ended"] == "cut" else 1.0)


def test_every_answer_is_learned_from_once_in_an_epoch(tmp_path, monkeypatch):
    settings = settings_of(steps=1, algorithm="rloo", epochs=3, minibatch=8)
    stage = Stage(tmp_path, settings)
    seen: list[list[str]] = []
    step = stage.learner.step

    def watching(*parts):
        tree = parts[0].batch.tree
        seen.append([tree.names[p] for p in tree.prompt_of_answers()])
        return step(*parts)

    monkeypatch.setattr(stage.learner, "step", watching)
    stage.go()
    assert stage.learner.done == 3 * 16 // 8
    epochs = [sorted(seen[i] + seen[i + 1]) for i in (0, 2, 4)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(set(epochs[0])) == 4
    assert len({tuple(names) for names in seen}) > 2  # in an order of its own


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_names_the_prompt(tmp_path, value):
    scorer = FunctionScorer(lambda prompt, answer: value if prompt.id == "see" else 0.0)
    stage = Stage(tmp_path, settings_of(algorithm="rloo", prompts_per_round=8), scorer=scorer)
    before = stage.weights()
    with pytest.raises(NumberError, match=r"the reward of answer 0 to prompt see is -?(nan|inf): '"):
        stage.go()
    for name, tensor in stage.weights().items():
        assert torch.equal(tensor, before[name])


def test_a_scorer_that_failed_says_why(tmp_path):
    class Fails:
        def score(self, groups):
            scores = EARLY.score(groups)
            return Scores(value_PG=scores.value_PG, failed={(1, 2): "the service is away"})

    with pytest.raises(NumberError, match="the scorer failed on 1 answers: the service is away"):
        Stage(tmp_path, settings_of(algorithm="rloo"), scorer=Fails()).go()


def test_sampler_and_learner_must_agree(tmp_path):
    stage = Stage(tmp_path, settings_of(algorithm="rloo"))
    stage.network.temperature = 2.0
    with pytest.raises(
        NumberError, match=r"the learner's log-probabilities differ from the sampler's \(KL [\d.]+ nats"
    ):
        stage.go()


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2)], ids=["whole", "adapter"])
def test_on_its_support_the_first_ratio_is_1_and_the_first_kl_0(tmp_path, monkeypatch, adapter):
    """With top_p 0.8; over the whole vocabulary the same tokens have ratios of about the mass of their nuclei."""
    sampling = Sampling(max_tokens=6, temperature=0.9, top_p=0.8)
    stage = Stage(tmp_path, settings_of(algorithm="rloo", steps=1, minibatch=8, sampling=sampling), adapter=adapter)
    seen = []
    step = stage.learner.step

    def watching(*parts):
        batch = parts[0].batch
        found = [stage.learner.forward(batch, Needs(logp=True, entropy=True, distribution=True))]
        whole = dataclasses.replace(batch, tree=dataclasses.replace(batch.tree, support=None))
        found.append(stage.learner.forward(whole, Needs(logp=True)))
        seen.append((batch, *found))
        return step(*parts)

    monkeypatch.setattr(stage.learner, "step", watching)
    stage.go()
    batch, on_support, on_all = seen[0]
    mask_BT = batch.tree.mask_BT
    assert batch.tree.support is not None
    torch.testing.assert_close(on_support.logp_BT, batch.old_logp_BT, rtol=0, atol=1e-5)
    assert torch.equal(on_support.logp_BT, batch.ref_logp_BT)  # the policy is its reference, bit for bit
    mass_BT = (on_all.logp_BT - batch.old_logp_BT).exp()[mask_BT]
    assert float(mass_BT.min()) > 0.8 - 1e-5
    assert float(mass_BT.mean()) < 0.95
    # entropies too are of the policy that was drawn from
    logp_BTV = on_support.distribution_BTV
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    torch.testing.assert_close(on_support.entropy_BT[mask_BT], entropy_BT[mask_BT])
    assert len(seen) == 2  # the second minibatch has moved, and is still on its support
    ratio_BT = (seen[1][1].logp_BT - seen[1][0].old_logp_BT).exp()[seen[1][0].tree.mask_BT]
    assert float((ratio_BT - 1).abs().max()) > 1e-4


def test_a_sampler_must_say_what_it_left_out(tmp_path):
    class Silent(ModelSampler):
        def sample(self, requests, sampling):
            return super().sample([dataclasses.replace(request, support=False) for request in requests], sampling)

    stage = Stage(tmp_path, settings_of(sampling=TOP_P))
    with pytest.raises(RecipeError, match=r"top_p 0.9 leaves tokens out, and Silent does not say which"):
        sampled(
            Silent(stage.network.model, WORDS, CPU), WORDS, PROMPTS, stage.settings.sampling, 0, "answer", answers=2
        )


def test_a_round_needs_its_prompts(tmp_path):
    with pytest.raises(RecordError, match=r"policy: 8 prompts, but policy.prompts_per_round is 9"):
        Stage(tmp_path, settings_of(algorithm="rloo", prompts_per_round=9)).go()


# --- the parts ------------------------------------------------------------------------------------------------------


def test_the_reference_of_an_adapter_is_the_model_without_it():
    tree = pack([((1, 3), [(4, 5, 2), (6,)])])
    plain = LanguageNetwork(tiny_model(), temperature=0.9)
    expected_BT = Reference(plain, adapted=False, machine=CPU, micro_tokens=99).logp_BT(TextBatch(tree=tree))
    model = adapted(tiny_model(), Adapter(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.2)
    network = LanguageNetwork(model, temperature=0.9)
    reference = Reference(network, adapted=True, machine=CPU, micro_tokens=99)
    assert torch.equal(reference.logp_BT(TextBatch(tree=tree)), expected_BT)
    tuned = Reference(network, adapted=False, machine=CPU, micro_tokens=99).logp_BT(TextBatch(tree=tree))
    assert float((tuned - expected_BT).abs().max()) > 0.1  # and it is on again afterwards


TREE = pack([((1,), [(3, 4, 5), (6,)]), ((1,), [(7, 2), (8, 2)])])
KL_BT = torch.tensor([[0.5, 0.0, -0.5], [2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
ROLLOUT = Rollout(
    tree=TREE,
    score_B=torch.tensor([1.0, 3.0, -1.0, 0.0]),
    keep_B=torch.ones(4, dtype=torch.bool),
    old_logp_BT=KL_BT - 3.0,
    ref_logp_BT=torch.full_like(KL_BT, -3.0),
    value_BT=torch.tensor([[0.1, 0.2, 0.3], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.2, 0.1, 0.0]]),
    episode_B=torch.arange(4),
    turn_B=torch.zeros(4, dtype=torch.int64),
    baseline_E=torch.tensor([0.5, 0.5, -2.0, -2.0]),
)
WHOLE = [1.0, 2.8, -1.2, 0.1]
"""Each answer's score less 0.1 a nat of its KL."""


def advantages(rollout=ROLLOUT, *, running=0.0, **changes):
    settings = settings_of(**changes)
    return estimated(rollout, settings, parts_of(settings), beta=0.1, running=running)


def test_ppo_by_hand():
    """lambda 0: a token's advantage is its own surprise; KL costs 0.1 a nat at its token, the score is at the end."""
    found = advantages(algorithm="ppo", lambda_=0.0, normalise="no")
    expected = [
        [-0.05 + 0.2 - 0.1, 0.0 + 0.3 - 0.2, 1 + 0.05 - 0.3],
        [3 - 0.2 - 1.0, 0.0, 0.0],
        [-0.1 + 0.5 - 0.0, -1 - 0.1 - 0.5, 0.0],
        [0.0 + 0.1 - 0.2, 0 + 0.1 - 0.1, 0.0],
    ]
    torch.testing.assert_close(found.advantage_BT, torch.tensor(expected))
    mask_BT = TREE.mask_BT
    torch.testing.assert_close(found.return_BT[mask_BT], (torch.tensor(expected) + ROLLOUT.value_BT)[mask_BT])
    white = advantages(algorithm="ppo", lambda_=0.0)
    values = white.advantage_BT[mask_BT]
    assert float(values.mean()) == pytest.approx(0, abs=1e-6)
    assert float(values.var(correction=0)) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(white.return_BT, found.return_BT)  # returns stay in units of reward


@pytest.mark.parametrize(
    ("changes", "baseline"),
    [
        ({"baseline": "none"}, [0, 0, 0, 0]),
        ({"baseline": "constant", "constant": 0.7}, [0.7, 0.7, 0.7, 0.7]),
        ({"baseline": "running"}, [0.25, 0.25, 0.25, 0.25]),
        ({"baseline": "batch"}, [0.675, 0.675, 0.675, 0.675]),
        ({"baseline": "prompt"}, [0.5, 0.5, -2, -2]),
        ({"baseline": "greedy"}, [0.5, 0.5, -2, -2]),
        ({"baseline": "fresh"}, [0.5, 0.5, -2, -2]),
        ({"baseline": "leave-one-out"}, [2.8, 1.0, 0.1, -1.2]),
        ({"baseline": "group"}, [1.9, 1.9, -0.55, -0.55]),
    ],
    ids=lambda value: value.get("baseline") if isinstance(value, dict) else "",
)
def test_baselines_by_hand(changes, baseline):
    whole = advantages(algorithm="reinforce", to_go=False, running=0.25, **changes).advantage_BT
    expected_B = torch.tensor(WHOLE) - torch.tensor(baseline, dtype=torch.float)
    torch.testing.assert_close(whole, expected_B[:, None].expand(4, 3).masked_fill(~TREE.mask_BT, 0.0))
    # from each token on: what the tokens before it have cost is no longer counted
    to_go = advantages(algorithm="reinforce", running=0.25, **changes).advantage_BT
    spent_BT = -0.1 * torch.cat([torch.zeros(4, 1), KL_BT.cumsum(1)[:, :-1]], 1)
    torch.testing.assert_close(to_go, (expected_B[:, None] - spent_BT).masked_fill(~TREE.mask_BT, 0.0))


def test_named_algorithms_by_hand():
    mask_BT = TREE.mask_BT

    def spread(values):
        return torch.tensor(values)[:, None].expand(4, 3).masked_fill(~mask_BT, 0.0)

    torch.testing.assert_close(advantages(algorithm="rloo").advantage_BT, spread([-1.8, 1.8, -1.3, 1.3]))
    # KL is in their loss: the scores alone, 1 and 3, -1 and 0
    torch.testing.assert_close(advantages(algorithm="dr-grpo").advantage_BT, spread([-1.0, 1.0, -0.5, 0.5]))
    half = 0.5**0.5  # over the standard deviations sqrt(2) and sqrt(0.5)
    found_BT = advantages(algorithm="grpo").advantage_BT
    torch.testing.assert_close(found_BT, spread([-half, half, -half, half]), rtol=2e-4, atol=1e-5)  # sd + 1e-4
    white_BT = advantages(algorithm="reinforce++").advantage_BT
    assert float(white_BT[mask_BT].mean()) == pytest.approx(0, abs=1e-6)


def test_what_is_left_out_is_in_nobodys_baseline():
    keep_B = torch.tensor([True, True, True, False])
    rollout = dataclasses.replace(ROLLOUT, keep_B=keep_B)
    settings = settings_of(algorithm="rloo")
    left = kept(rollout, parts_of(settings))
    assert left.keep_B.tolist() == [True, True, False, False]  # the third has nobody to be compared with
    found = estimated(left, settings, parts_of(settings), beta=0.1)
    assert found.advantage_BT[:, 0].tolist() == pytest.approx([-1.8, 1.8, 0.0, 0.0])
    flat = dataclasses.replace(ROLLOUT, score_B=torch.tensor([1.0, 1.0, -1.0, 0.0]))
    assert kept(flat, PARTS["dapo"]).keep_B.tolist() == [False, False, True, True]
    assert kept(flat, PARTS["grpo"]).keep_B.all()


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
@pytest.mark.parametrize("score", [0.7, 10.3, 100.1])
def test_a_group_whose_answers_earn_the_same_moves_nothing(name, score):
    """Eight scores of 100.1 have a mean that is not 100.1: what rounding left of it must not be divided by 1e-4."""
    eight = dataclasses.replace(
        ROLLOUT,
        tree=pack([((1,), [(3,)] * 8)]),
        score_B=torch.full((8,), score),
        **{name: torch.zeros(8, 1) for name in ("old_logp_BT", "ref_logp_BT", "value_BT")},
        keep_B=torch.ones(8, dtype=torch.bool),
        episode_B=torch.arange(8),
        turn_B=torch.zeros(8, dtype=torch.int64),
        baseline_E=torch.zeros(8),
    )
    assert not advantages(eight, algorithm=name).advantage_BT.any()


def test_a_lone_answer_has_no_batch_to_be_compared_with():
    for count in (0, 1, 2):
        rollout = dataclasses.replace(ROLLOUT, keep_B=torch.arange(4) < count)
        left = kept(rollout, dataclasses.replace(PARTS["reinforce"], baseline="batch"))
        assert int(left.keep_B.sum()) == (count if count > 1 else 0)


def test_the_best_of_each_group():
    assert best_of_groups([1.0, 3.0, 3.0, -2.0, -1.0], [0, 0, 0, 1, 1]) == [1, 4]
    assert best_of_groups([0.0, 0.0], [1, 0]) == [0, 1]


def test_an_entropy_target_moves_its_weight_the_right_way(tmp_path):
    """Far above the entropy there is, the bonus grows by a fifth a round; far below it, it shrinks."""
    for target, factor in ((50.0, 1.2), (0.1, 0.8)):
        settings = settings_of(steps=3, algorithm="rloo", entropy=0.01, entropy_target=target)
        weights = [line["entropy_weight"] for line in Stage(tmp_path / str(target), settings).go().metrics()]
        assert weights == pytest.approx([0.01, 0.01 * factor, 0.01 * factor**2])


def test_the_running_mean_is_that_of_the_rounds_before(tmp_path):
    """Every answer earns 1: the first round knows nothing of it, the second has it for a baseline."""
    one = FunctionScorer(lambda prompt, answer: 1.0)
    settings = settings_of(steps=2, algorithm="reinforce", baseline="running", kl=Kl(beta=0.0))
    first, second = Stage(tmp_path, settings, scorer=one).go().metrics()
    assert abs(first["policy_loss"]) > 0.1
    assert second["policy_loss"] == pytest.approx(0, abs=1e-6)


def test_a_curriculum_begins_with_what_earns_most(tmp_path):
    easy = FunctionScorer(lambda prompt, answer: 1.0 if prompt.id in ("a", "be", "see", "d") else -1.0)
    settings = settings_of(steps=2, algorithm="rloo", curriculum=True)
    samples = Stage(tmp_path, settings, scorer=easy).go().samples()
    assert {sample["prompt_id"] for sample in samples if sample["step"] == 0} == {"a", "be", "see", "d"}


def test_answers_that_were_cut_can_be_left_out(tmp_path):
    metrics = Stage(tmp_path, settings_of(steps=1, algorithm="reinforce", drop_cut=True)).go().metrics()[0]
    assert metrics["left_out"] == pytest.approx(16 * metrics["cut_share"])
    assert 0 < metrics["left_out"] < 16


def test_steps_of_what_is_left_are_of_one_size(tmp_path, monkeypatch):
    """A step of the few answers that are over would weigh them as much as a whole minibatch."""
    left, sizes = set(), []
    step = ModelLearner.step

    def watched(learner, part):
        sizes.append(part.batch.tree.answers)
        return step(learner, part)

    monkeypatch.setattr(ModelLearner, "step", watched)
    for seed in range(6):
        sizes.clear()
        settings = settings_of(steps=1, algorithm="rloo", drop_cut=True, minibatch=4)
        (metrics,) = Stage(tmp_path / str(seed), settings, seed=seed).go().metrics()
        left.add(sum(sizes) % 4)
        assert sum(sizes) == 16 - metrics["left_out"]
        assert len(sizes) == math.ceil(sum(sizes) / 4)
        assert max(sizes) - min(sizes) <= 1
    assert left - {0}


def test_answers_that_failed_or_are_empty_are_never_learned_from():
    tokens = (3, 4, 2)
    good = Answer(text="ab", token_ids=tokens, logps=(-1.0,) * 3, ended=Ended.STOPPED, seed=0)
    failed = dataclasses.replace(good, ended=Ended.FAILED)
    empty = dataclasses.replace(good, text="", token_ids=(), logps=())
    group = Group(prompt=PROMPTS[0], context_ids=(1, 5), answers=(good, failed, empty, good))
    played = Played(
        groups=(group,), rewards=(1.0, 9.0, 9.0, 0.0), episode=(0, 1, 2, 3), turn=(0,) * 4, texts=("",) * 4, parts={}
    )
    network = LanguageNetwork(tiny_model())
    learner = ModelLearner(network, Optimiser(), steps=1, machine=CPU, micro_tokens=8192)
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    rollout = rolled_out(learner, reference, played, critic=False)
    assert rollout.keep_B.tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", ["ppg", "sac"])
def test_what_is_left_out_is_not_learned_from_later_either(tmp_path, name, monkeypatch):
    """PPG's auxiliary phase and SAC's replay hold the answers that were kept, and no others."""
    seen = []
    settings = settings_of(steps=1, algorithm=name, drop_cut=True)
    stage = Stage(tmp_path, settings, scorer=FunctionScorer(lambda prompt, answer: 5.0))
    monkeypatch.setattr(PolicyMemory, "learn", lambda memory, *_: seen.extend(memory.kept))
    (metrics,) = stage.go().metrics()
    (one,) = seen
    assert 0 < metrics["left_out"] < 16
    assert sum(len(answers) for _, _, answers in one.prompts) == 16 - metrics["left_out"]
    assert all(math.isclose(returns[-1], 5.0, abs_tol=1.0) for returns in one.returns)  # none was put to 0


def test_a_critic_is_judged_by_the_answers_that_are_kept(tmp_path, monkeypatch):
    """With lambda 1 and no KL each token of an answer returns the answer's score."""
    seen = []
    monkeypatch.setattr(PolicyMemory, "learn", lambda memory, rollout, *_: seen.append(rollout))
    longer = Sampling(max_tokens=20, temperature=0.9)
    settings = settings_of(steps=1, algorithm="ppo", drop_cut=True, lambda_=1.0, kl=Kl(beta=0.0), sampling=longer)
    scorer = FunctionScorer(lambda prompt, answer: float(len(prompt.id)))
    (metrics,) = Stage(tmp_path, settings, scorer=scorer).go().metrics()
    (rollout,) = seen
    mask_BT = rollout.tree.mask_BT & rollout.keep_B[:, None]
    assert 0 < int(rollout.keep_B.sum()) < 16
    return_BT = rollout.score_B[:, None].expand(mask_BT.shape)
    left = (return_BT - rollout.value_BT)[mask_BT].var(correction=0) / return_BT[mask_BT].var(correction=0)
    assert metrics["explained_variance"] == pytest.approx(1 - float(left), rel=1e-4)


def test_a_round_of_which_nothing_is_left_goes_by(tmp_path):
    settings = settings_of(steps=1, algorithm="ppo", drop_cut=True, sampling=Sampling(max_tokens=1))
    stage = Stage(tmp_path, settings)
    before = stage.weights()
    (metrics,) = stage.go().metrics()
    assert metrics["left_out"] == 16
    assert "explained_variance" not in metrics
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.weights().items())


def test_rounds_of_which_nothing_is_left_are_not_told_one_by_one(tmp_path, capsys):
    settings = settings_of(steps=9, algorithm="rloo", drop_cut=True, sampling=Sampling(max_tokens=1))
    Stage(tmp_path, settings).go()
    told = [line for line in capsys.readouterr().err.splitlines() if "nothing to learn from" in line]
    assert [line.split(" in round ")[1].split(":")[0] for line in told] == [
        "0",
        "1, as in 2 rounds so far",
        "3, as in 4 rounds so far",
        "7, as in 8 rounds so far",
    ]
    memory = PolicyMemory(settings)
    memory.restore({**memory.state(), "idle": 4})
    memory.learn_nothing(20)  # the fifth: a run that was taken up again goes on counting
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["rejection", "rloo"])
def test_what_is_learned_beside_is_numbered_by_steps(tmp_path, name):
    """Two epochs of two steps, two rounds: eight steps, and as many as were planned."""
    asked = []

    def beside(step):
        asked.append(step)
        return ()

    settings = settings_of(steps=2, algorithm=name, epochs=2, minibatch=2 if name == "rejection" else 8)
    Stage(tmp_path, settings, beside=beside).go()
    assert asked == list(range(8))
    assert settings.updates == 8


def test_texts_beside_become_likelier(tmp_path):
    """What `policy.supervised` and `policy.pretraining` ask for; where nothing else is at work, it is all there is."""
    texts: list[TokenText] = [((1, 3), (4, 5, 2), "one"), ((1,), (6, 2), "two")]
    settings = settings_of(steps=3, algorithm="rloo")
    flat = FunctionScorer(lambda prompt, answer: 1.0)
    losses = {}
    for weight in (0.0, 1.0):
        beside = texts_beside({"supervised_loss": (weight, texts)}, 2, seed=0)
        stage = Stage(tmp_path / str(weight), settings, scorer=flat, beside=beside)
        losses[weight] = [line["supervised_loss"] for line in stage.go().metrics()]
    assert losses[1.0][0] == pytest.approx(losses[0.0][0])  # before the first step
    assert losses[1.0][-1] < losses[0.0][-1] - 0.1


def test_rejection_learns_from_the_best_answers_only(tmp_path, monkeypatch):
    settings = settings_of(steps=1, algorithm="rejection")
    stage = Stage(tmp_path, settings)
    seen = []
    step = stage.learner.step

    def watching(*parts):
        seen.append(parts[0].batch)
        return step(*parts)

    monkeypatch.setattr(stage.learner, "step", watching)
    metrics = stage.go().metrics()
    (batch,) = seen
    assert batch.tree.answers == batch.tree.prompts == 4
    assert metrics[0]["loss"] > 0  # nats per token of the chosen answers


def test_a_shared_critic_weighs_less():
    def weight(**changes):
        settings = settings_of(value_weight=0.3, **changes)
        return loss_of(settings, parts_of(settings), beta=0.1, entropy=0.0).value_weight

    assert weight(critic="separate") == 1.0
    assert weight(critic="shared") == 0.3
    assert weight(algorithm="rloo") is None


def test_every_name_has_its_parts():
    assert set(get_args(Algorithm)) == set(PARTS)


@pytest.mark.parametrize("name", SAMPLING)
def test_kl_stands_in_one_place(name):
    settings = settings_of(algorithm=name, normalise="no")
    beta = loss_of(settings, parts_of(settings), beta=0.1, entropy=0.0).beta
    costs = bool(
        (
            estimated(ROLLOUT, settings, parts_of(settings), beta=0.1).advantage_BT
            != estimated(ROLLOUT, settings, parts_of(settings), beta=0.0).advantage_BT
        ).any()
    )
    assert (beta > 0) is not costs


@pytest.mark.parametrize("name", ["rloo", "trpo", "gspo"])
@pytest.mark.parametrize(("wrong", "bf16", "stops"), [(1.002, False, True), (1.002, True, False), (2.0, True, True)])
def test_ratios_are_1_before_the_first_step(tmp_path, name, wrong, bf16, stops):
    """In fp32 to 1e-4, which a temperature that is off by 0.2 % exceeds; bfloat16 rounds by more than that."""
    stage = Stage(tmp_path, settings_of(steps=1, algorithm=name))
    stage.network.temperature *= wrong
    stage.learner.machine = dataclasses.replace(CPU, bf16=bf16)
    if stops:
        with pytest.raises(NumberError, match=r"differ from the sampler's \(KL .* nats per token, ratios .* from 1\)"):
            stage.go()
    else:
        stage.go()


def test_one_token_that_is_off_is_not_lost_among_ten_thousand():
    old_BT = torch.full((100, 100), -2.0)
    mask_BT = torch.ones(100, 100, dtype=torch.bool)
    logp_BT = old_BT + 1e-5
    for here, stops in ((0.0, False), (0.5, True)):
        logp_BT[0, 0] = -2.0 - here
        found = {k: float(total) / count for k, (total, count) in apart(logp_BT, old_BT, mask_BT).items()}
        assert found["ratio_moved"] < 1e-4  # the mean says nothing of it
        if stops:
            with pytest.raises(NumberError, match="differ from the sampler's"):
                check_agreement(found, full_precision=True)
        else:
            check_agreement(found, full_precision=True)


@pytest.mark.parametrize("bf16", [False, True])
def test_no_answer_is_clipped_before_the_policy_has_moved(tmp_path, bf16):
    """GSPO clips ratios 3e-4 away from 1, which is less than bfloat16 rounds by, token by token."""
    stage = Stage(tmp_path, settings_of(steps=3, algorithm="gspo"))
    stage.learner.machine = dataclasses.replace(CPU, bf16=bf16)
    assert [line["clip_share"] for line in stage.go().metrics()] == [0, 0, 0]


def test_ratios_of_the_first_step_are_logged(tmp_path):
    once, often = (
        Stage(tmp_path / str(epochs), settings_of(steps=1, algorithm="rloo", epochs=epochs)).go().metrics()[0]
        for epochs in (1, 3)
    )
    assert once["ratio_moved"] < 1e-4
    assert often["ratio_moved"] > 1e-2  # the mean over three steps, of which the first has not moved


def test_a_rounds_critic_is_described(tmp_path):
    settings = settings_of(steps=1, algorithm="ppo", epochs=2, value_clip=1e-3)
    (line,) = Stage(tmp_path, settings).go().metrics()
    assert line["explained_variance"] < 1
    assert 0 < line["value_clip_share"] < 0.5  # none in the first of two steps, and in the second not all


def test_the_reference_shares_the_temperature(tmp_path):
    """At the start the policy is its reference, whatever the temperature: not a nat apart."""
    settings = settings_of(steps=1, algorithm="rloo", sampling=Sampling(max_tokens=6, temperature=0.5))
    assert Stage(tmp_path, settings).go().metrics()[0]["kl"] == pytest.approx(0, abs=1e-5)


def test_the_tokens_that_were_sampled_are_learned_from():
    """The words of an answer are for scorers and people: other tokens may say the same."""
    answer = Answer(
        text="quite other words", token_ids=(7, 0, 2), logps=(-1.0, -2.0, -3.0), ended=Ended.STOPPED, seed=0
    )
    group = Group(prompt=PROMPTS[0], context_ids=(1, 3), answers=(answer,))
    frozen = LanguageNetwork(tiny_model())
    found = rolled_out(
        ModelLearner(frozen, Optimiser(), steps=1, machine=CPU, micro_tokens=99),
        Reference(frozen, adapted=False, machine=CPU, micro_tokens=99),
        Played(groups=(group,), rewards=(1.0,), episode=(0,), turn=(0,), texts=(answer.text,), parts={}),
        critic=False,
    )
    assert found.tree.token_BT[0].tolist() == [7, 0, 2]
    assert found.old_logp_BT.tolist() == [[-1.0, -2.0, -3.0]]


def test_advantages_are_whitened_before_the_round_is_cut(tmp_path, monkeypatch):
    stage = Stage(tmp_path, settings_of(steps=1, algorithm="ppo", minibatch=4))
    seen: list[torch.Tensor] = []
    step = stage.learner.step

    def watching(*parts):
        batch = parts[0].batch
        seen.append(batch.advantage_BT[batch.tree.mask_BT])
        return step(*parts)

    monkeypatch.setattr(stage.learner, "step", watching)
    stage.go()
    whole_N = torch.cat(seen)
    assert float(whole_N.mean()) == pytest.approx(0, abs=1e-5)
    assert float(whole_N.var(correction=0)) == pytest.approx(1, abs=1e-3)
    assert len(seen) == 4
    assert max(abs(float(part_N.mean())) for part_N in seen) > 0.05  # of its own, no minibatch has mean 0


def test_beta_moves_once_a_round_whatever_the_epochs(tmp_path):
    """0.2 x 16 answers / 64: the KL of the first round is 0, which is far under the target."""
    for epochs in (1, 3):
        settings = settings_of(steps=2, minibatch=8, epochs=epochs, kl=Kl(beta=0.1, target=5.0, horizon=64))
        lines = Stage(tmp_path / str(epochs), settings).go().metrics()
        assert [line["beta"] for line in lines] == pytest.approx([0.1, 0.1 * (1 - 0.2 * 16 / 64)])


def test_the_kl_of_a_round_is_the_sum_over_each_answers_tokens():
    """Nats per answer steer beta, not nats per token, which would be the less the longer the answers."""
    memory = PolicyMemory(settings_of(kl=Kl(beta=0.1, target=1.0, horizon=4)))
    memory.learn(ROLLOUT, 0.1, {})
    # (0 + 2 + 2 - 1) / 4 = 0.75 nats per answer: error -0.25 held at -0.2; 3 / 8 per token
    assert memory.controller.beta == pytest.approx(0.1 * (1 - 0.2 * 4 / 4))
    near = PolicyMemory(settings_of(kl=Kl(beta=0.1, target=0.7, horizon=8)))
    near.learn(ROLLOUT, 0.1, {})
    assert near.controller.beta == pytest.approx(0.1 * (1 + (0.75 / 0.7 - 1) * 4 / 8))


def test_a_round_of_two_turns_takes_as_many_steps_over_more_answers(tmp_path, monkeypatch):
    """16 episodes in two steps of 8 answers: 32 answers make two steps of 16, sums over each 8 episodes' tokens."""
    settings = settings_of(steps=1, algorithm="rloo", minibatch=8, sampling=Sampling(max_tokens=6))
    environment = FunctionEnvironment(
        lambda episode: (float(episode.seed % 7), "so" if episode.replies == () else None)
    )
    stage = Stage(tmp_path, settings, environment=environment)
    seen, step = [], stage.learner.step

    def watching(*parts):
        seen.append((parts[0].batch.tree.answers, parts[0].loss.longest))
        return step(*parts)

    monkeypatch.setattr(stage.learner, "step", watching)
    line = stage.go().metrics()[0]
    assert seen == [(16, 3.0), (16, 3.0)]
    assert line["reward"] > 3  # of whole episodes: two turns of up to 6


def test_a_horizon_counts_episodes_not_their_turns(tmp_path):
    """16 episodes of two turns are 32 answers: a horizon of 6 is more than a fifth of the former only."""
    settings = settings_of(steps=1, algorithm="rloo", kl=Kl(beta=0.1, target=5, horizon=6))
    environment = FunctionEnvironment(lambda episode: (0.0, "so" if episode.replies == () else None))
    assert Stage(tmp_path, settings, environment=environment).go().metrics()[0]["beta"] == pytest.approx(0.1)


def test_the_ratio_of_an_answer_is_its_root_or_the_whole():
    batch = PolicyBatch(
        tree=TREE,
        old_logp_BT=ROLLOUT.old_logp_BT,
        ref_logp_BT=ROLLOUT.ref_logp_BT,
        advantage_BT=torch.tensor([1.0, -1.0, 0.5, 2.0])[:, None].expand(4, 3),
        return_BT=torch.zeros(4, 3),
        value_BT=torch.zeros(4, 3),
    )
    logp_BT, mask_BT = ROLLOUT.old_logp_BT + 0.1, TREE.mask_BT
    outputs = Outputs(logp=logp_BT, entropy=torch.zeros(4, 3))
    rooted = PolicyLoss(objective="sequence", reduction="answers", clip=0.9)
    for loss, ratio_B in (
        (rooted, torch.full((4,), 0.1).exp()),
        (dataclasses.replace(rooted, objective="answer"), (0.1 * mask_BT.sum(1)).exp()),
    ):
        found = loss(outputs, batch)
        assert float(found.total) == pytest.approx(-float((ratio_B * batch.advantage_BT[:, 0]).sum()), rel=1e-5)
