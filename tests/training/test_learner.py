"""Gradient steps: the same whatever the split, exact against autograd by hand, and resumed bit for bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from plaudit.batch import LossSum, Needs, Outputs, pack
from plaudit.errors import NumberError, RunError
from plaudit.models.load import Machine, adapted
from plaudit.models.network import Critic, LanguageNetwork, Network, RewardNetwork, Scales, new_head
from plaudit.models.packed import body_of, own_attention
from plaudit.recipe import Adapter, Optimiser
from plaudit.testing.tiny import tiny_model
from plaudit.training.learner import ModelLearner, Part, epsilon_at, learning_rate_at
from plaudit.training.objectives import (
    JudgedBatch,
    JudgementLoss,
    LanguageLoss,
    Said,
    TextBatch,
)
from plaudit.training.policy_loss import PolicyBatch, PolicyLoss

CPU = Machine(device=torch.device("cpu"), bf16=False)
WIDE = Optimiser(learning_rate=1e-3, warmup=0, decay="constant", clip_norm=1e9)


def learner_of(network: Network, settings: Optimiser = WIDE, *, steps: int = 10, micro_tokens: int = 8192):
    return ModelLearner(network, settings, steps=steps, machine=CPU, micro_tokens=micro_tokens)


def gradients(network: Network) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


class OneWeight(Network):
    """A network of one number, which it says of every answer."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def outputs(self, tree, needs):
        return Outputs(score=self.weight.expand(tree.answers))

    def groups(self):
        return {"one": [self.weight]}


@dataclass(frozen=True)
class Slope:
    """A loss with this gradient."""

    gradient: float
    needs: Needs = Needs(score=True)  # noqa: RUF009

    def __call__(self, outputs, batch):
        return LossSum(self.gradient * outputs.score_B.sum(), outputs.score_B.numel())


# --- the mean of the last weights -----------------------------------------------------------------------------------


