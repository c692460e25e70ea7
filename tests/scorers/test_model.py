"""A trained reward model as a scorer: it reads words, with the tokens of its training."""

from __future__ import annotations

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.errors import ModelError, TextError
from plaudit.models.builtin import new_tokenizer
from plaudit.models.load import Machine
from plaudit.models.network import RewardNetwork
from plaudit.models.save import save_model
from plaudit.recipe import Reward, Text
from plaudit.records import Answer, Ended, Group, Judgement, Prompt, Thumb
from plaudit.scorers import ModelScorer, load_scorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.judged import judged_batch, judged_tokens

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(template="q: {prompt} a: "), context=64)


@pytest.fixture(scope="module")
def network():
    return RewardNetwork(tiny_model(reward=True))


def group(name, *answers):
    return Group(
        prompt=Prompt(text=name, id=name),
        context_ids=(9, 9, 9),  # the policy's own tokens, which mean nothing here
        answers=tuple(Answer(text=text, token_ids=(8,), logps=(-1.0,), ended=ended, seed=0) for text, ended in answers),
    )


GROUPS = [
    group("why", ("so", Ended.STOPPED), ("because of", Ended.CUT), ("", Ended.STOPPED), ("", Ended.CUT)),
    group("who", ("me", Ended.STOPPED)),
]


@torch.no_grad()
def test_gain_and_bias_on_the_raw_score(network):
    given = [WORDS.prompt_ids(Prompt(text=text)) for text in ("why", "who")]
    end = WORDS.end_id
    letters = WORDS.tokenizer.encode
    texts = [
        (given[0], [[*letters("so", add_special_tokens=False), end], letters("because of", add_special_tokens=False)]),
        (given[0], [[end], []]),  # empty, ended and cut
        (given[1], [[*letters("me", add_special_tokens=False), end]]),
    ]
    raw = network.outputs(pack(texts), Needs(score=True)).score_B.tolist()
    scores = ModelScorer(network, WORDS, CPU, gain=2.0, bias=-0.5).score(GROUPS)
    assert [len(values) for values in scores.value_PG] == [4, 1]
    assert scores.flat() == pytest.approx([2 * value - 0.5 for value in raw], abs=1e-5)
    scores.check(GROUPS)


def test_an_answer_is_scored_with_the_tokens_it_was_judged_with(network):
    judgement = Judgement(prompt=Prompt(text="why"), answers=("so",), verdict=Thumb(up=True))
    with torch.no_grad():
        batch = judged_batch(judged_tokens([judgement], WORDS, Reward())[0])
        in_training = float(network.outputs(batch.tree, Needs(score=True)).score_B)
    (scored,) = ModelScorer(network, WORDS, CPU).score([group("why", ("so", Ended.STOPPED))]).flat()
    assert scored == in_training


def test_one_answer_to_two_prompts_has_two_scores(network):
    groups = [group(prompt, ("so", Ended.STOPPED)) for prompt in ("why", "who", "why")]
    why, who, again = ModelScorer(network, WORDS, CPU).score(groups).flat()
    assert abs(why - who) > 1e-3
    assert again == pytest.approx(why, abs=1e-6)


def test_micro_batches_and_neighbours_change_nothing(network):
    together = ModelScorer(network, WORDS, CPU).score(GROUPS).flat()
    apart = [value for g in GROUPS for value in ModelScorer(network, WORDS, CPU, micro_tokens=1).score([g]).flat()]
    assert apart == pytest.approx(together, abs=1e-5)
    assert ModelScorer(network, WORDS, CPU).score([]).value_PG == ()


def test_from_its_folder_it_scores_as_it_did(tmp_path, network):
    save_model(network.model, tmp_path / "rm", WORDS.tokenizer, reward_gain=3.0, reward_bias=0.25)
    before = ModelScorer(network, WORDS, CPU, gain=3.0, bias=0.25).score(GROUPS)
    after = load_scorer(tmp_path / "rm", CPU, WORDS.text).score(GROUPS)
    assert after == before
    with pytest.raises(TextError, match=r"prompt .* has \d+ tokens, but the model reads 64"):
        load_scorer(tmp_path / "rm", CPU, WORDS.text).score([group("w" * 60, ("so", Ended.STOPPED))])


def test_its_tokenizer_need_not_be_the_policys(tmp_path):
    """Scores come from words: a reward model with other tokens than the policy's is as good."""
    tokenizer = new_tokenizer(["because why so"], "", vocabulary=300)
    save_model(tiny_model(reward=True, vocab_size=len(tokenizer)), tmp_path / "rm", tokenizer)
    scores = load_scorer(tmp_path / "rm", CPU, Text()).score(GROUPS)
    assert len(set(scores.flat())) == 5


def test_a_language_model_is_no_scorer(tmp_path):
    save_model(tiny_model(), tmp_path / "lm", tiny_tokenizer())
    with pytest.raises(ModelError, match="is a language model"):
        load_scorer(tmp_path / "lm", CPU, Text())


def test_a_lone_quality_is_a_part_by_its_own_score(network):
    """A judgement of how harmful an answer is, is about that score, not about its weight times it."""
    plain = ModelScorer(network, WORDS, CPU).score(GROUPS)
    assert plain.parts == {}
    config = network.model.config
    before = config.id2label
    config.id2label, config.reward_weights = {0: "harmful"}, [-0.5]
    try:
        scores = ModelScorer(network, WORDS, CPU, gain=2.0).score(GROUPS)
    finally:
        del config.reward_weights
        config.id2label = before
    assert scores.parts == {"harmful": plain.value_PG}
    assert scores.flat() == [-value for value in plain.flat()]
    assert scores.about(1, "harmful") == plain.value_PG[1]
    assert scores.about(1, None) == scores.about(1, "another") == scores.value_PG[1]
