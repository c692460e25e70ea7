"""The sampler against a plain loop of full forward passes, against exact probabilities, and against the learner."""

from __future__ import annotations

import dataclasses
import math
from itertools import product

import pytest
import torch

from plaudit.batch import Needs, pack
from plaudit.errors import ModelError, NumberError, TextError
from plaudit.models.generation import generate
from plaudit.models.load import Machine, adapted
from plaudit.models.network import LanguageNetwork
from plaudit.models.packed import choose_road, own_attention
from plaudit.recipe import Adapter, Sampling, Text
from plaudit.records import Ended, Prompt
from plaudit.sampling import ModelSampler, Request
from plaudit.sampling.draw import draw, uniforms
from plaudit.seeds import derive
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
PROMPTS = ["a question: ", "b", "and a longer one, ", ""]


def words_for(model, *, stop_ids=(), context=64):
    del model
    return Words(tiny_tokenizer(), Text(), context=context, stop_ids=stop_ids)


def requests_for(words, prompts=PROMPTS, answers=3):
    return [
        Request(
            prompt=Prompt(text=text, id=f"p{p}"),
            context_ids=words.prompt_ids(Prompt(text=text)),
            seeds=tuple(derive(1, "answer", p, k) for k in range(answers)),
        )
        for p, text in enumerate(prompts)
    ]


@torch.no_grad()
def by_hand(model, words, context, seed, sampling):
    """One answer, a whole forward pass for each token, with the model's own attention."""
    uniform = uniforms(seed, sampling.max_tokens)
    tokens: list[int] = []
    logps: list[float] = []
    choose_road(model)
    with own_attention(model):
        while len(tokens) < sampling.max_tokens:
            logits_V = model(input_ids=torch.tensor([[*context, *tokens]])).logits[:, -1]
            here = uniform[len(tokens)][None]
            token, logp, _ = draw(logits_V, here, temperature=sampling.temperature, top_p=sampling.top_p)
            tokens.append(int(token))
            logps.append(float(logp))
            if tokens[-1] in words.stop_ids:
                return tokens, logps, Ended.STOPPED
    return tokens, logps, Ended.CUT


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "bloom", "gemma2", "plaudit-lstm"])
@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_answers_are_those_of_a_plain_loop(kind, temperature):
    """Packed models and those on Transformers' own loop (Bloom, and Gemma 2 with its capped logits)."""
    model = tiny_model(kind)
    words = words_for(model, stop_ids=range(20, 30))
    sampling = Sampling(temperature=temperature, max_tokens=9, batch=5)
    requests = requests_for(words)
    ends = set()
    for request, group in zip(requests, ModelSampler(model, words, CPU).sample(requests, sampling), strict=True):
        assert group.context_ids == request.context_ids
        assert group.prompt is request.prompt
        for seed, answer in zip(request.seeds, group.answers, strict=True):
            tokens, logps, ended = by_hand(model, words, request.context_ids, seed, sampling)
            assert (list(answer.token_ids), answer.ended, answer.seed) == (tokens, ended, seed)
            assert answer.logps == pytest.approx(logps, abs=1e-5)
            assert answer.text == words.answer_text(request.context_ids, tokens)
            ends.add(ended)
    assert ends == {Ended.STOPPED, Ended.CUT} or temperature == 0


@pytest.mark.parametrize("kind", ["llama", "bloom", "plaudit-lstm"])
def test_greedy_is_transformers_greedy(kind):
    model = tiny_model(kind)
    words = words_for(model)
    sampling = Sampling(temperature=0, max_tokens=8)
    groups = ModelSampler(model, words, CPU).sample(requests_for(words, answers=1), sampling)
    for group in groups:
        context = torch.tensor([group.context_ids])
        with own_attention(model):
            out = model.generate(
                input_ids=context, attention_mask=torch.ones_like(context), do_sample=False, max_new_tokens=8
            )
        assert list(group.answers[0].token_ids) == out[0, len(group.context_ids) :].tolist()


