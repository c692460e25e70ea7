"""DPO, IPO and KTO from judgements: losses by hand, learning in a second, going on bit for bit, what they refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from plaudit.batch import Outputs, pack, select
from plaudit.errors import RecordError
from plaudit.losses.preference import dpo_loss, ipo_loss
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Kl, Optimiser, Policy, Recipe, Text
from plaudit.records import Choice, Comment, Comparison, Judgement, Preferred, Prompt, Ranking, Scores, Thumb
from plaudit.runs import Run
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.learner import ModelLearner
from plaudit.training.preference_stage import (
    PreferenceBatch,
    PreferenceLoss,
    mismatched_gain,
    preference_batch,
    preference_items,
    preference_steps,
    train_preference,
)
from plaudit.training.rollouts import Reference
from plaudit.tuning import Preference

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)


def settings_of(kind, **changes):
    return Policy(
        algorithm="dpo",
        kl=Kl(beta=0.2),
        preference=Preference(loss=kind, epochs=8, minibatch=4, **changes),
        optimiser=Optimiser(learning_rate=5e-3, warmup=0, decay="constant"),
    )


def judged(prompt, answers, verdict):
    return Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple(answers), verdict=verdict)


JUDGED = [
    judged("a", ["abc", "xyz"], Comparison(preferred=Preferred.FIRST)),
    judged("be", ["zzz", "bad", "yes"], Ranking(ranks=(3, 1, 2))),
    judged("see", ["wuv", "face"], Choice(best=1)),
    judged("d", ["xxy", "add"], Comparison(preferred=Preferred.SECOND)),
]
THUMBS = [judged("ewe", ["bead"], Thumb(up=True)), judged("if", ["zyx"], Thumb(up=False))]
SILENT = [judged("go", ["abc", "xyz"], Comparison(preferred=Preferred.TIE)), judged("ha", ["abc"], Comment(text="hm"))]


class Stage:
    def __init__(self, folder, kind, judgements=JUDGED, *, words=WORDS, fail_at=None, **changes):
        self.settings = settings_of(kind, **changes)
        self.recipe = Recipe.model_validate({"world": {}, "save_every": 2})
        self.folder = folder
        self.items = preference_items(judgements, words, self.settings, {})
        self.network = LanguageNetwork(tiny_model())
        steps = preference_steps(len(self.items), self.settings)
        optimiser = self.settings.optimiser
        self.learner: Any = ModelLearner(self.network, optimiser, steps=steps, machine=CPU, micro_tokens=8192)
        self.reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
        if fail_at is not None:
            step = self.learner.step

            def falls(*parts):
                if self.learner.done == fail_at:
                    raise RuntimeError("power cut")
                return step(*parts)

            setattr(self.learner, "step", falls)  # noqa: B010

    def go(self):
        run = Run(self.folder, self.recipe)
        try:
            train_preference(run, self.learner, self.reference, self.items, WORDS, self.settings, self.recipe)
        finally:
            run.close()
        return self

    def metrics(self):
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [{k.removeprefix("policy/"): v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("kind", ["dpo", "ipo", "kto"])
def test_it_learns_what_was_judged_better(tmp_path, kind):
    metrics = Stage(tmp_path, kind, JUDGED + (THUMBS if kind == "kto" else [])).go().metrics()
    assert metrics[0]["reward_gap"] == pytest.approx(0, abs=1e-5)  # at its reference every implicit reward is 0
    assert metrics[-1]["accuracy"] == 1.0
    assert metrics[-1]["reward_gap"] > 0.3
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    expected = {"dpo": math.log(2), "ipo": (1 / 0.4) ** 2, "kto": 0.5}[kind]
    assert metrics[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_kto_weighs_good_and_bad_answers_as_it_is_told(tmp_path):
    metrics = Stage(tmp_path, "kto", THUMBS, desirable=3.0, undesirable=0.5).go().metrics()
    assert metrics[0]["loss"] == pytest.approx(0.5 * (3.0 + 0.5) / 2, rel=1e-4)  # each loses a half at first


def test_kto_learns_from_thumbs_alone(tmp_path):
    stage = Stage(tmp_path, "kto", THUMBS).go()
    tree = pack([(item.prompt, item.answers) for item in stage.items])
    mask_BT = tree.mask_BT

    def said(network):
        from plaudit.batch import Needs

        return (network.outputs(tree, Needs(logp=True)).logp_BT * mask_BT).sum(1)

    with torch.no_grad():
        up, down = (said(stage.network) - said(LanguageNetwork(tiny_model()))).tolist()
    assert up > 0.1 > -0.1 > down


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_interrupted_it_ends_with_the_same_bits(tmp_path, kind):
    straight = Stage(tmp_path / "straight", kind).go()
    with pytest.raises(RuntimeError, match="power cut"):
        Stage(tmp_path / "cut", kind, fail_at=5).go()
    again = Stage(tmp_path / "cut", kind).go()
    assert again.metrics() == straight.metrics()
    for name, tensor in straight.learner.weights().items():
        assert torch.equal(again.learner.weights()[name], tensor)


# --- the losses -----------------------------------------------------------------------------------------------------

TREE = pack([((1,), [(3, 4), (5,)]), ((1,), [(6,), (7, 8), (9, 3)])])
LOGP_BT = torch.tensor([[-1.0, -2.0], [-1.5, 0.0], [-2.0, 0.0], [-1.0, -1.0], [-0.5, -3.0]])
REF_B = torch.tensor([-2.5, -2.0, -2.0, -3.0, -3.0])


def batch_of(**changes):
    given = {
        "tree": TREE,
        "rank_B": torch.tensor([1, 2, 2, 1, 3]),
        "desirable_B": torch.tensor([True, False, False, True, False]),
        "undesirable_B": torch.tensor([False, True, False, False, True]),
        "sure_P": torch.ones(2),
        "weight_P": torch.ones(2),
        "ref_logp_B": REF_B,
        **changes,
    }
    return PreferenceBatch(**given)


def test_dpo_and_ipo_are_means_over_pairs():
    logp_B = torch.tensor([-3.0, -1.5, -2.0, -2.0, -3.5])
    pairs = [[(0, 1)], [(3, 2), (3, 4), (2, 4)]]
    losses: list[tuple[Any, Any]] = [("dpo", dpo_loss), ("ipo", ipo_loss)]
    for kind, function in losses:
        expected = 0.0
        for own in pairs:
            better, worse = (torch.tensor(side) for side in zip(*own, strict=True))
            expected += float(function(logp_B[better], logp_B[worse], REF_B[better], REF_B[worse], beta=0.5).mean())
        found = PreferenceLoss(kind=kind, beta=0.5)(Outputs(logp=LOGP_BT), batch_of())
        assert float(found.total) == pytest.approx(expected, abs=1e-5)
        assert found.denominator == 2


def test_kto_by_hand():
    """beta 0.5, z0 0.2: log-ratios -0.5 up, 0.5 down | untold, 1 up, -0.5 down."""
    found = PreferenceLoss(kind="kto", beta=0.5, reference=0.2)(Outputs(logp=LOGP_BT), batch_of())

    def lost(gain):
        return 1 - 1 / (1 + math.exp(-0.5 * gain))

    expected = (lost(-0.7) + lost(-0.3)) / 2 + (lost(0.8) + lost(0.7)) / 2
    assert float(found.total) == pytest.approx(expected, abs=1e-5)
    weighed = PreferenceLoss(kind="kto", beta=0.5, reference=0.2, desirable=3.0, undesirable=0.5)
    expected = (3 * lost(-0.7) + 0.5 * lost(-0.3)) / 2 + (3 * lost(0.8) + 0.5 * lost(0.7)) / 2
    assert float(weighed(Outputs(logp=LOGP_BT), batch_of()).total) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["dpo", "ipo", "kto"])
def test_doubt_mixes_a_judgement_with_its_reverse(kind):
    """Of the first judgement, 0.7 as it was said and 0.3 the other way round."""
    loss, outputs = PreferenceLoss(kind=kind, beta=0.5, reference=0.2, desirable=2.0), Outputs(logp=LOGP_BT)
    reversed_ = batch_of(
        rank_B=torch.tensor([2, 1, 2, 1, 3]),
        desirable_B=torch.tensor([False, True, False, True, False]),
        undesirable_B=torch.tensor([True, False, False, False, True]),
    )
    said, other = float(loss(outputs, batch_of()).total), float(loss(outputs, reversed_).total)
    doubted = loss(outputs, batch_of(sure_P=torch.tensor([0.7, 1.0])))
    assert said != pytest.approx(other)
    assert float(doubted.total) == pytest.approx(0.7 * said + 0.3 * other, abs=1e-5)


def test_the_best_is_desirable_and_the_worst_is_not():
    items = preference_items([JUDGED[1], JUDGED[3], *THUMBS], WORDS, settings_of("kto"), {})
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    batch = preference_batch(items, reference)
    # ranks 3 1 2 | the second preferred | a thumb up | a thumb down
    assert batch.desirable_B.tolist() == [False, True, False, False, True, True, False]
    assert batch.undesirable_B.tolist() == [True, False, False, True, False, False, True]
    assert batch.rank_B.tolist() == [3, 1, 2, 2, 1, 0, 0]


@pytest.mark.parametrize("kind", ["dpo", "ipo", "kto"])
def test_every_split_gives_the_same_sum(kind):
    loss = PreferenceLoss(kind=kind, beta=0.5, reference=0.1)
    batch = batch_of(weight_P=torch.tensor([1.0, 0.5]), sure_P=torch.tensor([0.9, 1.0]))
    whole = loss(Outputs(logp=LOGP_BT), batch)
    parts = [loss(Outputs(logp=LOGP_BT[rows]), select(batch, rows)) for rows in ([0, 1], [2, 3, 4])]
    assert float(sum(part.total for part in parts)) == pytest.approx(float(whole.total), abs=1e-5)
    assert sum(part.denominator for part in parts) == whole.denominator


def test_what_is_measured_behind_other_prompts_is_any_of_their_answers(monkeypatch):
    """A file of pairs has the better answer first; KTO's reference point must not be that of better answers alone."""
    seen = []

    def watched(texts, names):
        seen.append(texts)
        return pack(texts, names)

    monkeypatch.setattr("plaudit.training.preference_stage.pack", watched)
    stage = Stage(None, "kto", [JUDGED[0], JUDGED[0], JUDGED[1], JUDGED[3]])
    for seed in range(20):
        mismatched_gain(stage.learner, stage.reference, stage.items, WORDS, seed)
    first, again, second, third = (item.answers for item in stage.items)
    assert first == again
    behind = [{texts[i][1][0] for texts in seen} for i in range(4)]
    assert behind == [set(second), set(second), set(third), set(first)]  # the next that has another prompt
    assert mismatched_gain(stage.learner, stage.reference, stage.items[:2], WORDS, 0) == 0.0  # there is none


