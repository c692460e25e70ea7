"""An LSTM as a language model: its formula, its folder, and the packed row against plain forward passes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plaudit.batch import Needs, TokenTree, pack, split
from plaudit.errors import ModelError
from plaudit.models.export import export_reward
from plaudit.models.generation import generate
from plaudit.models.load import (
    Machine,
    adapted,
    check_suits,
    context_of,
    load_language,
    new_lstm_language,
    new_lstm_reward,
)
from plaudit.models.lstm import LstmConfig, LstmForCausalLM
from plaudit.models.network import Critic, LanguageNetwork, new_head
from plaudit.models.packed import body_of, hidden_states
from plaudit.models.save import save_model
from plaudit.recipe import Adapter, Sampling, Text
from plaudit.records import Prompt
from plaudit.sampling import ModelSampler, Request
from plaudit.testing.tiny import LETTERS, tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.objectives import LanguageLoss, TextBatch

CPU = Machine(device=torch.device("cpu"), bf16=False)
Texts = list[tuple[list[int], list[list[int]]]]
TEXTS: Texts = [([1, 5, 6], [[7, 2], [8, 9, 2], []]), ([1, 3], [[4]]), ([1, 9, 9, 9, 4], [[3] * 30, [5, 2], [6]])]


def lstm(layers: int = 2, **changes: Any) -> LstmForCausalLM:
    torch.manual_seed(3)
    ids: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    values = {"vocab_size": 3 + len(LETTERS), "hidden_size": 16, "initializer_range": 1.0, **ids, **changes}
    model = LstmForCausalLM(LstmConfig(num_hidden_layers=layers, **values))
    model.eval()
    return model


def alone(model: LstmForCausalLM, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """Log-probabilities of one answer's tokens, by a plain forward pass over its text."""
    with torch.no_grad():
        logp_TV = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return [float(logp_TV[len(prompt) - 1 + t, token]) for t, token in enumerate(answer)]


def in_the_row(model: LstmForCausalLM, tree: TokenTree) -> list[list[float]]:
    with torch.no_grad():
        logp_BT = LanguageNetwork(model).outputs(tree, Needs(logp=True)).logp_BT
    return [row[:length] for row, length in zip(logp_BT.tolist(), tree.lengths, strict=True)]


def test_an_lstm_is_the_formula_of_its_paper():
    """One step by hand: gates i, f, g, o; c' = f c + i g; h' = o tanh c'."""
    model = lstm(layers=1)
    ids = torch.tensor([[5, 9]])
    weights = dict(model.model.lstm.named_parameters())
    state, cell = torch.zeros(16), torch.zeros(16)
    for token in ids[0]:
        given = model.model.embed_tokens.weight[token]
        gates = weights["weight_ih_l0"] @ given + weights["bias_ih_l0"] + weights["weight_hh_l0"] @ state
        i, f, g, o = (gates + weights["bias_hh_l0"]).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
    torch.testing.assert_close(model(ids).logits[0, -1], model.model.embed_tokens.weight @ state)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_an_lstm(side):
    model, ids = lstm(), [[1, 5, 9, 3], [1, 7]]
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    logits = model(**batch).logits
    for row, text in enumerate(ids):
        kept = logits[row][batch["attention_mask"][row].bool()]
        torch.testing.assert_close(kept, model(torch.tensor([text])).logits[0], atol=1e-6, rtol=0)


# --- the packed row -------------------------------------------------------------------------------------------------

