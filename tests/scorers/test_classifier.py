"""One class of a classifier: by name or number, raw or as a log-probability, of an encoder or a decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plaudit.errors import ModelError
from plaudit.models.load import Machine
from plaudit.records import Prompt
from plaudit.scorers import ClassifierScorer
from plaudit.scorers.classifier import index_of, load_classifier
from plaudit.scorers.seam import group_of_texts
from plaudit.testing.tiny import tiny_model, tiny_tokenizer

CPU = Machine(device=torch.device("cpu"), bf16=False)
NAMES = {0: "negative", 1: "neutral", 2: "POSITIVE"}
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPS = [
    group_of_texts(Prompt(text="so: "), [("good", True), ("", True), ("not so very good", True)]),
    group_of_texts(Prompt(text="why: "), [("bad", False)]),
]


@pytest.fixture(scope="module", params=["bert", "llama"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    sizes = SIZES | {"max_position_embeddings": 64, "initializer_range": 0.2} if request.param == "bert" else {}
    tiny_model(
        request.param, reward=True, num_labels=3, id2label=NAMES, label2id={n: i for i, n in NAMES.items()}, **sizes
    ).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def by_hand(reader, text):
    """The logits of one text alone, without padding."""
    with torch.no_grad():
        return reader.model(torch.tensor([reader.tokenizer.encode(text)])).logits[0]


def test_the_logit_of_each_answer(folder):
    reader = load_classifier(folder, CPU)
    wanted = [float(by_hand(reader, text)[2]) for text in ("good", "", "not so very good", "bad")]
    scores = ClassifierScorer(reader, label="positive").score(GROUPS)
    assert [len(values) for values in scores.value_PG] == [3, 1]
    assert scores.flat() == pytest.approx(wanted, abs=1e-5)
    assert ClassifierScorer(reader, label=2).score(GROUPS) == scores


def test_log_probabilities_of_all_classes_sum_to_one(folder):
    reader = load_classifier(folder, CPU)
    found = [ClassifierScorer(reader, label=n, gives="log_probability").score(GROUPS).flat() for n in range(3)]
    assert torch.tensor(found).exp().sum(0).tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_the_answer_behind_its_prompt(folder):
    reader = load_classifier(folder, CPU, max_tokens=8)
    found = ClassifierScorer(reader, label=0, reads="prompt_and_answer").score(GROUPS).flat()
    reader.tokenizer.truncation_side = "right"
    assert found[0] == pytest.approx(float(by_hand(reader, "so: good"[-7:])[0]), abs=1e-5)  # the end is read


@pytest.mark.parametrize("label", ["happy", 3, -1, ""])
def test_a_class_that_is_not_there(label):
    with pytest.raises(ModelError, match=r"'m' has no class .*; its classes are 0 negative, 1 neutral, 2 POSITIVE"):
        index_of(label, list(NAMES.values()), "m")


def test_one_class_alone_has_no_probability(tmp_path):
    tiny_model("llama", reward=True).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    reader = load_classifier(str(tmp_path), CPU)
    with pytest.raises(ModelError, match="has one class, whose probability is always 1"):
        ClassifierScorer(reader, label=0, gives="log_probability")
    assert len(ClassifierScorer(reader, label=0).score(GROUPS).flat()) == 4


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks weights, which would be random: score\.weight"):
        load_classifier(str(tmp_path), CPU)
