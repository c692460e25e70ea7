"""Loading and saving: machines, dropout, adapters, and folders that mean the same to Transformers alone."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import PreTrainedTokenizerFast

from plaudit.batch import Needs, pack
from plaudit.errors import ModelError, RunError
from plaudit.models.builtin import new_tokenizer
from plaudit.models.load import (
    Machine,
    adapted,
    choose_machine,
    context_of,
    load_language,
    load_reward,
    load_tokenizer,
    new_reward,
)
from plaudit.models.network import LanguageNetwork, RewardNetwork
from plaudit.models.packed import bare, body_of
from plaudit.models.save import change_config, save_model
from plaudit.recipe import Adapter, Text
from plaudit.records import Prompt
from plaudit.scorers import ModelScorer, load_scorer
from plaudit.testing.tiny import FAMILIES, tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
ANSWERS = [("abc", True), ("", True), ("a pad? no.", False), ("</s>", False)]  # ended, empty, cut, cut at an end token


def trained(model):
    """The model as if it had been trained: its adapter and its head moved."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "score" in name):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def gpt2_like_tokenizer():
    """Bytes, no pad token, and one token that starts and ends texts."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate([*letters, "<|end|>"])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")


FOLDERS = ("language", "language-lora", "reward", "reward-lora", "reward-gpt2")


def make(name: str, folder: Path):
    """A model in memory, and its folder."""
    tokenizer = gpt2_like_tokenizer() if "gpt2" in name else tiny_tokenizer()
    model = tiny_model(
        "gpt2" if "gpt2" in name else "llama",
        reward="reward" in name,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.eos_token_id if "gpt2" in name else 0,  # what a careless folder has
        eos_token_id=tokenizer.eos_token_id,
    )
    if "lora" in name:
        model = adapted(model, Adapter(rank=2), seed=1, task="SEQ_CLS" if "reward" in name else "CAUSAL_LM")
    model = trained(model)
    RewardNetwork(model) if "reward" in name else LanguageNetwork(model)  # packed, as in training
    save_model(model, folder, tokenizer, **({"reward_gain": 1.7, "reward_bias": -0.3} if "reward" in name else {}))
    return model, tokenizer


def packed_outputs(name, model, tokenizer) -> list[float]:
    """Scores with gain and bias, or log-probabilities, by our own pass."""
    words = Words(tokenizer, Text(), context=64)
    prompt = Prompt(text="question: ", id="p")
    if "reward" in name:
        return ModelScorer(RewardNetwork(model), words, CPU, gain=1.7, bias=-0.3).score_texts([(prompt, ANSWERS)])
    context = words.prompt_ids(prompt)
    tree = pack([(context, [words.answer_ids(text, context_ids=context, ended=e) for text, e in ANSWERS])])
    with torch.no_grad():
        return LanguageNetwork(model).outputs(tree, Needs(logp=True)).logp_BT.sum(-1).tolist()


FRESH = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
torch.set_num_threads(1)
root, names, texts = sys.argv[1], sys.argv[2].split(), json.loads(sys.argv[3])
found = {}
for name in names:
    tokenizer = AutoTokenizer.from_pretrained(f"{root}/{name}")
    end, start = tokenizer.eos_token_id, [] if "gpt2" in name else [tokenizer.bos_token_id]
    given = start + tokenizer.encode("question: ", add_special_tokens=False)
    answers = [tokenizer.encode(text, add_special_tokens=False) + [end] * ended for text, ended in texts]
    kind = AutoModelForSequenceClassification if "reward" in name else AutoModelForCausalLM
    model = kind.from_pretrained(f"{root}/{name}").eval()
    for side in ("right", "left"):
        tokenizer.padding_side = side
        batch = tokenizer.pad({"input_ids": [given + answer for answer in answers]}, return_tensors="pt")
        if "gpt2" in name:  # learned positions have to be said
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            logits = model(**batch).logits
        if "reward" in name:
            rows = model.config.reward_gain * logits.squeeze(-1) + model.config.reward_bias
        else:
            rows = []
            for row, answer in zip(range(len(answers)), answers):
                real = logits[row][batch["attention_mask"][row].bool()].log_softmax(-1)
                rows.append(sum(real[len(given) - 1 + t, token] for t, token in enumerate(answer)))
        found[f"{name} {side}"] = [float(value) for value in rows]
assert not any(name.startswith("plaudit") for name in sys.modules)
from plaudit.models.load import Machine
from plaudit.recipe import Text
from plaudit.records import Prompt
from plaudit.scorers import load_scorer
cpu = Machine(device=torch.device("cpu"), bf16=False)
for name in names:
    if "reward" in name:
        scorer = load_scorer(f"{root}/{name}", cpu, Text())
        found[f"{name} plaudit"] = scorer.score_texts([(Prompt(text="question: ", id="p"), texts)])
print(json.dumps(found))
"""


