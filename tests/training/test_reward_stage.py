"""The reward model: which judgements it learns from, that it learns, and every number of its evaluation by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from plaudit.batch import Outputs
from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.models.network import RewardNetwork
from plaudit.recipe import Recipe, Reward, Text
from plaudit.records import Comment, Comparison, Judgement, Preferred, Prompt, Ranking, Thumb
from plaudit.runs import Run
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.reward_stage import evaluate_reward, train_reward

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)


def judged(answers, verdict, prompt="q"):
    return Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple(answers), verdict=verdict)


class Known(RewardNetwork):
    """A network whose score of an answer is known: how far its first letter is behind `m` in the alphabet, halved."""

    def outputs(self, tree, needs):
        first_B = tree.token_BT()[:, 0]
        return Outputs(score=(first_B - 3 - 12).float() / 2)


@pytest.fixture(scope="module")
def known():
    return Known(tiny_model(reward=True))


def score(letter):
    return (ord(letter) - ord("m")) / 2


def sure(gap):
    return 1 / (1 + math.exp(-abs(gap)))


# --- the evaluation, by hand ----------------------------------------------------------------------------------------

HELD_OUT = [
    judged(["z", "naa", "a"], Ranking(ranks=(1, 2, 3))),  # right three times; longer wins: no, equal, yes
    judged(["baa", "y"], Ranking(ranks=(1, 2))),  # wrong; longer wins: yes
    judged(["ca", "cb"], Comparison(preferred=Preferred.FIRST)),  # equal scores and lengths: half and half
    judged(["c", "c"], Comparison(preferred=Preferred.FIRST)),  # the same answer twice: nobody can be right
    judged(["p"], Thumb(up=True)),  # right
    judged(["o"], Thumb(up=False)),  # wrong
    judged(["o"], Comment(text="hm")),
]


def test_accuracy_by_hand(known):
    found = evaluate_reward(known, WORDS, HELD_OUT, CPU, 8192)
    assert found["pairs"] == 7
    assert found["judgements"] == 5
    assert found["accuracy"] == pytest.approx((3 + 0 + 0.5 + 1 + 0) / 7)
    assert found["longer_wins"] == pytest.approx((0 + 0.5 + 1 + 1 + 0.5) / 5)  # thumbs say nothing about length
    # the interval is over the five judgements: 1.96 sqrt(sum (won - rate count)^2) / 7
    rate = 4.5 / 7
    spread = sum((won - rate * count) ** 2 for won, count in ((3, 3), (0, 1), (0.5, 1), (1, 1), (0, 1)))
    error = 1.96 * math.sqrt(spread) / 7
    assert found["interval"] == pytest.approx([rate - error, min(1.0, rate + error)])


def test_calibration_by_hand(known):
    found = evaluate_reward(known, WORDS, HELD_OUT, CPU, 8192)
    gaps = {
        "z>n": score("z") - score("n"),  # 6
        "z>a": score("z") - score("a"),  # 12.5
        "n>a": score("n") - score("a"),  # 6.5
        "b>y": score("b") - score("y"),  # -11.5, wrong
        "c>c": 0.0,
        "p": score("p"),  # 1.5
        "o": -score("o"),  # -1, wrong
    }
    # cells of certainty: .5 to .6 (the tie), .7 to .8 (o), .8 to .9 (p), .9 to 1 (the four others, one of them wrong)
    top = [sure(gaps[name]) for name in ("z>n", "z>a", "n>a", "b>y")]
    expected = [
        {"predicted": 0.5, "observed": 0.5, "count": 1},
        {"predicted": sure(1.0), "observed": 0.0, "count": 1},
        {"predicted": sure(1.5), "observed": 1.0, "count": 1},
        {"predicted": sum(top) / 4, "observed": 0.75, "count": 4},
    ]
    assert [sorted(row) for row in found["calibration"]] == [["count", "observed", "predicted"]] * 4
    for row, wanted in zip(found["calibration"], expected, strict=True):
        assert row == pytest.approx(wanted)
    error = (0 + sure(1.0) + (1 - sure(1.5)) + 4 * abs(sum(top) / 4 - 0.75)) / 7
    assert found["expected_calibration_error"] == pytest.approx(error)


def test_numbers_do_not_depend_on_the_split(known):
    assert evaluate_reward(known, WORDS, HELD_OUT, CPU, 1) == evaluate_reward(known, WORDS, HELD_OUT, CPU, 8192)


def test_without_pairs_there_is_nothing_to_say(known):
    assert evaluate_reward(known, WORDS, HELD_OUT[-1:], CPU, 99) == {"pairs": 0}
    only_thumbs = evaluate_reward(known, WORDS, HELD_OUT[4:5], CPU, 99)
    assert only_thumbs["longer_wins"] is None
    assert only_thumbs["accuracy"] == 1.0
    json.dumps(only_thumbs, allow_nan=False)


# --- training -------------------------------------------------------------------------------------------------------


def people(first, count):
    """People who like answers with many an `e`; K from 1 (a thumb) to 4."""
    judgements = []
    for n in range(first, first + count):
        answers = [f"{'e' * ((n + 2 * k) % 5)}{'xyz'[k % 3] * (3 - k % 2)}" for k in range(2 + n % 3)]
        if n % 4 == 3:
            judgements.append(judged(answers[:1], Thumb(up=answers[0].count("e") > 2), f"q {n}"))
        else:
            order = sorted({answer.count("e") for answer in answers}, reverse=True)
            ranks = tuple(order.index(answer.count("e")) + 1 for answer in answers)
            judgements.append(judged(answers, Ranking(ranks=ranks), f"q {n}"))
    return judgements


def train(folder, judgements, **changes):
    given = {"minibatch": 8, "epochs": 4, "optimiser": {"learning_rate": 5e-3, "warmup": 0}, **changes}
    settings = Reward.model_validate(given)
    recipe = Recipe.model_validate({"world": {}, "save_every": 3})
    network = RewardNetwork(tiny_model(reward=True), dropout=settings.dropout)
    run = Run(folder, recipe)
    try:
        train_reward(run, network, WORDS, judgements, settings, recipe, CPU)
    finally:
        run.close()
    return network


def test_it_learns_what_people_like(tmp_path):
    held_out = people(40, 30)
    before = evaluate_reward(RewardNetwork(tiny_model(reward=True)), WORDS, held_out, CPU, 8192)
    network = train(tmp_path, people(0, 40))
    found = evaluate_reward(network, WORDS, held_out, CPU, 8192)
    assert before["accuracy"] < 0.7
    assert found["accuracy"] > 0.9
    assert found["interval"][0] > before["accuracy"]
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().split("\n")[:-1]]
    assert len(metrics) == 4 * 40 // 8
    assert metrics[0]["reward/loss"] > 2 * metrics[-1]["reward/loss"]
    assert {"reward/accuracy", "reward/gradient_norm/reward"} < metrics[0].keys()


def test_interrupted_it_ends_with_the_same_bits_dropout_too(tmp_path, monkeypatch):
    judgements = people(0, 24)
    straight = train(tmp_path / "straight", judgements, dropout=0.2)
    steps = iter(range(99))
    log = Run.log

    def falls(self, *args, **kwargs):
        if next(steps) == 5:
            raise RuntimeError("power cut")
        log(self, *args, **kwargs)

    monkeypatch.setattr(Run, "log", falls)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", judgements, dropout=0.2)
    monkeypatch.setattr(Run, "log", log)
    torch.manual_seed(99)  # nobody else's draws matter
    again = train(tmp_path / "cut", judgements, dropout=0.2)
    for one, two in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    without = train(tmp_path / "without", judgements)
    assert not torch.equal(without.head.weight, straight.head.weight)


def test_judgements_that_order_nothing_are_refused_or_left_out(tmp_path, capsys):
    ties = [judged(["a", "b"], Ranking(ranks=(1, 1))), judged(["a"], Comment(text="hm"))]
    with pytest.raises(RecordError, match=r"none of 2 judgements says which answer is better \(none; 1 left out: a"):
        train(tmp_path / "none", ties)
    train(tmp_path / "some", [*ties, *people(0, 4)], epochs=0.1, ties=False)
    assert "reward: 4 judgements: 3 by pairs, 1 by thumb; 1 left out: a comment; 1 left out" in capsys.readouterr().err
