"""Both sides of the comparison, and the KL between them."""

from __future__ import annotations

import json
import math
import statistics
from itertools import product

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.environments import OneTurn
from plaudit.evaluation.compare import compare, mean_kl
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Evaluate, Recipe, Sampling, Text
from plaudit.records import Prompt
from plaudit.scorers import FunctionScorer
from plaudit.seeds import derive
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)
PROMPTS = [Prompt(text=text, id=f"p{i}", reference=text) for i, text in enumerate(("a", "question", "so", "and", "b"))]
VOWELS = FunctionScorer(lambda prompt, answer: sum(answer.count(vowel) for vowel in "aeiou"))


def recipe(**evaluate):
    given = {"sampling": {"temperature": 1.0, "max_tokens": 12}, **evaluate}
    return Recipe.model_validate({"world": {}, "evaluate": given, "micro_tokens": 64})


def compared(folder, before, after, prompts=PROMPTS, **evaluate):
    return compare(
        folder,
        before=before,
        after=after,
        words=WORDS,
        machine=CPU,
        prompts=prompts,
        environment=OneTurn(VOWELS),
        world=None,
        recipe=recipe(**evaluate),
    )


def test_what_is_written_is_what_is_counted(tmp_path):
    found = compared(tmp_path, tiny_model(seed=0), tiny_model(seed=1))
    lines = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().split("\n")[:-1]]
    assert [line["prompt_id"] for line in lines] == [prompt.id for prompt in PROMPTS]
    rewards = {side: [line[side]["reward"] for line in lines] for side in ("before", "after")}
    for side in ("before", "after"):
        assert rewards[side] == [sum(line[side]["text"].count(v) for v in "aeiou") for line in lines]
        assert found[f"reward_{side}"] == statistics.fmean(rewards[side])
        assert found[f"answer_tokens_{side}"] == statistics.fmean(line[side]["tokens"] for line in lines)
        assert 0 < found[f"distinct_2_{side}"] <= 1
        assert 0 <= found[f"bleu_{side}"] < 100
        assert {line[side]["ended"] for line in lines} <= {"stopped", "cut"}
    wins = [0.5 if a == b else float(a > b) for a, b in zip(rewards["after"], rewards["before"], strict=True)]
    assert found["reward_win_rate"] == statistics.fmean(wins)
    assert found["kl_nats"] > 1
    assert "gold_win_rate" not in found
    assert lines[1]["prompt"] == lines[1]["reference"] == "question"
    assert json.loads((tmp_path / "evaluation.json").read_text()) == found


def test_a_model_against_itself_is_a_tie(tmp_path):
    model = tiny_model()
    found = compared(tmp_path, model, tiny_model())
    assert found["reward_win_rate"] == 0.5
    assert found["reward_gain_sd"] == 0
    assert found["reward_win_rate_of_before_against_itself"] != 0.5  # other seeds: another sample
    assert found["kl_nats"] == pytest.approx(0, abs=1e-4)
    assert found["distinct_2_before"] == found["distinct_2_after"]


def test_best_of_n_is_the_best_of_fresh_answers(tmp_path):
    """Of the same model on both sides; 200 prompts, so that the win rate is near n / (n + 1)."""
    prompts = [Prompt(text=f"so {i}", id=f"p{i}") for i in range(200)]
    value = FunctionScorer(lambda prompt, answer: hash_of(prompt.id, answer))
    settings = recipe().model_dump(mode="json") | {"collect": {}, "sft": {}, "language": {}, "reward": {}}
    settings["policy"] = {"algorithm": "best-of-n", "answers_per_prompt": 4}
    found = compare(
        tmp_path,
        before=tiny_model(),
        after=tiny_model(),
        words=WORDS,
        machine=CPU,
        prompts=prompts,
        environment=OneTurn(value),
        world=None,
        recipe=Recipe.model_validate(settings),
    )
    lines = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().split("\n")[:-1]]
    assert len(lines) == 200
    assert found["best_of"] == 4
    assert found["kl_nats"] == pytest.approx(math.log(4) - 3 / 4)
    assert abs(found["reward_win_rate"] - 4 / 5) < 3.5 * math.sqrt(0.8 * 0.2 / 200)
    # the highest of 4 uniform numbers is 4 / 5 on average, with a standard deviation of 0.163
    assert abs(found["reward_after"] - 4 / 5) < 3.5 * 0.163 / math.sqrt(200)
    # the answer of before is not among the four, or they could not lose to it
    assert any(line["before"]["reward"] > line["after"]["reward"] for line in lines)


def hash_of(*words):
    """A number in [0, 1) that belongs to these words."""
    return derive(0, *words) / 2**63


@pytest.mark.parametrize("decoding", ["greedy", "beam"])
def test_without_draws_there_is_no_second_sample(tmp_path, decoding):
    sampling = {"temperature": 0.0, "top_p": 0.5, "max_tokens": 4}  # says nothing about the KL, which is still finite
    without = [prompt.model_copy(update={"reference": None}) for prompt in PROMPTS]
    found = compared(tmp_path, tiny_model(), tiny_model(seed=1), without, decoding=decoding, sampling=sampling)
    assert "reward_win_rate_of_before_against_itself" not in found
    assert "bleu_before" not in found
    assert math.isfinite(found["kl_nats"])
    assert found["kl_nats"] > 0


def test_kl_is_that_of_whole_answers():
    """2,000 answers of up to 3 tokens out of 6 against the sum over all of them."""
    after, before, context = tiny_model(vocab_size=6, seed=3), tiny_model(vocab_size=6, seed=4), (1, 3)
    every = [s for n in (1, 2, 3) for s in product(range(6), repeat=n) if 2 not in s[:-1] and (s[-1] == 2 or n == 3)]
    tree = pack([(context, every)])
    with torch.no_grad():
        logp_B, ref_B = (
            LanguageNetwork(model, temperature=0.7).outputs(tree, Needs(logp=True)).logp_BT.sum(-1)
            for model in (after, before)
        )
    ratio_B = logp_B - ref_B
    exact = float((logp_B.exp() * ratio_B).sum())
    spread = math.sqrt(float((logp_B.exp() * (ratio_B - exact) ** 2).sum()))
    prompts = [Prompt(text="a", id=f"p{i}") for i in range(2000)]
    assert WORDS.prompt_ids(prompts[0]) == context
    sampling = Sampling(temperature=0.7, max_tokens=3)
    found = mean_kl(after, before, WORDS, CPU, prompts, sampling, seed=0, micro_tokens=4096)
    assert abs(found - exact) < 3.5 * spread / math.sqrt(2000)
    assert spread / math.sqrt(2000) < 0.1 * exact


def test_settings_of_the_evaluation_are_those_of_the_recipe():
    assert recipe().evaluate == Evaluate(sampling=Sampling(temperature=1.0, max_tokens=12))
