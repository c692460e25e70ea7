"""Language-model training and supervised fine-tuning: what is a target, and that texts become likelier."""

from __future__ import annotations

import json
import math

import pytest
import torch

from plaudit.batch import Needs
from plaudit.errors import RecordError
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.models.packed import own_attention
from plaudit.recipe import Language, Optimiser, Recipe, Sft, Text
from plaudit.records import Demonstration, Document, Prompt
from plaudit.runs import Run
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.text_stages import (
    demonstration_tokens,
    document_tokens,
    text_batch,
    text_loss,
    texts_beside,
    train_language,
    train_sft,
)

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(max_answer_tokens=5), context=64)
RECIPE = Recipe.model_validate({"world": {}})
FAST = Optimiser(learning_rate=1e-2, warmup=0)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path, RECIPE)
    yield run
    run.close()


def test_of_a_document_every_token_is_a_target():
    documents = [Document(text="abcdef"), Document(text="b")]
    assert document_tokens(documents, WORDS, 4) == [
        ((1,), (3, 4, 5, 6), "document 0"),
        ((1,), (7, 8, 2), "document 0"),
        ((1,), (4, 2), "document 1"),
    ]


def test_of_a_demonstration_only_the_answer_is_a_target():
    demonstrations = [Demonstration(prompt=Prompt(text="ab", id="p"), answer=answer) for answer in ("cd", "abcdefg")]
    texts = demonstration_tokens(demonstrations, WORDS)
    assert texts[0] == ((1, 3, 4), (5, 6, 2), "p")
    assert texts[1][1] == (3, 4, 5, 6, 7)  # cut at its limit, so it does not end
    batch = text_batch(texts)
    assert batch.tree.token_BT[batch.tree.mask_BT].tolist() == [5, 6, 2, 3, 4, 5, 6, 7]
    assert batch.tree.names == ("p", "p")


def test_text_loss_by_hand():
    """Every learned token weighs the same: mean over 3 + 5 tokens."""
    texts = [((1, 3, 4), (5, 6, 2), "p"), ((1,), (3, 4, 5, 6, 7), "q")]
    network = LanguageNetwork(tiny_model())
    total = 0.0
    with torch.no_grad(), own_attention(network.model):
        for given, learned, _ in texts:
            logits = network.model(input_ids=torch.tensor([[*given, *learned]])).logits[0].log_softmax(-1)
            total -= float(sum(logits[len(given) - 1 + t, token] for t, token in enumerate(learned)))
    assert text_loss(network, texts, CPU, 8192) == pytest.approx(total / 8, abs=1e-5)
    assert text_loss(network, texts, CPU, 1) == pytest.approx(total / 8, abs=1e-5)


def test_texts_beside_a_policy_are_learned_as_the_model_is_not_as_it_samples():
    """Divided by a sampling temperature, the likelihood of text would be another one's, and pull the model away."""
    (part,) = texts_beside({"pretraining_loss": (0.5, [((1,), (3, 4, 5), "t"), ((1, 3), (7, 2), "u")])}, 2, 0)(0)
    found = []
    for temperature in (1.0, 0.7):
        outputs = LanguageNetwork(tiny_model(), temperature=temperature).outputs(part.batch.tree, part.loss.needs)
        found.append(part.loss(outputs, part.batch).metrics["pretraining_loss"])
        sampled = LanguageNetwork(tiny_model(), temperature=temperature).outputs(part.batch.tree, Needs(logp=True))
        assert torch.equal(sampled.logp_BT, outputs.logp_BT) == (temperature == 1.0)
    assert found[0] == found[1]


def test_a_language_is_learned(run):
    network = LanguageNetwork(tiny_model())
    documents = [Document(text="abc " * n) for n in (2, 3, 4)]
    settings = Language(steps=15, minibatch=3, max_tokens=32, optimiser=FAST)
    train_language(run, network, WORDS, documents, settings, RECIPE, CPU)
    losses = [line["language/loss"] for line in metrics(run.folder)]
    assert len(losses) == 15
    assert losses[0] > math.log(20)
    assert losses[-1] < 1.2


def test_supervised_tuning_leaves_the_prompts_alone(run):
    """The answers become likely; of the prompts, which are never targets, nothing is learned."""
    network = LanguageNetwork(tiny_model())
    demonstrations = [Demonstration(prompt=Prompt(text=f"x{n}: "), answer="yes") for n in range(6)]
    texts = demonstration_tokens(demonstrations, WORDS)
    prompts = [((1,), given[1:], name) for given, _, name in texts]
    before = text_loss(network, prompts, CPU, 8192)
    train_sft(run, network, WORDS, demonstrations, Sft(epochs=10, minibatch=4, optimiser=FAST), RECIPE, CPU)
    losses = [line["sft/loss"] for line in metrics(run.folder)]
    assert len(losses) == 10 * 6 // 4
    assert text_loss(network, texts, CPU, 8192) < 0.2 < 2 < losses[0]
    assert text_loss(network, prompts, CPU, 8192) > before - 0.5
    with torch.no_grad():
        end = network.outputs(text_batch(texts[:1]).tree, Needs(logp=True)).logp_BT[0, 3]
    assert float(end) > math.log(0.7)  # it has learned to end


def test_nothing_to_learn_from_is_an_error(run):
    with pytest.raises(RecordError, match="sft: there is no text to learn from"):
        train_sft(run, LanguageNetwork(tiny_model()), WORDS, [], Sft(), RECIPE, CPU)


def test_a_fraction_of_an_epoch_is_at_least_one_step(run):
    demonstrations = [Demonstration(prompt=Prompt(text="x"), answer="yes")] * 6
    settings = Sft(epochs=0.01, minibatch=4, optimiser=FAST)
    train_sft(run, LanguageNetwork(tiny_model()), WORDS, demonstrations, settings, RECIPE, CPU)
    assert len(metrics(run.folder)) == 1
