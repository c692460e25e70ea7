"""Models made from nothing: their kind, their tokenizer, their context, their seed."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from plaudit.made import make_model
from plaudit.models.load import Machine
from plaudit.models.lstm import LstmForCausalLM
from plaudit.recipe import recipe_from
from plaudit.records import Document

CPU = Machine(device=torch.device("cpu"), bf16=False)
DOCUMENTS = [Document(text=f"第{n}回,话说宝玉见了黛玉,笑道:这个妹妹我曾见过的。") for n in range(30)]


def made(path, seed=0, **sections):
    model = {"path": path, "vocabulary": 512}
    data = {"documents": [{"path": "documents.txt"}]}
    given = {"seed": seed, "model": model, "language": {}, "data": data, **sections}
    return make_model(recipe_from(given), DOCUMENTS, CPU)


@pytest.mark.parametrize(
    ("path", "kind", "context"), [("builtin", LlamaForCausalLM, 250), ("lstm", LstmForCausalLM, None)]
)
def test_each_is_made_for_its_texts(path, kind, context):
    text = {"max_prompt_tokens": 150, "max_answer_tokens": 100}
    model, words = made(path, text=text)
    assert type(model) is kind
    assert words.context == context
    assert words.tokenizer.model_max_length == (context or words.tokenizer.model_max_length) >= 250
    assert model.config.vocab_size == len(words.tokenizer) <= 512
    assert len(words.tokenizer.tokenize("黛玉笑道")) <= 4  # no character falls apart into bytes
    assert model.config.eos_token_id == words.end_id


@pytest.mark.parametrize("path", ["builtin", "lstm"])
def test_the_weights_are_the_seeds(path):
    one, again, other = (made(path, seed)[0].lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_an_lstm_reads_a_text_of_any_length():
    model, words = made("lstm")
    long = words.document_ids("黛玉" * 2000, 4000)
    assert len(long[0]) > 1000
    assert bool(torch.isfinite(model(torch.tensor([long[0]])).logits).all())