def test_folders_mean_the_same_in_a_fresh_process_without_plaudit(tmp_path):
    """Logits, and scores with gain and bias, to 1e-5, merged to 3e-5, padded on either side; our own to the bit."""
    torch.set_num_threads(1)
    expected = {name: packed_outputs(name, *make(name, tmp_path / name)) for name in FOLDERS}
    again = {
        name: load_scorer(tmp_path / name, CPU, Text()).score_texts([(Prompt(text="question: ", id="p"), ANSWERS)])
        for name in FOLDERS
        if "reward" in name
    }
    command = [sys.executable, "-W", "error", "-c", FRESH, str(tmp_path), " ".join(FOLDERS), json.dumps(ANSWERS)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) == 2 * len(FOLDERS) + len(again)
    for name, values in expected.items():
        near = pytest.approx(values, rel=1e-6, abs=3e-5 if "lora" in name else 1e-5)  # merging rounds
        for side in ("right", "left"):
            assert found[f"{name} {side}"] == near, f"{name} padded on the {side}"
    for name, values in again.items():
        assert found[f"{name} plaudit"] == values
        if "lora" not in name:  # merging rounds
            assert values == expected[name]


def test_a_merged_adapter_leaves_the_trained_model_as_it_was(tmp_path):
    tokenizer = tiny_tokenizer()
    model = trained(adapted(tiny_model(reward=True), Adapter(rank=2), seed=1, task="SEQ_CLS"))
    network = RewardNetwork(model)
    before, names = packed_outputs("reward-lora", model, tokenizer), sorted(network.trained())
    save_model(model, tmp_path / "model", tokenizer)
    assert packed_outputs("reward-lora", model, tokenizer) == before
    assert sorted(network.trained()) == names
    assert {p.name for p in (tmp_path / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not list(tmp_path.glob("**/adapter*"))


def test_no_row_is_added_to_the_embeddings_for_padding(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tiny_model().save_pretrained(tmp_path / "given")
    tokenizer.save_pretrained(tmp_path / "given")
    model = load_language(str(tmp_path / "given"), CPU)
    save_model(model, tmp_path / "kept", load_tokenizer(str(tmp_path / "given")))
    given, kept = (load_file(tmp_path / name / "model.safetensors") for name in ("given", "kept"))
    assert given.keys() == kept.keys()
    assert all(torch.equal(given[name], kept[name]) for name in given)
    assert new_reward(str(tmp_path / "kept"), CPU, seed=0).config.vocab_size == model.config.vocab_size


@pytest.mark.parametrize(
    ("change", "pad"),
    [
        ({}, "<|pad|>"),  # one of its own
        ({"pad_token": "<|end|>"}, "<|pad|>"),  # pad is end, but one made for padding is in the vocabulary
        ({"pad_token": None}, "<|pad|>"),
    ],
)
def test_a_classifiers_pad_token_is_no_end_token(tmp_path, change, pad):
    tokenizer = new_tokenizer(["some words"], "", vocabulary=300)
    for name, value in change.items():
        setattr(tokenizer, name, value)
    save_model(tiny_model(reward=True, vocab_size=300), tmp_path / "model", tokenizer)
    assert load_tokenizer(str(tmp_path / "model")).pad_token == pad
    assert json.loads((tmp_path / "model" / "config.json").read_text())["pad_token_id"] == 0
    assert tokenizer.pad_token == change.get("pad_token", "<|pad|>")  # the one in use is not touched


def test_dropout_is_off_whatever_its_name(tmp_path):
    high: dict[str, dict[str, Any]] = {
        "opt": {"dropout": 0.5, "attention_dropout": 0.5},  # functional: no module holds the rate
        "gpt2": {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
        "falcon": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
    }
    for kind, rates in high.items():
        tiny_model(kind, **rates).save_pretrained(tmp_path / kind)
        model = load_language(str(tmp_path / kind), CPU).train()
        tokens = torch.tensor([[1, 4, 5, 6, 7, 8]])
        torch.manual_seed(0)
        with torch.no_grad():
            first, second = (model(input_ids=tokens).logits for _ in range(2))
            assert torch.equal(first, second), kind
            assert torch.equal(model.eval()(input_ids=tokens).logits, first), kind


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2)], ids=["whole", "adapter"])
def test_checkpointing_changes_no_gradient(tmp_path, adapter):
    tree = pack([((3, 4, 5), [(6, 7), (9, 10, 11)]), ((13,), [(14,)])])
    tiny_model().save_pretrained(tmp_path)
    found = []
    for checkpointing in (False, True):
        model = trained(adapted(load_language(str(tmp_path), CPU, checkpointing=checkpointing), adapter, seed=0))
        network = LanguageNetwork(model).train()
        calls: list[nn.Module] = []
        bare(model).model.layers[0].input_layernorm.register_forward_hook(
            lambda module, args, out, calls=calls: calls.append(module)
        )
        network.outputs(tree, Needs(logp=True)).logp_BT.sum().backward()
        assert len(calls) == 1 + checkpointing  # computed again on the way back
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, again in zip(*found, strict=True):
        assert plain is not None
        torch.testing.assert_close(again, plain, rtol=0, atol=0)


def test_weights_come_from_the_folder_or_from_the_seed(tmp_path):
    tiny_model(seed=3).save_pretrained(tmp_path)
    path, state = str(tmp_path), torch.get_rng_state()
    own = load_language(path, CPU)
    assert torch.equal(own.lm_head.weight, tiny_model(seed=3).lm_head.weight)
    first, same, other = (load_language(path, CPU, random=True, seed=seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first, own.lm_head.weight)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws move
    assert context_of(own.config) == 64
    assert context_of(tiny_model("bloom").config) is None


def test_a_new_reward_model_has_the_trunk_and_a_head_of_its_seed(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    reward = new_reward(str(tmp_path), CPU, seed=7)
    assert torch.equal(reward.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)
    assert reward.score.weight.shape == (1, 32)
    assert torch.equal(reward.score.weight, new_reward(str(tmp_path), CPU, seed=7).score.weight)
    assert not torch.equal(reward.score.weight, new_reward(str(tmp_path), CPU, seed=8).score.weight)
    drawn = new_reward(str(tmp_path), CPU, seed=7, random=True)
    assert not torch.equal(drawn.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)


def test_a_trunk_whose_weights_do_not_fit_its_config_is_refused(tmp_path):
    save_model(tiny_model(), tmp_path, tiny_tokenizer())
    size = json.loads((tmp_path / "config.json").read_text())["intermediate_size"]
    change_config(tmp_path, intermediate_size=size + 8)
    with pytest.raises(ModelError, match=r"lacks weights, which would be random: .*mlp"):
        new_reward(str(tmp_path), CPU, seed=0)


@pytest.mark.parametrize("qualities", [{}, {"kind": 0.5}, {"kind": 0.5, "true": 2.0}])
def test_a_new_head_on_a_reward_models_trunk_has_nothing_of_the_old_one(tmp_path, qualities):
    old = tiny_model(reward=True, num_labels=2)
    old.config.id2label, old.config.reward_weights = {0: "harmful", 1: "long"}, [-1.0, 3.0]
    save_model(old, tmp_path, tiny_tokenizer(), reward_gain=2.0, reward_bias=0.25, reward_scales={"tie": 0.5})
    config = new_reward(str(tmp_path), CPU, seed=0, qualities=qualities).config
    assert config.id2label == dict(enumerate(qualities or ["LABEL_0"]))
    assert config.label2id == {name: i for i, name in config.id2label.items()}
    kept = {name: value for name, value in vars(config).items() if name.startswith("reward_")}
    assert kept == ({"reward_weights": list(qualities.values())} if qualities else {})


def test_an_adapter_on_a_reward_model_trains_its_head_too():
    model = adapted(tiny_model(reward=True), Adapter(rank=2), seed=1, task="SEQ_CLS")
    names = sorted(RewardNetwork(model).trained())
    assert any("score" in name for name in names)
    assert all("lora_" in name or "score" in name for name in names)
    assert adapted(bare(tiny_model()), None, seed=0) is not None
    same = adapted(tiny_model(reward=True), Adapter(rank=2), seed=1, task="SEQ_CLS")
    for one, two in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_adapter_for_layers_that_are_not_there_names_those_that_are():
    with pytest.raises(
        ModelError, match=r"model\.adapter\.targets \['foo'\]: LlamaForCausalLM has no such .*down_proj"
    ):
        adapted(tiny_model(), Adapter(targets=("foo",)), seed=0)


def test_what_cannot_be_loaded_says_why(tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere"
    for load in (load_tokenizer, lambda path: load_language(path, CPU), lambda path: load_reward(path, CPU)):
        with pytest.raises(ModelError, match=r"cannot load .*nowhere': no such folder"):
            load(str(nowhere))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("models/nowhere", "./nowhere", "nowhere/", "a/b/nowhere"):  # none of which is asked for on a hub
        with pytest.raises(ModelError, match=rf"cannot load '{name}': no such folder"):
            load_tokenizer(name)
    with pytest.raises(ModelError, match=r"cannot load .*models': the folder is there, but .* it holds nothing"):
        load_tokenizer(str(tmp_path / "models"))
    tiny_model(reward=True).save_pretrained(tmp_path / "reward")
    with pytest.raises(
        ModelError, match=r"is a reward model or a classifier \(LlamaForSequenceClassification\), which"
    ):
        load_language(str(tmp_path / "reward"), CPU)
    tiny_model().save_pretrained(tmp_path / "language")
    with pytest.raises(ModelError, match=r"is a language model \(LlamaForCausalLM\), which scores nothing"):
        load_reward(str(tmp_path / "language"), CPU)
    config = tmp_path / "language" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_labels": 1}))
    with pytest.raises(ModelError, match="has no trained score head, or not all of it: its scores would be random"):
        load_reward(str(tmp_path / "language"), CPU)
    (tmp_path / "language" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(
        ModelError, match=r"the folder is there, but .*; it holds config\.json, gen.*, model\.safetensors"
    ):
        load_language(str(tmp_path / "language"), CPU)
    endless = tiny_tokenizer()
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(ModelError, match="has no end-of-text token"):
        load_tokenizer(str(tmp_path / "endless"))


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    """Transformers would draw them at random and go on."""
    body_of(tiny_model()).save_pretrained(tmp_path / "body")
    with pytest.raises(ModelError, match=r"body' lacks weights, which would be random: lm_head.weight"):
        load_language(str(tmp_path / "body"), CPU)
    whole = tiny_model().state_dict()
    del whole["model.layers.0.mlp.up_proj.weight"]
    tiny_model().save_pretrained(tmp_path / "half", state_dict=whole)
    with pytest.raises(ModelError, match=r"half' lacks weights, which would be random: model.layers.0.mlp.up_proj"):
        new_reward(str(tmp_path / "half"), CPU, seed=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_is_saved_and_loaded(tmp_path, kind):
    model = tiny_model(kind)
    tree = pack([((3, 4, 5), [(6, 7), (9, 10, 11)])])
    with torch.no_grad():
        before = LanguageNetwork(model).outputs(tree, Needs(logp=True)).logp_BT
        save_model(model, tmp_path / "model", tiny_tokenizer())
        again = load_language(str(tmp_path / "model"), CPU)
        assert torch.equal(LanguageNetwork(again).outputs(tree, Needs(logp=True)).logp_BT, before)


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    model, tokenizer = make("reward", tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_text()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(RunError, match=r"the disk of .* is full .*: make room and start the same command again"):
        save_model(model, tmp_path / "model", tokenizer)
    assert (tmp_path / "model" / "config.json").read_text() == before


def test_machines():
    cpu = choose_machine("cpu", "fp32")
    assert (cpu.device.type, cpu.bf16, cpu.describe()) == ("cpu", False, "CPU, fp32")
    half = choose_machine("cpu", "bf16")
    assert half.describe() == "CPU, bfloat16 over fp32 weights"
    layer = nn.Linear(2, 2)
    with half.computing():
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    with cpu.computing():
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=r"device cuda is not there; found .*cpu"):
            choose_machine("cuda")