def test_draws_follow_the_distribution():
    """Every answer of up to 3 tokens out of 6, counted in 4,000 draws against its exact probability (chi-square)."""
    model = tiny_model(vocab_size=6, seed=3)
    words = words_for(model)
    temperature, count, longest = 0.7, 4000, 3
    context = (1, 4, 3)
    endings = [seq for n in range(1, longest + 1) for seq in product(range(6), repeat=n) if whole(seq, longest)]
    network = LanguageNetwork(model, temperature=temperature)
    with torch.no_grad():
        logp_B = network.outputs(pack([(context, endings)]), Needs(logp=True)).logp_BT.sum(-1)
    probability = dict(zip(endings, logp_B.exp().tolist(), strict=True))
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    request = Request(
        prompt=Prompt(text="x"), context_ids=context, seeds=tuple(derive(0, "chi", k) for k in range(count))
    )
    (group,) = ModelSampler(model, words, CPU).sample([request], Sampling(temperature=temperature, max_tokens=longest))
    seen = {ending: 0 for ending in endings}
    for answer in group.answers:
        seen[answer.token_ids] += 1
    common = [ending for ending in endings if probability[ending] * count >= 5]
    cells = [(seen[e], probability[e] * count) for e in common]
    cells.append((count - sum(n for n, _ in cells), count - sum(p for _, p in cells)))
    chi = sum((n - p) ** 2 / p for n, p in cells)
    freedom = len(cells) - 1
    assert len(common) > 30
    assert abs(chi - freedom) < 3.5 * math.sqrt(2 * freedom)


def whole(ending, longest):
    """Whether a sequence is an answer: it stops at the end token (2) or at the budget, and not before."""
    return 2 not in ending[:-1] and (ending[-1] == 2 or len(ending) == longest)


@pytest.mark.parametrize("kind", ["llama", "bloom", "plaudit-lstm"])
def test_an_answer_depends_on_its_own_seed_only(kind):
    """Whatever the batch size, the neighbours and their order: the same tokens; log-probabilities to 1e-5."""
    model = tiny_model(kind)
    words = words_for(model)
    requests = requests_for(words, answers=4)
    whole_batch = ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=12))
    expected = {a.seed: a for group in whole_batch for a in group.answers}
    assert len({a.token_ids for a in expected.values()}) > 12
    others = {
        "one by one": (requests, 1),
        "three at a time": (requests, 3),
        "turned round": (requests[::-1], 256),
        "alone": (requests[2:3], 256),
    }
    for name, (asked, batch) in others.items():
        for group in ModelSampler(model, words, CPU).sample(asked, Sampling(max_tokens=12, batch=batch)):
            for answer in group.answers:
                assert answer.token_ids == expected[answer.seed].token_ids, name
                assert answer.logps == pytest.approx(expected[answer.seed].logps, abs=1e-5), name


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "plaudit-lstm"])
def test_the_learner_agrees_on_the_log_probabilities(kind):
    model = tiny_model(kind)
    words = words_for(model)
    groups = ModelSampler(model, words, CPU).sample(requests_for(words), Sampling(temperature=0.7, max_tokens=10))
    tree = pack([(group.context_ids, [answer.token_ids for answer in group.answers]) for group in groups])
    with torch.no_grad():
        logp_BT = LanguageNetwork(model, temperature=0.7).outputs(tree, Needs(logp=True)).logp_BT
    sampled = [answer.logps for group in groups for answer in group.answers]
    for row, logps in zip(logp_BT.tolist(), sampled, strict=True):
        assert row[: len(logps)] == pytest.approx(logps, abs=1e-5)


def test_top_p_says_the_probability_on_what_it_keeps():
    model = tiny_model()
    words = words_for(model)
    sampling = Sampling(top_p=0.6, max_tokens=6)
    requests = requests_for(words)
    for request, group in zip(requests, ModelSampler(model, words, CPU).sample(requests, sampling), strict=True):
        for seed, answer in zip(request.seeds, group.answers, strict=True):
            tokens, logps, _ = by_hand(model, words, request.context_ids, seed, sampling)
            assert list(answer.token_ids) == tokens
            assert answer.logps == pytest.approx(logps, abs=1e-5)
            assert answer.support is None  # nobody asked


@pytest.mark.parametrize("kind", ["llama", "bloom", "plaudit-lstm"])
@torch.no_grad()
def test_supports_are_the_smallest_sets_of_likeliest_tokens(kind):
    """Where they are asked for, beside requests that do not ask; packed and on Transformers' own loop."""
    model = tiny_model(kind)
    words = words_for(model)
    sampling = Sampling(top_p=0.8, temperature=0.7, max_tokens=7, batch=5)
    asked = requests_for(words)
    requests = [dataclasses.replace(request, support=r != 1) for r, request in enumerate(asked)]
    groups = ModelSampler(model, words, CPU).sample(requests, sampling)
    assert all(answer.support is None for answer in groups[1].answers)
    sizes = set()
    for r, group in enumerate(groups):
        for answer in group.answers if r != 1 else ():
            assert answer.support is not None
            tokens = [*group.context_ids, *answer.token_ids]
            with own_attention(model):
                logits_TV = model(input_ids=torch.tensor([tokens])).logits[0, len(group.context_ids) - 1 : -1]
            probability_TV = (logits_TV / 0.7).softmax(-1)
            for t, (token, support) in enumerate(zip(answer.token_ids, answer.support, strict=True)):
                assert token in support
                own = probability_TV[t, list(support)]
                assert float(own.sum()) >= 0.8 - 1e-5
                assert float(own.sum() - own.min()) < 0.8 + 1e-5  # without the least likely one it is not enough
                assert int((probability_TV[t] > own.min() + 1e-6).sum()) < len(support)
                assert answer.logps[t] == pytest.approx(float((probability_TV[t, token] / own.sum()).log()), abs=1e-5)
                sizes.add(len(support))
    assert len(sizes) > 3