def walk(learner: ModelLearner, steps: int) -> list[float]:
    """The weight after each step down a slope that changes its sign."""
    batch = batch_of("judgement", [(0, [0, 1])])
    weights = []
    for step in range(learner.done, learner.done + steps):
        learner.step(Part(batch, Slope((-1.0) ** (step // 2))))
        weights.append(float(learner.weights()["weight"]))
    return weights


def averaging(average: float) -> ModelLearner:
    return ModelLearner(OneWeight(), WIDE, steps=10, machine=CPU, micro_tokens=8192, average=average)


@pytest.mark.parametrize(("average", "last"), [(0.3, 3), (0.25, 3), (0.1, 1), (0.99, 10)])
def test_the_mean_is_that_of_the_weights_after_the_last_steps(average, last):
    learner = averaging(average)
    weights = walk(learner, 10)
    learner.take_mean()
    assert float(learner.weights()["weight"]) == pytest.approx(sum(weights[-last:]) / last, rel=1e-5)


def test_without_an_average_the_last_weights_stay():
    learner = averaging(0.0)
    last = walk(learner, 10)[-1]
    learner.take_mean()
    assert float(learner.weights()["weight"]) == last


def test_a_mean_goes_on_from_a_checkpoint(tmp_path):
    straight, cut, again = (averaging(0.5) for _ in range(3))
    walk(straight, 10)
    walk(cut, 7)
    cut.save(tmp_path)
    walk(again, 8)  # what it has learned and averaged is forgotten
    again.load(tmp_path)
    walk(again, 3)
    for learner in (straight, again):
        learner.take_mean()
    assert torch.equal(straight.weights()["weight"], again.weights()["weight"])


# --- padding, order and split change nothing ------------------------------------------------------------------------

PROMPTS = [(1, 3, 4), (1, 9), (1, 5, 6, 7, 8), (1, 0, 2)]
ANSWERS: list[list[tuple[int, ...]]] = [
    [(10, 11, 12, 2), (13, 2), (14, 15, 16, 17, 18, 19, 20)],
    [(21, 0, 0, 2)],
    [(22, 2), (23, 24, 25, 26, 2)],
    [(27,), (28, 29), (30, 31, 2), (2,)],
]


def numbers(p, k, length, seed):
    """Numbers that belong to one answer, wherever it stands."""
    return torch.randn(length, generator=torch.Generator().manual_seed(1000 * seed + 10 * p + k))


KINDS = (Said.TIED_PAIRS, Said.PAIRS, Said.CHOICE, Said.WHOLE, Said.BEST_PAIRS)


def batch_of(kind: str, order: list[tuple[int, list[int]]]) -> Any:
    """Prompts and answers in an order: [(prompt, [answers])]."""
    tree = pack([(PROMPTS[p], [ANSWERS[p][k] for k in ks]) for p, ks in order], names=[str(p) for p, _ in order])
    if kind == "language":
        return TextBatch(tree=tree)
    rows = [(p, k) for p, ks in order for k in ks]
    if kind == "judgement":
        thumb = [p == 1 for p, _ in rows]
        return JudgedBatch(
            tree=tree,
            said_P=torch.tensor([Said.THUMB if p == 1 else KINDS[p % len(KINDS)] for p, _ in order]),
            rank_B=torch.tensor([0 if up else k + 1 for (_, k), up in zip(rows, thumb, strict=True)]),
            target_B=torch.tensor(thumb).float(),
            weight_P=torch.tensor([1.0 + p / 4 for p, _ in order]),
            margin_P=torch.tensor([p / 8 for p, _ in order]),
            sure_P=torch.tensor([1 - p / 16 for p, _ in order]),
            quality_P=torch.zeros(len(order), dtype=torch.long),
            offset_B=torch.tensor([k / 4 for _, k in rows]),
        )
    old, advantage, returned = (
        torch.nn.utils.rnn.pad_sequence([numbers(p, k, len(ANSWERS[p][k]), s) for p, k in rows], batch_first=True)
        for s in (1, 2, 3)
    )
    return PolicyBatch(
        tree=tree,
        old_logp_BT=0.1 * old - 3.5,
        ref_logp_BT=0.1 * returned - 3.5,
        advantage_BT=advantage,
        return_BT=returned,
        value_BT=advantage,
    )


POLICY_LOSSES = {
    "policy": PolicyLoss(value_weight=0.5, entropy=0.01),
    "policy-answers": PolicyLoss(objective="sequence", reduction="answers", beta=0.1, estimator="k3", clip=0.05),
    "policy-constant": PolicyLoss(
        objective="weighted", reduction="constant", longest=9, beta=0.1, value_weight=0.5, value_clip=0.1, entropy=0.01
    ),
}


def network_of(kind: str, family: str) -> tuple[Network, Any]:
    if kind == "judgement":
        network = RewardNetwork(tiny_model(family, reward=True))
        network.scales = Scales(0.2, [3, 2, 1])
        return network, JudgementLoss(centring=0.1, apart=True)
    if kind in POLICY_LOSSES:
        critic = Critic(new_head(32, bias=True, seed=0), body_of(tiny_model(family, seed=1)))
        return LanguageNetwork(tiny_model(family), critic), POLICY_LOSSES[kind]
    return LanguageNetwork(tiny_model(family)), LanguageLoss()


IN_ORDER = [(p, list(range(len(answers)))) for p, answers in enumerate(ANSWERS)]
TURNED = [(p, ks[::-1]) for p, ks in IN_ORDER[::-1]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("kind", ["language", "judgement", *POLICY_LOSSES])
def test_padding_order_and_split_change_nothing(kind, family):
    """Log-probabilities, losses and gradients (relative to their norm) to 1e-5 in fp32, on both roads.

    Bloom goes in padded rows, the others packed. Alone means one prompt in each forward pass: no padding but that of
    its own answers, and no neighbours.
    """
    found = []
    for order, micro_tokens in ((IN_ORDER, 8192), (TURNED, 8192), (IN_ORDER, 1), (TURNED, 20)):
        network, loss = network_of(kind, family)
        learner = learner_of(network, micro_tokens=micro_tokens)
        batch = batch_of(kind, order)
        outputs = learner.forward(batch, loss.needs)
        metrics = learner.step(Part(batch, loss))
        rows = [(p, k) for p, ks in order for k in ks]
        place = [rows.index((p, k)) for p, ks in IN_ORDER for k in ks]
        said = outputs.score_B[place] if kind == "judgement" else outputs.logp_BT[place]
        found.append((said, metrics, gradients(network)))
    said, metrics, gradient = found[0]
    assert float(gradient.norm()) > 0.1
    for other_said, other_metrics, other_gradient in found[1:]:
        torch.testing.assert_close(other_said, said, rtol=0, atol=1e-5)
        assert other_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
        assert float((other_gradient - gradient).norm() / gradient.norm()) < 1e-5


@pytest.mark.parametrize("pads", [0, 1, 37])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_pass_of_transformers_says_the_same(side, pads):
    network = LanguageNetwork(tiny_model())
    logp_BT = network.outputs(pack([(PROMPTS[0], ANSWERS[0])]), Needs(logp=True)).logp_BT
    for row, answer in enumerate(ANSWERS[0]):
        text = [*PROMPTS[0], *answer]
        ids, mask = torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64)
        place = (pads, 0) if side == "left" else (0, pads)
        ids, mask = torch.nn.functional.pad(ids, place), torch.nn.functional.pad(mask, place)
        with own_attention(network.model):
            logits = network.model(
                input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)
            ).logits
        real = logits[0][mask[0].bool()].log_softmax(-1)
        expected = [float(real[len(PROMPTS[0]) - 1 + t, token]) for t, token in enumerate(answer)]
        assert logp_BT[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-5)


# --- one step, by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_tokens", [8192, 6])
def test_parts_with_other_denominators_by_hand(micro_tokens):
    """0.5 x the mean over 5 tokens + 2 x the mean over 12, and AdamW on it, three times, its rate falling."""
    settings = Optimiser(
        learning_rate=1e-2, warmup=0, decay="linear", clip_norm=1e9, weight_decay=0.1, beta1=0.8, beta2=0.9
    )
    first = TextBatch(tree=pack([((1, 3), [(4, 5, 2)]), ((1,), [(6, 2)])]))
    second = TextBatch(tree=pack([((1, 7), [(8, 9, 10, 11, 12, 2)]), ((1, 3), [(13, 14, 15)]), ((1,), [(4, 5, 6)])]))
    network, mine = LanguageNetwork(tiny_model()), LanguageNetwork(tiny_model())
    learner = learner_of(network, settings, steps=3, micro_tokens=micro_tokens)
    optimiser = torch.optim.AdamW(mine.parameters(), lr=1e-2, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.1)
    for step in range(3):
        metrics = learner.step(Part(first, LanguageLoss(), 0.5), Part(second, LanguageLoss(), 2.0))
        optimiser.zero_grad()
        means = [-mine.outputs(b.tree, Needs(logp=True)).logp_BT[b.tree.mask_BT].mean() for b in (first, second)]
        (0.5 * means[0] + 2.0 * means[1]).backward()
        torch.testing.assert_close(gradients(network), gradients(mine), rtol=1e-4, atol=1e-6)
        norm = float(gradients(mine).norm())
        assert metrics["gradient_norm/policy"] == pytest.approx(norm, rel=1e-4)
        assert metrics["loss"] == pytest.approx(float(means[1].detach()), rel=1e-4)
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 3)
        optimiser.step()
        assert learner.done == step + 1
    for ours, theirs in zip(network.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_group_is_clipped_by_itself():
    network, loss = network_of("policy", "llama")
    metrics = learner_of(network, Optimiser(clip_norm=1e-2)).step(Part(batch_of("policy", IN_ORDER), loss))
    for name, parameters in network.groups().items():
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        assert metrics[f"gradient_norm/{name}"] > 2e-2
        assert float(norm) == pytest.approx(1e-2, rel=1e-3)


def test_a_small_gradient_is_not_clipped():
    network, loss = network_of("language", "llama")
    learner_of(network).step(Part(batch_of("language", IN_ORDER), loss))
    free = gradients(network)
    network, loss = network_of("language", "llama")
    learner_of(network, Optimiser(clip_norm=float(free.norm()) * 1.01)).step(Part(batch_of("language", IN_ORDER), loss))
    assert torch.equal(gradients(network), free)


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        (Optimiser(learning_rate=1.0, warmup=0.4, decay="constant"), 5, [0.5, 1, 1, 1, 1]),
        (Optimiser(learning_rate=2.0, warmup=0.5, decay="linear"), 8, [0.5, 1, 1.5, 2, 2, 1.5, 1, 0.5]),
        (Optimiser(learning_rate=1.0, warmup=0, decay="linear"), 4, [1, 0.75, 0.5, 0.25]),
        # (1 + cos(pi k / 4)) / 2 of 0.9, and a tenth
        (
            Optimiser(learning_rate=1.0, warmup=0, decay="cosine"),
            4,
            [1, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1 + 0.45 * (1 - math.sqrt(0.5))],
        ),
        (
            Optimiser(learning_rate=1.0, warmup=0, floor=0),
            4,
            [1, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5)],
        ),
        (Optimiser(learning_rate=2.0, warmup=0, decay="linear", floor=0.2), 4, [2, 1.6, 1.2, 0.8]),
        (Optimiser(learning_rate=1.0, warmup=0.9, decay="linear"), 1, [1]),
    ],
)
def test_learning_rates_by_hand(settings, steps, expected):
    assert [learning_rate_at(step, steps, settings) for step in range(steps)] == pytest.approx(expected)