tokens = st.integers(0, 2 + len(LETTERS))
texts = st.lists(
    st.tuples(
        st.lists(tokens, min_size=1, max_size=7),
        st.lists(st.lists(tokens, max_size=40), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(texts=texts)
def test_the_row_says_what_plain_forward_passes_say(texts):
    """Whatever the lengths: log-probabilities to 1e-5, with neighbours in any order and any split."""
    model = lstm()
    expected = [alone(model, prompt, answer) for prompt, answers in texts for answer in answers]
    found = in_the_row(model, pack(texts))
    turned = in_the_row(model, pack([(prompt, answers[::-1]) for prompt, answers in texts[::-1]]))[::-1]
    pieces = [row for piece in split(TextBatch(tree=pack(texts)), 16) for row in in_the_row(model, piece.tree)]
    for rows in (found, turned, pieces):
        assert len(rows) == len(expected)
        for row, right in zip(rows, expected, strict=True):
            assert row == pytest.approx(right, abs=1e-5)


def test_a_prompt_is_read_once_for_all_its_answers():
    """Steps of the recurrent layers, padding among answers of about one length included."""
    model = lstm()
    steps: list[int] = []
    model.model.lstm.register_forward_pre_hook(
        lambda module, args: steps.append(
            len(args[0].data) if hasattr(args[0], "batch_sizes") else args[0].numel() // 16
        )
    )
    hidden_states(model, pack([([1] * 20, [[3, 4, 5]] * 6)]))
    assert steps == [20, 6 * 3]
    steps.clear()
    hidden_states(model, pack([([1] * 20, [[3, 4, 5]]), ([1] * 9, [[3] * 30])]))  # one answer each: one go for a text
    assert steps == [39, 23]  # too far apart to stand beside each other


def test_one_token_moves_its_own_answer_only_and_a_prompt_moves_all():
    model, tree = lstm(), pack(TEXTS)
    places = {"answer": (3, [3, 4]), "prompt": (2, list(range(2, 8)))}
    for place, moved in places.values():
        token_N = tree.token_N.clone()
        token_N[place] = 40
        other = TokenTree(token_N=token_N, prompt_lengths=tree.prompt_lengths, answer_lengths=tree.answer_lengths,
                          names=tree.names)  # fmt: skip
        with torch.no_grad():
            change_N = (hidden_states(model, tree) - hidden_states(model, other)).abs().amax(-1)
        assert (change_N > 1e-6).nonzero().squeeze(1).tolist() == moved


def test_the_gradient_of_a_shared_prompt_is_the_sum_over_its_answers():
    """Of the mean log-likelihood, through the state at the prompt's end, against texts apart."""
    model = lstm()
    batch = TextBatch(tree=pack(TEXTS))
    found = LanguageLoss()(LanguageNetwork(model).outputs(batch.tree, Needs(logp=True)), batch)
    found.total.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for prompt, answers in TEXTS:
        for answer in answers:
            logp_TV = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            for t, token in enumerate(answer):
                (-logp_TV[len(prompt) - 1 + t, token]).backward(retain_graph=True)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys() >= {"model.embed_tokens.weight", "model.lstm.weight_hh_l1"}
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [True, False], ids=["separate", "shared"])
def test_a_critic_reads_the_state_before_each_token(own):
    model = lstm()
    trunk = lstm(hidden_size=8).model if own else None
    head = new_head(8 if own else 16, bias=True, seed=0)
    network = LanguageNetwork(model, Critic(head, trunk))
    found_BT = network.outputs(pack(TEXTS), Needs(value=True)).value_BT
    body = model.model if trunk is None else trunk
    for row, (prompt, answer) in enumerate((prompt, answer) for prompt, answers in TEXTS for answer in answers):
        with torch.no_grad():
            value_T = head(body(torch.tensor([[*prompt, *answer]])).last_hidden_state[0]).squeeze(-1)
        expected = value_T[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
        torch.testing.assert_close(found_BT[row, : len(answer)].detach(), expected, rtol=0, atol=1e-5)


def test_in_bfloat16_the_recurrence_stays_in_fp32():
    """A thousand steps of rounding would add up; and the padded kernel of some CPUs has no 16-bit form."""
    model, tree = lstm(), pack(TEXTS)
    with torch.no_grad():
        full_ND = hidden_states(model, tree)
        with Machine(device=torch.device("cpu"), bf16=True).computing():
            half_ND = hidden_states(model, tree)
            logits = model(torch.tensor([[1, 5, 6]])).logits
    assert torch.equal(half_ND, full_ND)
    assert logits.dtype == torch.bfloat16


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_an_lstm_survives_its_folder(tmp_path, tied):
    model = lstm(tie_word_embeddings=tied)
    save_model(model, tmp_path / "lstm", tiny_tokenizer())
    again = load_language(str(tmp_path / "lstm"), CPU)
    ids = torch.tensor([[1, 5, 9, 3]])
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied


FRESH = """
import json, sys
import torch
from plaudit.models.load import Machine, load_language, load_tokenizer
from plaudit.recipe import Sampling, Text
from plaudit.records import Prompt
from plaudit.sampling import ModelSampler, Request
from plaudit.text import Words
torch.set_num_threads(1)
cpu = Machine(device=torch.device("cpu"), bf16=False)
words = Words(load_tokenizer(sys.argv[1]), Text())
asked = Request(prompt=Prompt(text="why?"), context_ids=words.prompt_ids(Prompt(text="why?")), seeds=(1, 2, 3))
(group,) = ModelSampler(load_language(sys.argv[1], cpu), words, cpu).sample([asked], Sampling(max_tokens=12))
print(json.dumps([[answer.token_ids, answer.logps] for answer in group.answers]))
"""


def test_a_new_process_writes_the_same_answers_to_the_bit(tmp_path):
    torch.set_num_threads(1)
    model = new_lstm_language(tiny_tokenizer(), CPU, seed=0, hidden=16)
    save_model(model, tmp_path / "lstm", tiny_tokenizer())
    words = Words(tiny_tokenizer(), Text())
    asked = Request(prompt=Prompt(text="why?"), context_ids=words.prompt_ids(Prompt(text="why?")), seeds=(1, 2, 3))
    (group,) = ModelSampler(model, words, CPU).sample([asked], Sampling(max_tokens=12))
    here = [(list(answer.token_ids), list(answer.logps)) for answer in group.answers]
    assert len({tuple(tokens) for tokens, _ in here}) == 3
    assert [tuple(row) for row in json.loads(in_a_new_process(FRESH, tmp_path / "lstm"))] == here


def in_a_new_process(code: str, *words: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, words)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


README = """
import sys
import torch
from transformers import AutoConfig
try:
    AutoConfig.from_pretrained(sys.argv[1])
except ValueError as error:
    assert "plaudit-lstm" in str(error)
else:
    raise AssertionError("Transformers knows it by itself")
exec(sys.argv[2])
AutoConfig.from_pretrained(sys.argv[1])
print(model.eval()(torch.tensor([[1, 5, 9]])).logits.sum().item())
"""


def test_the_folder_says_how_it_is_loaded_and_that_is_true(tmp_path):
    """Transformers does not know the kind by itself; the lines of the folder's README make it known."""
    model, folder = lstm(), tmp_path / "lstm"
    save_model(model, folder, tiny_tokenizer())
    readme = (folder / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    said = float(model(torch.tensor([[1, 5, 9]])).logits.sum().detach())
    assert float(in_a_new_process(README, folder, code)) == pytest.approx(said, abs=1e-4)


def test_a_reward_model_of_one_is_not_exported(tmp_path):
    save_model(new_lstm_reward(tiny_tokenizer(), CPU, seed=0, hidden=16), tmp_path / "lstm", tiny_tokenizer())
    assert "LstmForSequenceClassification.from_pretrained" in (tmp_path / "lstm" / "README.md").read_text("utf-8")
    with pytest.raises(ModelError, match="is not one of Transformers' own models"):
        export_reward(tmp_path / "lstm", tmp_path / "out", "vllm", Text())


def test_a_new_lstm_is_its_seeds_and_has_no_longest_text():
    one, two, other = (new_lstm_language(tiny_tokenizer(), CPU, seed=seed, hidden=16) for seed in (0, 0, 1))
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.lm_head.weight is one.model.embed_tokens.weight
    assert context_of(one.config) is None
    assert (one.config.bos_token_id, one.config.eos_token_id, one.config.pad_token_id) == (1, 2, 0)
    assert one.model.embed_tokens.weight.shape == (3 + len(LETTERS), 16)


# --- what it cannot do, and what it can -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION"])
def test_lora_is_refused(task):
    model: nn.Module = lstm()
    if task != "CAUSAL_LM":
        model = new_lstm_reward(tiny_tokenizer(), CPU, seed=0, hidden=16)
    model = body_of(model) if task == "FEATURE_EXTRACTION" else model
    with pytest.raises(ModelError, match=r"Lstm\w+: an LSTM has no layer that LoRA knows: take model\.adapter away"):
        adapted(model, Adapter(rank=2), seed=0, task=task)
    assert adapted(model, None, seed=0, task=task) is model


def test_settings_that_it_cannot_follow_are_named_together_before_weights_are_read(tmp_path):
    folder = tmp_path / "lstm"
    save_model(lstm(), folder, tiny_tokenizer())
    with pytest.raises(ModelError, match=r"LstmForCausalLM cannot recompute activations"):
        load_language(str(folder), CPU, checkpointing=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"LoRA knows: take model\.adapter away; an LSTM cannot recompute activations"):
        check_suits(str(folder), adapter=Adapter(), checkpointing=True)
    check_suits(str(folder), adapter=None, checkpointing=False)
    tiny_model().save_pretrained(tmp_path / "llama")
    check_suits(str(tmp_path / "llama"), adapter=Adapter(), checkpointing=True)
    with pytest.raises(ModelError, match="cannot load 'nowhere'"):
        check_suits("nowhere", adapter=None, checkpointing=False)


def test_greedy_and_beam_search_read_the_whole_text_at_every_step():
    """A beam as wide as there are texts finds the likeliest of all, by log-probability per token."""
    model, context, ends = lstm(vocab_size=6), [0, 3, 3], 2
    greedy = generate(model, torch.tensor([context]), max_tokens=3, stop_ids=[ends])[0].tolist()
    likeliest = list(context)
    while len(likeliest) < len(greedy):
        likeliest.append(int(model(torch.tensor([likeliest])).logits[0, -1].argmax()))
    assert greedy == likeliest
    every = [seq for n in (1, 2, 3) for seq in product(range(6), repeat=n)]
    whole = [seq for seq in every if ends not in seq[:-1] and (seq[-1] == ends or len(seq) == 3)]
    best = max(whole, key=lambda seq: sum(alone(model, context, seq)) / len(seq))
    found = generate(model, torch.tensor([context]), max_tokens=3, stop_ids=[ends], beams=40)[0, 3:].tolist()
    assert tuple(found[: len(best)]) == best
    assert set(found[len(best) :]) <= {ends}
    assert [*context, *best] != greedy
