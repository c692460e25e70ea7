"""The reward model: which judgements it learns from, that it learns, and every number of its evaluation by hand."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.errors import RecordError
from plaudit.evaluation.reward import held_out as measures
from plaudit.losses import tie_loss
from plaudit.models.load import Machine, adapted
from plaudit.models.network import LanguageNetwork, RewardNetwork
from plaudit.recipe import Adapter, Recipe, Reward, Text
from plaudit.records import Choice, Comment, Comparison, Judgement, Preferred, Prompt, Ranking, Thumb
from plaudit.records import Scores as JudgedScores
from plaudit.runs import Run
from plaudit.scorers import ModelScorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.judged import judged_batch, judged_tokens, said_by
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.negatives import with_negatives
from plaudit.training.objectives import JudgementLoss
from plaudit.training.reward_stage import length_worth, train_reward

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)


def judged(answers, verdict, prompt="q"):
    return Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple(answers), verdict=verdict)


def accuracy_of(network, judgements):
    return measures(ModelScorer(network, WORDS, CPU), judgements)["accuracy"]


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


def train(folder, judgements, held_out=(), seed=0, **changes):
    given = {"minibatch": 8, "epochs": 4, "optimiser": {"learning_rate": 5e-3, "warmup": 0}, **changes}
    settings = Reward.model_validate(given)
    recipe = Recipe.model_validate({"world": {}, "save_every": 3, "seed": seed})
    network = RewardNetwork(tiny_model(reward=True), dropout=settings.dropout)
    run = Run(folder, recipe)
    try:
        train_reward(run, network, WORDS, judgements, settings, recipe, CPU, held_out)
    finally:
        run.close()
    return network


def test_it_learns_what_people_like(tmp_path):
    held_out = people(40, 30)
    before = accuracy_of(RewardNetwork(tiny_model(reward=True)), held_out)
    network = train(tmp_path, people(0, 40))
    assert before < 0.7
    assert accuracy_of(network, held_out) > 0.9
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().split("\n")[:-1]]
    assert len(metrics) == 4 * 40 // 8
    assert metrics[0]["reward/loss"] > 2 * metrics[-1]["reward/loss"]
    assert {"reward/accuracy", "reward/gradient_norm/reward"} < metrics[0].keys()


KINDS = (
    Ranking(ranks=(1, 3, 2, 3)),
    Ranking(ranks=(1, 1, 2, 2)),
    Ranking(ranks=(1, 1)),
    Choice(best=0),
    Comparison(preferred=Preferred.FIRST, strength=2.0, sure=0.7),
    Comparison(preferred=Preferred.TIE),
    JudgedScores(scores=(1.0, 5.0, 3.0), scale=(1.0, 5.0)),
    JudgedScores(scores=(4.0,), scale=(1.0, 5.0)),
    Thumb(up=True),
    Thumb(up=False),
)


def mixed(draw):
    """Judgements of every kind about random answers, empty ones too."""
    judgements = [judged(["ae", "b"], KINDS[4])]  # the others may all be ties
    for n in range(draw.randint(3, 12)):
        verdict = draw.choice(KINDS)
        count = {"ranking": len(getattr(verdict, "ranks", ())), "scores": len(getattr(verdict, "scores", ()))}
        k = count.get(verdict.kind) or {"choice": draw.randint(1, 5), "comparison": 2, "thumb": 1}[verdict.kind]
        answers = ["".join(draw.choices("abcxyz ", k=draw.randint(0, 9))) for _ in range(k)]
        judgements.append(judged(answers, verdict, f"q {n}"))
    return judgements


def test_a_hundred_random_mixes_train_without_a_nan(tmp_path):
    draw = random.Random(0)
    for n in range(100):
        judgements = mixed(draw)
        changes = {
            "rankings": draw.choice(["pairs", "whole"]),
            "choices": draw.choice(["softmax", "pairs"]),
            "ratings": draw.choice(["auto", "grades", "squared"]),
            "ties": draw.random() < 0.7,
            "label_smoothing": draw.choice([0.0, 0.1]),
            "margin": draw.choice([0.0, 1.0]),
            "centring": draw.choice([0.0, 0.01]),
            "length_debias": draw.random() < 0.3,
            "curriculum": draw.random() < 0.3,
            "grades": draw.choice([2, 5]),
        }
        network = train(tmp_path / str(n), judgements, minibatch=4, epochs=2, seed=n, **changes)
        assert all(torch.isfinite(p).all() for p in network.parameters())
        for line in (tmp_path / str(n) / "metrics.jsonl").read_text().splitlines():
            assert all(math.isfinite(v) for v in json.loads(line).values() if isinstance(v, float))


def star(n):
    """How people with cuts at 1 and 3 grade an answer with n times an `e`."""
    return 1.0 + 2.0 * ((n > 1) + (n > 3))


def test_it_learns_from_grades_where_each_begins(tmp_path):
    answers = [f"{'e' * (n % 6)}{'xyz'[n % 3]}" for n in range(60)]
    rated = [
        judged([a], JudgedScores(scores=(star(a.count("e")),), scale=(1.0, 5.0)), f"q {n}")
        for n, a in enumerate(answers)
    ]
    network = train(tmp_path, rated, grades=3, epochs=12)
    batch = judged_batch(judged_tokens(rated, WORDS, Reward(grades=3))[0])
    score_B = network.outputs(batch.tree, Needs(score=True)).score_B
    grade_B = (score_B[:, None] > network.scales.cut_C()).sum(1)
    assert float((grade_B == batch.target_B).float().mean()) > 0.95


def test_it_learns_how_frequent_ties_are(tmp_path):
    # of equal answers half are called equal, the others are even: e^tie is 2
    said = ((1, 1), (1, 2), (1, 1), (2, 1))
    equal = [judged(["x", "y"], Ranking(ranks=said[n % 4]), f"q {n}") for n in range(40)]
    clear = [judged(["eee", "x"], Ranking(ranks=(1, 2)), f"c {n}") for n in range(40)]
    network = train(tmp_path, [*equal, *clear], epochs=8)
    outputs = network.outputs(
        judged_batch(judged_tokens([*equal, *clear], WORDS, Reward())[0]).tree, Needs(score=True, scales=True)
    )
    gap = float((outputs.score_B[80] - outputs.score_B[81]).detach())
    assert gap > 3
    tied = -tie_loss(torch.zeros(1), torch.zeros(1), outputs.tie_parameter)
    assert 0.3 < float(tied.exp().detach()) < 0.7


def test_patience_ends_it_and_keeps_the_best(tmp_path, capsys):
    judgements, held_out = people(0, 24), people(40, 16)
    network = train(tmp_path, judgements, held_out, patience=2, look_every=3, epochs=99)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    looks = [row["reward/held_out_loss"] for row in metrics if "reward/held_out_loss" in row]
    assert len(metrics) < 99 * 24 // 8
    assert len(looks) == looks.index(min(looks)) + 3
    assert "the held-out loss has not fallen for 2 looks" in capsys.readouterr().err
    batch, loss = judged_batch(judged_tokens(held_out, WORDS, Reward())[0]), JudgementLoss()
    found = loss(network.outputs(batch.tree, loss.needs), batch)
    assert float(found.total.detach()) / found.denominator == pytest.approx(min(looks), abs=1e-4)
    with pytest.raises(RecordError, match=r"reward\.patience 2 looks at held-out judgements, and none of 0"):
        train(tmp_path / "other", judgements, patience=2)
    quiet = [one.model_copy(update={"annotator": "bob"}) for one in held_out]
    with pytest.raises(RecordError, match=r"reward\.patience 2 looks at held-out judgements, and none of 16"):
        train(tmp_path / "quiet", judgements, quiet, patience=2, annotators={"bob": 0})


def test_patience_looks_at_ties_and_grades_that_nobody_trained_on(tmp_path):
    ordered = [judged(["ee", "x"], Ranking(ranks=(1, 2)), f"q {n}") for n in range(8)]
    tied = judged(["e", "y", "ez"], Ranking(ranks=(1, 2, 1)), "h")
    graded = judged(["ey"], JudgedScores(scores=(4.0,), scale=(1.0, 5.0)), "g")
    train(tmp_path, ordered, [ordered[0], tied, graded], patience=1, look_every=1, epochs=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert math.isfinite(rows[0]["reward/held_out_loss"])


def test_interrupted_patience_ends_with_the_same_bits(tmp_path, monkeypatch):
    judgements, held_out = people(0, 24), people(40, 16)
    given = {"patience": 2, "look_every": 3, "epochs": 99}
    straight = train(tmp_path / "straight", judgements, held_out, **given)
    cut_at(monkeypatch, 10)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", judgements, held_out, **given)
    monkeypatch.undo()
    again = train(tmp_path / "cut", judgements, held_out, **given)
    assert all(torch.equal(one, two) for one, two in zip(straight.parameters(), again.parameters(), strict=True))


def test_the_last_weights_are_averaged_across_an_interruption_too(tmp_path, monkeypatch):
    given = {"average": 0.5, "epochs": 5}
    judgements = people(0, 24)
    straight = train(tmp_path / "straight", judgements, **given)
    cut_at(monkeypatch, 10)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", judgements, **given)
    monkeypatch.undo()
    again = train(tmp_path / "cut", judgements, **given)
    assert all(torch.equal(one, two) for one, two in zip(straight.parameters(), again.parameters(), strict=True))
    last = train(tmp_path / "last", judgements, epochs=5)
    assert any(not torch.equal(one, two) for one, two in zip(straight.parameters(), last.parameters(), strict=True))


def test_a_curriculum_begins_with_what_is_clear(tmp_path):
    far = [judged(["ee", "x"], Comparison(preferred=Preferred.FIRST, strength=n / 9), f"q {n}") for n in range(16)]
    runs = {}
    for name, on in (("on", True), ("off", False)):
        train(tmp_path / name, far, margin=9.0, curriculum=on, epochs=1, minibatch=4, optimiser={"learning_rate": 1e-9})
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        runs[name] = [json.loads(line)["reward/loss"] for line in lines]
    assert runs["on"] == sorted(runs["on"], reverse=True)  # nothing is learned: the loss is the margin's
    assert runs["off"] != sorted(runs["off"], reverse=True)


def test_a_curriculum_of_equals_is_the_order_that_is_drawn(tmp_path):
    strong = Comparison(preferred=Preferred.FIRST, strength=2.0)
    equals = [judged([f"{n}e", f"x{n}"], strong, f"q {n}") for n in range(12)]
    plain, even = (train(tmp_path / str(on), equals, curriculum=on, epochs=1) for on in (False, True))
    assert torch.equal(plain.head.weight, even.head.weight)


def test_what_length_explains_the_reward_need_not_say(tmp_path):
    # longer wins in 3 of 4, and an `e` decides it in all: the reward shall know the `e`
    judgements = []
    for n in range(64):
        long, short = ("e" if n % 4 else "x") + "xyxyxyxy", ("x" if n % 4 else "e") + "y"
        judgements.append(judged([long, short], Ranking(ranks=(1, 2) if n % 4 else (2, 1)), f"q {n}"))
    items, _ = judged_tokens(judgements, WORDS, Reward())
    # gap of log lengths: 10 tokens against 3, end token and all; log-odds 3
    assert length_worth(items).slope == pytest.approx(math.log(3) / math.log(10 / 3), abs=0.02)
    plain, debiased = (
        train(tmp_path / str(on), judgements, length_debias=on, epochs=3, optimiser={"learning_rate": 2e-3})
        for on in (False, True)
    )
    longer = [judged(["zyzyzyzy", "zy"], Ranking(ranks=(1, 2)), f"p {n}") for n in range(4)]
    tree = judged_batch(judged_tokens(longer, WORDS, Reward())[0]).tree
    gaps = [
        float(-n.outputs(tree, Needs(score=True)).score_B.detach().view(-1, 2).diff().mean()) for n in (plain, debiased)
    ]
    assert gaps[1] < gaps[0]


def thumbs(answer, up, down):
    return [judged([answer], Thumb(up=n < up), f"{answer} {n}") for n in range(up + down)]


def test_that_most_thumbs_go_up_is_nothing_that_length_explains():
    even = [*thumbs("ab", 8, 2), *thumbs("ab" * 15, 8, 2)]  # 3 tokens and 31, end token and all: log-odds log 4
    items, _ = judged_tokens(even, WORDS, Reward())
    length = length_worth(items)
    assert length.slope == pytest.approx(0, abs=1e-3)
    assert length.centre == pytest.approx((math.log(3) + math.log(31)) / 2)
    # 1 of 5 and 4 of 5: log-odds of -log 4 and log 4, over the gap of log lengths; nothing at the centre
    items, _ = judged_tokens([*thumbs("ab", 2, 8), *thumbs("ab" * 15, 8, 2)], WORDS, Reward())
    length = length_worth(items)
    assert length.slope == pytest.approx(2 * math.log(4) / math.log(31 / 3), abs=0.02)
    assert float(judged_batch(items, length).offset_B.mean()) == pytest.approx(0, abs=1e-6)


def test_each_quality_has_its_own_share_of_thumbs_up():
    """More of the one about short answers, more of the other about long ones: of length itself, nothing is said."""
    short, long = "ab", "ab" * 15
    about = {"few": [*thumbs(short, 4, 16), *thumbs(long, 1, 4)], "many": [*thumbs(short, 4, 1), *thumbs(long, 16, 4)]}
    judgements = [one.model_copy(update={"quality": name}) for name, said in about.items() for one in said]
    items, _ = judged_tokens(judgements, WORDS, Reward(qualities=dict.fromkeys(about, 1.0)))
    assert length_worth(items).slope == pytest.approx(0, abs=0.02)  # 0.65 by one constant for both


def test_what_length_is_worth_in_comparisons_is_no_part_of_a_rating(tmp_path):
    longer = [judged(["xyxyxyxy", "xy"], Ranking(ranks=(1, 2)), f"q {n}") for n in range(24)]
    rated = [
        judged([a], JudgedScores(scores=(score,), scale=(1, 5)), f"{a} {n}")
        for n in range(24)
        for a, score in (("zxzxzxzx", 3.0), ("zx", 3.0), ("e", 5.0), ("ee", 1.0))
    ]
    items, _ = judged_tokens([*longer, *rated], WORDS, Reward(ratings="squared"))
    offset_B = judged_batch(items, length_worth(items)).offset_B
    assert offset_B[0] > offset_B[1]
    assert offset_B[48:].tolist() == [0.0] * 96
    grades, _ = judged_tokens(rated, WORDS, Reward())
    assert not judged_batch(grades, length_worth(items)).offset_B.any()
    for ratings in ("auto", "squared"):
        with pytest.raises(RecordError, match=r"length_debias learns from comparisons and thumbs .* \(96 by "):
            train(tmp_path / ratings, rated, length_debias=True, ratings=ratings)


def test_spoiled_answers_are_learned_to_be_worse(tmp_path):
    judgements = people(0, 40)
    plain, wary = (train(tmp_path / str(share), judgements, negatives=share, epochs=6) for share in (0.0, 1.0))
    whole = [one for one in judgements if not isinstance(one.verdict, Thumb)]
    items, _ = judged_tokens(whole, WORDS, Reward())
    beaten = []
    for network in (plain, wary):
        learner = ModelLearner(network, Reward().optimiser, steps=1, machine=CPU, micro_tokens=8192)
        attacked = with_negatives(items, learner, WORDS, 1.0, seed=9)
        scores = iter(learner.forward(judged_batch(attacked), Needs(score=True)).score_B.tolist())
        gaps = []
        for item in attacked:
            own = [next(scores) for _ in item.answers]
            gaps.append(own[item.ranks.index(1)] - own[-1])
        beaten.append(sum(gap < 0 for gap in gaps))
    assert beaten[1] < beaten[0]


def test_an_adversary_is_met_and_leaves_the_embeddings_where_they_were(tmp_path):
    judgements = people(0, 24)
    plain, hardened = (train(tmp_path / str(size), judgements, adversary=size, epochs=2) for size in (0.0, 0.05))
    rows = [json.loads(line) for line in (tmp_path / "0.05" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["reward/loss_under_attack"] > row["reward/loss"] for row in rows)
    assert not torch.equal(plain.head.weight, hardened.head.weight)


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2)], ids=["whole", "adapter"])
def test_an_attack_is_a_step_along_the_gradient_and_back(adapter):
    network = RewardNetwork(adapted(tiny_model(reward=True), adapter, seed=0, task="SEQ_CLS"))
    free = network.embeddings().requires_grad
    assert free is (adapter is None)
    settings = Reward().optimiser.model_copy(update={"learning_rate": 1e-12})
    learner = ModelLearner(network, settings, steps=9, machine=CPU, micro_tokens=8192)
    batch = judged_batch(judged_tokens(people(0, 8), WORDS, Reward())[0])
    loss, before = JudgementLoss(), network.embeddings().detach().clone()

    def value():
        found = loss(network.outputs(batch.tree, loss.needs), batch)
        return found.total / found.denominator

    network.embeddings().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(), network.embeddings())
    network.embeddings().requires_grad_(free)
    with torch.no_grad():
        network.embeddings().add_(gradient, alpha=float(0.01 * before.norm() / gradient.norm()))
        expected = float(value())
        network.embeddings().copy_(before)
    metrics = learner.step(Part(batch, loss), adversary=0.01)
    assert metrics["loss_under_attack"] == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(network.embeddings().detach(), before, atol=1e-6, rtol=0)
    assert network.embeddings().requires_grad is free


def test_the_trunk_goes_on_as_a_language_model(tmp_path):
    judgements = people(0, 32)

    def surprise(network):
        (context, answer) = WORDS.prompt_ids(Prompt(text="q 1")), WORDS.answer_ids("eeex")
        tree = pack([(context, [answer])])
        language = tiny_model()
        language.lm_head.weight = network.embeddings()
        language.model.load_state_dict(network.model.model.state_dict())
        return -float(LanguageNetwork(language).outputs(tree, Needs(logp=True)).logp_BT.detach().mean())

    settings = Reward.model_validate(
        {"minibatch": 8, "epochs": 8, "language": 1.0, "optimiser": {"learning_rate": 5e-3}}
    )
    found = {}
    for name, weight in (("with", 1.0), ("without", 0.0)):
        network = RewardNetwork(tiny_model(reward=True, tie_word_embeddings=True))
        network.add_language_head(tiny_model(tie_word_embeddings=True))
        run = Run(tmp_path / name, Recipe.model_validate({"world": {}}))
        changed = settings.model_copy(update={"language": weight})
        train_reward(run, network, WORDS, judgements, changed, Recipe.model_validate({"world": {}}), CPU)
        run.close()
        found[name] = surprise(network), accuracy_of(network, people(40, 30))
    assert found["with"][0] < found["without"][0] - 1
    assert found["with"][1] > 0.85  # and it learns what people like
    rows = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["reward/language_loss"] < rows[0]["reward/language_loss"]


def test_qualities_are_judged_apart_and_weighed_together(tmp_path):
    """Half of the judgements are about how many an `e`, half about how few: two heads learn both, one could not."""
    judgements = []
    for n, one in enumerate(people(0, 64)):
        ranks = one.ranks()
        if ranks is None:
            continue
        quality = "many" if n % 2 else "few"
        turned = tuple(max(ranks) + 1 - rank for rank in ranks)
        given = ranks if quality == "many" else turned
        judgements.append(
            judged(one.answers, Ranking(ranks=given), one.prompt.id).model_copy(update={"quality": quality})
        )
    qualities = {"many": 1.0, "few": -0.5}
    model = moved_labels(tiny_model(reward=True, num_labels=2), qualities)
    network = RewardNetwork(model)
    run, recipe = Run(tmp_path / "run", Recipe.model_validate({"world": {}})), Recipe.model_validate({"world": {}})
    settings = Reward.model_validate(
        {"minibatch": 8, "epochs": 6, "qualities": qualities, "optimiser": {"learning_rate": 5e-3}}
    )
    other = judgements[0].model_copy(update={"quality": "funny"})
    train_reward(run, network, WORDS, [*judgements, other], settings, recipe, CPU)
    run.close()
    assert accuracy_of(network, judgements) > 0.9  # each by its own head
    scorer = ModelScorer(network, WORDS, CPU)
    group = [(Prompt(text="q 1", id="q 1"), [("eeexx", True), ("xxyyz", True)])]
    raw = network.outputs(
        pack([(WORDS.prompt_ids(group[0][0]), [WORDS.answer_ids(a) for a, _ in group[0][1]])]), Needs(score=True)
    ).score
    assert raw is not None
    assert raw.shape == (2, 2)
    assert scorer.score_texts(group) == pytest.approx((raw[:, 0] - 0.5 * raw[:, 1]).tolist(), abs=1e-5)
    assert raw[0, 0] > raw[1, 0]
    assert raw[0, 1] < raw[1, 1]


def moved_labels(model, qualities):
    model.config.id2label = dict(enumerate(qualities))
    model.config.reward_weights = list(qualities.values())
    return model


def test_a_judgement_about_nothing_that_is_weighed_is_left_out():
    one = judged(["a", "b"], Ranking(ranks=(1, 2)))
    found, mix = said_by([one, one.model_copy(update={"quality": "kind"})], Reward(qualities={"kind": 1.0}))
    assert len(found) == 1
    assert mix.left_out == {"about no quality, which is not in reward.qualities": 1}


def cut_at(monkeypatch, step):
    """The run falls over when this step would be logged."""
    steps, log = iter(range(99)), Run.log

    def falls(self, *args, **kwargs):
        if next(steps) == step:
            raise RuntimeError("power cut")
        log(self, *args, **kwargs)

    monkeypatch.setattr(Run, "log", falls)


def test_interrupted_it_ends_with_the_same_bits_dropout_too(tmp_path, monkeypatch):
    judgements = people(0, 24)
    straight = train(tmp_path / "straight", judgements, dropout=0.2)
    cut_at(monkeypatch, 5)
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "cut", judgements, dropout=0.2)
    monkeypatch.undo()
    torch.manual_seed(99)  # nobody else's draws matter
    again = train(tmp_path / "cut", judgements, dropout=0.2)
    for one, two in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    without = train(tmp_path / "without", judgements)
    assert not torch.equal(without.head.weight, straight.head.weight)


def test_a_margin_that_no_judgement_asks_for_is_refused(tmp_path):
    def compared(strength):
        verdict = Comparison(preferred=Preferred.FIRST, strength=strength)
        return [judged("ab", verdict, f"q {n}") for n in range(4)]

    with pytest.raises(RecordError, match=r"reward\.margin 2 is times the strength .* and none states one"):
        train(tmp_path / "none", compared(None), margin=2.0, epochs=1)
    train(tmp_path / "stated", compared(2.0), margin=2.0, epochs=1)


def test_judgements_that_order_nothing_are_refused_or_left_out(tmp_path, capsys):
    ties = [judged(["a", "b"], Ranking(ranks=(1, 1))), judged(["a"], Comment(text="hm"))]
    with pytest.raises(RecordError, match=r"none of 2 judgements says which answer is better \(none; 1 left out: a"):
        train(tmp_path / "none", ties)
    train(tmp_path / "some", [*ties, *people(0, 4)], epochs=0.1, ties=False)
    assert "reward: 4 judgements: 3 by pairs, 1 by thumb; 1 left out: a comment; 1 left out" in capsys.readouterr().err