@pytest.mark.parametrize("form", ["pytorch", "tensorflow"])
def test_both_forms_of_adam_by_hand(form):
    """Three steps of one weight under gradients 1, -2, 0.5, with an epsilon that matters."""
    epsilon, beta1, beta2, rate = 0.1, 0.9, 0.99, 0.01
    settings = Optimiser(
        learning_rate=rate, warmup=0, decay="constant", beta2=beta2, epsilon=epsilon, epsilon_form=form, clip_norm=9
    )
    network = OneWeight()
    learner = learner_of(network, settings)
    weight = m = v = 0.0
    for t, gradient in enumerate((1.0, -2.0, 0.5), start=1):
        learner.step(Part(TextBatch(tree=pack([((1,), [(3,)])])), Slope(gradient)))
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        if form == "pytorch":
            weight -= rate * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + epsilon)
        else:  # the order of TensorFlow: both corrections in the rate, epsilon beside the uncorrected root
            weight -= rate * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (math.sqrt(v) + epsilon)
        assert float(network.weight.detach()) == pytest.approx(weight, rel=1e-5)


def test_late_steps_of_both_forms_are_one():
    pytorch, tensorflow = (Optimiser(epsilon=1e-5, epsilon_form=form) for form in ("pytorch", "tensorflow"))
    assert [epsilon_at(step, pytorch) for step in (0, 99)] == [1e-5, 1e-5]
    assert epsilon_at(0, tensorflow) == pytest.approx(1e-5 / math.sqrt(0.001))  # beta2 0.999: 32 times as much
    assert epsilon_at(20_000, tensorflow) == pytest.approx(1e-5)