@pytest.mark.parametrize("changes", [{}, {"top_p": 0.5, "temperature": 0.0}])
def test_where_nothing_is_left_out_there_is_no_support(changes):
    model = tiny_model()
    words = words_for(model)
    requests = [dataclasses.replace(request, support=True) for request in requests_for(words, answers=1)]
    groups = ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=3, **changes))
    assert all(answer.support is None for group in groups for answer in group.answers)


def test_every_stop_token_stops_and_the_budget_cuts():
    model = tiny_model()
    words = words_for(model, stop_ids=[10, 11, 12, 13, 14])
    groups = ModelSampler(model, words, CPU).sample(requests_for(words, answers=8), Sampling(max_tokens=5))
    answers = [answer for group in groups for answer in group.answers]
    assert len({a.token_ids[-1] for a in answers if a.ended is Ended.STOPPED}) >= 4
    for answer in answers:
        stopped = answer.token_ids[-1] in words.stop_ids
        assert answer.ended is (Ended.STOPPED if stopped else Ended.CUT)
        assert len(answer.token_ids) == 5 or stopped
        assert not set(answer.token_ids[:-1]) & words.stop_ids
    assert {answer.ended for answer in answers} == {Ended.STOPPED, Ended.CUT}


def test_the_context_limits_the_budget():
    model = tiny_model()
    words = words_for(model, context=9)
    context = (1, 5, 6, 7, 8, 9)
    request = Request(prompt=Prompt(text="x", id="p7"), context_ids=context, seeds=(1, 2, 3, 4))
    (group,) = ModelSampler(model, words, CPU).sample([request], Sampling(max_tokens=50))
    assert max(len(answer.token_ids) for answer in group.answers) == 3
    full = Request(prompt=Prompt(text="x", id="p7"), context_ids=(*context, 1, 2, 3), seeds=(1,))
    with pytest.raises(TextError, match=r"prompt p7 fills the model's context of 9 tokens: there is no room"):
        ModelSampler(model, words, CPU).sample([full], Sampling())


def watched(kind, **words):
    """A model and the sizes of its forward passes, in tokens."""
    model = tiny_model(kind)
    rows: list[int] = []
    choose_road(model)
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: rows.append(args[0].numel()))
    return model, words_for(model, **words), rows


@pytest.mark.parametrize("kind", ["llama", "plaudit-lstm"])
def test_prompts_are_read_once_and_only_live_answers_are_computed(kind):
    model, words, rows = watched(kind, stop_ids=range(3, 20))
    requests = requests_for(words, answers=4)
    finished: list[int] = []
    sampler = ModelSampler(model, words, CPU, progress=finished.append)
    rows.clear()
    groups = sampler.sample(requests, Sampling(max_tokens=12, batch=16))
    assert rows[0] == sum(len(request.context_ids) for request in requests)  # four answers share a prompt
    assert rows[1:] == sorted(rows[1:], reverse=True)
    total = sum(len(answer.token_ids) for group in groups for answer in group.answers)
    assert sum(rows[1:]) == total - 16  # the first token of each comes from reading its prompt
    assert sum(finished) == 16


@pytest.mark.parametrize("kind", ["llama", "plaudit-lstm"])
@pytest.mark.parametrize("batch", [4, 8])
def test_waiting_requests_fill_the_free_places(batch, kind):
    model, words, rows = watched(kind, stop_ids=range(3, 9))
    requests = requests_for(words, prompts=["a long question"] * 3, answers=10)
    sampler = ModelSampler(model, words, CPU)
    alone = sampler.sample(requests, Sampling(max_tokens=12, batch=99))
    rows.clear()
    groups = sampler.sample(requests, Sampling(max_tokens=12, batch=batch))
    assert [[a.token_ids for a in g.answers] for g in groups] == [[a.token_ids for a in g.answers] for g in alone]
    steps = [n for n in rows if n <= batch]  # contexts are longer
    total = sum(len(answer.token_ids) for group in groups for answer in group.answers)
    assert sum(steps) == total - 30
    assert max(steps) == batch
    while_waiting = steps[: -12 - 1]  # the last answers end one by one
    assert min(while_waiting) > batch * 3 / 4  # a quarter of the places is free before they are filled