def test_what_stands_behind_another_prompt_is_cut_to_what_the_model_reads(monkeypatch):
    words = Words(tiny_tokenizer(), Text(max_prompt_tokens=60), context=64)
    long, short = judged("a" * 55, ["b", "c"], Ranking(ranks=(1, 2))), judged("d", ["e" * 50, "f" * 50], Choice(best=0))
    stage = Stage(None, "kto", [long, short], words=words)
    seen = []
    forward = stage.learner.forward

    def watched(batch, needs):
        seen.append(batch.tree)
        return forward(batch, needs)

    monkeypatch.setattr(stage.learner, "forward", watched)
    mismatched_gain(stage.learner, stage.reference, stage.items, words, 0)
    (tree,) = seen
    assert max(p + max(a) for p, a in zip(tree.prompt_lengths, tree.answer_lengths, strict=True)) == 64


def test_people_weigh_what_the_recipe_says():
    mine = JUDGED[0].model_copy(update={"annotator": "ann"})
    yours = JUDGED[3].model_copy(update={"annotator": "bob"})
    items = preference_items([mine, yours], WORDS, settings_of("dpo"), {"ann": 0.25})
    assert [item.weight for item in items] == [0.25, 1.0]
    assert len(preference_items([mine, yours], WORDS, settings_of("dpo"), {"ann": 0.0})) == 1


def test_a_score_alone_says_nothing_here():
    """It needs no scale to be left out, and two of them are a pair."""
    alone = judged("go", ["abc"], Scores(scores=(3.0,)))
    items = preference_items([JUDGED[0], alone], WORDS, settings_of("dpo"), {})
    assert [item.name for item in items] == ["a"]
    also = judged("go", ["xyz"], Scores(scores=(1.0,)))
    assert len(preference_items([JUDGED[0], alone, also], WORDS, settings_of("dpo"), {})) == 2


# --- what it refuses ------------------------------------------------------------------------------------------------


def test_judgements_without_an_order_say_nothing():
    with pytest.raises(RecordError, match="none of 2 judgements is for dpo, which needs one answer above another"):
        preference_items(SILENT, WORDS, settings_of("dpo"), {})
    with pytest.raises(RecordError, match="kto learns from thumbs"):
        preference_items(THUMBS, WORDS, settings_of("ipo"), {})
    assert len(preference_items([*JUDGED, *THUMBS, *SILENT], WORDS, settings_of("dpo"), {})) == 4
    assert len(preference_items([*JUDGED, *THUMBS, *SILENT], WORDS, settings_of("kto"), {})) == 6