def test_a_climb_of_seven_percent_is_seven_steps():
    settings = Optimiser(learning_rate=1.0, warmup=0.07, decay="linear")  # 0.07 * 100 is 7.000000000000001
    assert [step for step in range(100) if learning_rate_at(step, 100, settings) == 1] == [6, 7]
    assert learning_rate_at(500, 100, settings) == 0  # more steps than were said


def test_the_rate_of_a_step_is_the_one_of_the_schedule():
    network, loss = network_of("language", "llama")
    learner = learner_of(network, Optimiser(learning_rate=1e-3, warmup=0, decay="linear"), steps=4)
    rates = [learner.step(Part(batch_of("language", IN_ORDER), loss))["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


# --- numbers that are none ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Steep:
    """Finite, with a gradient that is not."""

    needs: Needs = Needs(logp=True)  # noqa: RUF009

    def __call__(self, outputs: Outputs, batch: Any) -> LossSum:
        return LossSum((outputs.logp_BT * 0).sum().sqrt(), 1.0)


def weights(learner):
    return {name: tensor.clone() for name, tensor in learner.weights().items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("micro_tokens", [8192, 1])
def test_a_loss_that_is_no_number_names_the_prompt_and_moves_nothing(value, micro_tokens):
    network, loss = network_of("policy", "llama")
    learner = learner_of(network, micro_tokens=micro_tokens)
    batch = batch_of("policy", IN_ORDER)
    learner.step(Part(batch, loss))
    before = weights(learner)
    batch.advantage_BT[4, 0] = value  # an answer of prompt 2
    with pytest.raises(
        NumberError, match=r"the loss is (nan|-?inf) at step 1, because of prompt 2; no weight has moved"
    ):
        learner.step(Part(batch_of("policy", TURNED), loss), Part(batch, loss))
    assert learner.done == 1
    assert all(p.grad is None for p in network.parameters())
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, before[name])


def test_a_gradient_that_is_no_number_moves_nothing():
    network, loss = network_of("language", "llama")
    learner = learner_of(network)
    before = weights(learner)
    with pytest.raises(NumberError, match=r"the gradient of policy is nan at step 0; no weight has moved"):
        learner.step(Part(batch_of("language", IN_ORDER), Steep()))
    for name, tensor in learner.weights().items():
        assert torch.equal(tensor, before[name])
    assert learner.step(Part(batch_of("language", IN_ORDER), loss))["loss"] > 0


# --- going on -------------------------------------------------------------------------------------------------------


def resumable(name: str) -> tuple[Network, Any, Any]:
    if name == "adapter":
        model = adapted(tiny_model(), Adapter(rank=2), seed=0)
        return LanguageNetwork(model), LanguageLoss(), "language"
    if name == "tied":
        return LanguageNetwork(tiny_model(tie_word_embeddings=True)), LanguageLoss(), "language"
    return (*network_of(name, "llama"), name)


@pytest.mark.parametrize("name", ["policy", "judgement", "adapter", "tied"])
def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path, name):
    settings = Optimiser(learning_rate=1e-2, warmup=0.3, decay="cosine", weight_decay=0.01)

    def go(learner, kind, loss, steps):
        for step in steps:
            metrics = learner.step(Part(batch_of(kind, IN_ORDER if step % 2 else TURNED), loss))
        return metrics

    network, loss, kind = resumable(name)
    straight = learner_of(network, settings, steps=5)
    expected = go(straight, kind, loss, range(5))
    network, loss, kind = resumable(name)
    first = learner_of(network, settings, steps=5)
    go(first, kind, loss, range(2))
    first.save(tmp_path)
    network, loss, kind = resumable(name)
    second = learner_of(network, settings, steps=5)
    go(second, kind, loss, range(1))  # what it learned by itself is forgotten
    second.load(tmp_path)
    assert second.done == 2
    assert go(second, kind, loss, range(2, 5)) == expected
    for key, tensor in straight.weights().items():
        assert torch.equal(second.weights()[key], tensor)


def test_a_checkpoint_from_before_the_first_step_forgets_what_was_learned(tmp_path):
    network, loss = network_of("language", "llama")
    learner_of(network).save(tmp_path)
    network, loss = network_of("language", "llama")
    moved = learner_of(network)
    moved.step(Part(batch_of("language", TURNED), loss))
    moved.load(tmp_path)
    moved.step(Part(batch_of("language", IN_ORDER), loss))
    network, loss = network_of("language", "llama")
    straight = learner_of(network)
    straight.step(Part(batch_of("language", IN_ORDER), loss))
    for key, tensor in straight.weights().items():
        assert torch.equal(moved.weights()[key], tensor)


def test_a_checkpoint_holds_what_is_trained_and_fits_no_other_network(tmp_path):
    model = adapted(tiny_model(), Adapter(rank=2), seed=0)
    learner = learner_of(LanguageNetwork(model))
    assert all("lora_" in name for name in learner.weights())
    learner.save(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2
    with pytest.raises(RunError, match=r"holds the weights of another network: .* differ"):
        learner_of(LanguageNetwork(tiny_model())).load(tmp_path)


def test_a_forward_pass_leaves_no_gradient_and_no_dropout():
    network = RewardNetwork(tiny_model(reward=True), dropout=0.5).train()
    learner = learner_of(network)
    batch = batch_of("judgement", IN_ORDER)
    first, second = (learner.forward(batch, Needs(score=True)).score_B for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    pieces = learner_of(network, micro_tokens=1).forward(batch, Needs(score=True)).score_B
    torch.testing.assert_close(pieces, first, rtol=0, atol=1e-5)
