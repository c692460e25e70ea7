"""Answers on held-out prompts: sampled, greedy, beam."""

from __future__ import annotations

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.evaluation.decoding import answer_prompts
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.models.packed import choose_road, own_attention
from plaudit.recipe import Evaluate, Sampling, Text
from plaudit.records import Ended, Prompt
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
PROMPTS = [Prompt(text=text, id=text) for text in ("a question: ", "b", "and then ")]


def answers(model, decoding, *, words=None, prompts=PROMPTS, beams=4, max_tokens=6, seed=0):
    words = words or Words(tiny_tokenizer(), Text(), context=64)
    settings = Evaluate(decoding=decoding, beams=beams, sampling=Sampling(temperature=0.8, max_tokens=max_tokens))
    return answer_prompts(model, words, CPU, prompts, settings, seed=seed, title="test")


def total_logp(model, groups):
    tree = pack([(group.context_ids, [group.answers[0].token_ids]) for group in groups])
    with torch.no_grad():
        return LanguageNetwork(model).outputs(tree, Needs(logp=True)).logp_BT.sum(-1)


def test_samples_belong_to_seed_and_prompt():
    model = tiny_model()
    first = answers(model, "sample")
    assert answers(model, "sample") == first
    assert answers(model, "sample", seed=1) != first
    assert [len(group.answers) for group in first] == [1, 1, 1]
    assert len({group.answers[0].seed for group in first}) == 3


def test_greedy_takes_the_likeliest_token_each_time():
    model = tiny_model()
    groups = answers(model, "greedy")
    again = answers(model, "greedy", seed=1)
    assert [group.answers[0].token_ids for group in groups] == [group.answers[0].token_ids for group in again]
    with own_attention(model):
        for group in groups:
            for t, token in enumerate(group.answers[0].token_ids):
                text = torch.tensor([[*group.context_ids, *group.answers[0].token_ids[:t]]])
                with torch.no_grad():
                    assert int(model(input_ids=text).logits[0, -1].argmax()) == token


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_a_beam_finds_likelier_answers_and_leaves_the_model_packed(kind):
    """A wide beam over a budget that nothing ends in is the best of all; greedy never beats it."""
    model = tiny_model(kind, vocab_size=12)
    road = choose_road(model)
    words = Words(tiny_tokenizer(), Text(template="{prompt}"), context=64)
    prompts = [Prompt(text=text, id=text) for text in ("a", "cab", "dig")]
    found = answers(model, "beam", words=words, prompts=prompts, beams=12, max_tokens=2)
    assert choose_road(model) is road
    for group in found:
        context = group.context_ids
        every = [(a, b) for a in range(12) for b in range(12) if a != words.end_id]
        with torch.no_grad():
            logp_B = LanguageNetwork(model).outputs(pack([(context, every)]), Needs(logp=True)).logp_BT.sum(-1)
        # with 12 beams of 12 tokens nothing is dropped (an answer of one token may beat all pairs)
        if len(group.answers[0].token_ids) == 2:
            assert group.answers[0].token_ids == every[int(logp_B.argmax())]
    assert any(len(group.answers[0].token_ids) == 2 for group in found)
    greedy, beam = (total_logp(model, answers(model, how, prompts=prompts, max_tokens=4)) for how in ("greedy", "beam"))
    assert bool((beam >= greedy - 1e-5).any())


def test_a_beams_answer_ends_where_it_stops():
    words = Words(tiny_tokenizer(), Text(), context=64, stop_ids=range(3, 25))
    groups = answers(tiny_model(), "beam", words=words, max_tokens=5)
    ends = [group.answers[0].ended for group in groups]
    assert Ended.STOPPED in ends
    for group in groups:
        (answer,) = group.answers
        assert (answer.token_ids[-1] in words.stop_ids) is (answer.ended is Ended.STOPPED)
        assert not set(answer.token_ids[:-1]) & words.stop_ids
        assert answer.text == words.answer_text(group.context_ids, answer.token_ids)