@pytest.mark.parametrize("kind", ["llama", "bloom", "plaudit-lstm"])
def test_broken_weights_name_the_prompt(kind):
    model = tiny_model(kind, tie_word_embeddings=False)
    words = words_for(model)
    sampler = ModelSampler(model, words, CPU)
    with torch.no_grad():
        model.get_input_embeddings().weight[words.prompt_ids(Prompt(text="b"))[-1]] = torch.nan  # only "b" is broken
    requests = requests_for(words, prompts=["a", "cde", "b"])
    with pytest.raises(NumberError, match=r"logits are not finite at token 0 of an answer to prompt p2: its weights"):
        sampler.sample(requests, Sampling(max_tokens=1))


def test_a_window_that_an_answer_would_leave_is_an_error():
    model = tiny_model("mistral", sliding_window=8)
    words = words_for(model)
    requests = requests_for(words, prompts=["abcd"], answers=16)
    assert ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=3))
    with pytest.raises(ModelError, match="longer than this model's attention window of 8"):
        ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=20))


@pytest.mark.parametrize("kind", ["llama", "bloom", "plaudit-lstm"])
def test_a_models_generation_config_changes_nothing(kind):
    """Folders ask for penalties and forced tokens; answers are drawn from the model's own distribution."""
    model = tiny_model(kind)
    words = words_for(model)
    requests = requests_for(words)
    plain = ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=8))
    context = torch.tensor([[1, 5, 6]])
    beam = generate(model, context, max_tokens=6, stop_ids={2}, beams=3)
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.min_new_tokens = 8
    model.generation_config.suppress_tokens = list(range(3, 30))
    kept = model.generation_config
    asked = ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=8))
    assert asked == plain
    assert torch.equal(generate(model, context, max_tokens=6, stop_ids={2}, beams=3), beam)
    assert model.generation_config is kept


def test_an_adapter_is_sampled_with():
    model = tiny_model()
    words = words_for(model)
    requests = requests_for(words)
    plain = ModelSampler(model, words, CPU).sample(requests, Sampling(max_tokens=8))
    under = adapted(model, Adapter(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in under.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    moved = ModelSampler(under, words, CPU).sample(requests, Sampling(max_tokens=8))
    assert moved != plain
    with under.disable_adapter():
        assert ModelSampler(under, words, CPU).sample(requests, Sampling(max_tokens=8)) == plain


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    words = words_for(model)
    sampler = ModelSampler(model, words, CPU)
    assert sampler.sample([], Sampling()) == []
    (group,) = sampler.sample(requests_for(words, prompts=["a"]), Sampling(max_tokens=2))
    assert model.training
    assert all(not math.isnan(logp) for answer in group.answers for logp in answer.logps)
    assert all(p.grad is None for p in model.parameters())
    sampler.load(None, 3)
    assert sampler.version == 3
    with pytest.raises(ModelError, match="shares its model and loads no weights"):
        sampler.load("weights", 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gpt_neox", "bloom", "plaudit-lstm"])
def test_in_bfloat16_the_learner_nearly_agrees(kind):
    """Rotary embeddings leave keys in fp32 under autocast and values not; sampler and learner must take both."""
    half = Machine(device=torch.device("cpu"), bf16=True)
    model = tiny_model(kind)
    words = words_for(model)
    groups = ModelSampler(model, words, half).sample(requests_for(words), Sampling(max_tokens=8, batch=5))
    tree = pack([(group.context_ids, [answer.token_ids for answer in group.answers]) for group in groups])
    network = LanguageNetwork(model)
    with half.computing():
        outputs = network.outputs(tree, Needs(logp=True, entropy=True))
    assert outputs.logp_BT.dtype == outputs.entropy_BT.dtype == torch.float32
    sampled = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(answer.logps) for group in groups for answer in group.answers], batch_first=True
    )
    torch.testing.assert_close(outputs.logp_BT.detach(), sampled, rtol=0, atol=0.1)
    with torch.no_grad():
        full_BT = network.outputs(tree, Needs(logp=True)).logp_BT
    torch.testing.assert_close(full_BT, sampled, rtol=0, atol=0.15)
    assert not torch.equal(full_BT, sampled)
    outputs.logp_BT.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
