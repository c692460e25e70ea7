"""Exported reward models: the layout, and equal scores by Transformers alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from plaudit.errors import ModelError, RunError
from plaudit.models.export import VLLM, export_reward
from plaudit.models.load import Machine, load_tokenizer
from plaudit.models.save import save_model
from plaudit.recipe import Text
from plaudit.records import Prompt
from plaudit.scorers import load_scorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
TEXT = Text(template="q: {prompt} a: ")
ANSWERS = ("so", "because of it", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rm") / "reward-model"
    save_model(tiny_model(reward=True), path, tiny_tokenizer(), reward_gain=2.5, reward_bias=-0.75)
    return path


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def exported(request, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "out"
    assert export_reward(folder, out, request.param, TEXT) == -0.75
    return out


def rewards(path):
    scorer = load_scorer(path, CPU, TEXT)
    return scorer.score_texts([(Prompt(text="why"), [(answer, True) for answer in ANSWERS])])


def test_the_layout_that_vllm_reads(exported):
    """See the module for where each of these is read in vLLM's sources."""
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["problem_type"] == "regression"
    assert (config["reward_gain"], config["reward_bias"]) == (1.0, -0.75)
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {p.name for p in exported.iterdir()}
    from safetensors import safe_open

    with safe_open(exported / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert weights.get_tensor("score.weight").shape == (1, 32)
    assert not {name for name in names if name.startswith("lm_head") or name == "score.bias"}
    assert all(name.startswith("model.") or name == "score.weight" for name in names)


def test_a_plain_pipeline_gives_the_reward_but_for_its_offset(folder, exported):
    score = pipeline("text-classification", model=str(exported))
    texts = [f"q: why a: {answer}</s>" for answer in ANSWERS]
    plain = [found["score"] for found in score(texts)]
    assert plain == pytest.approx([reward + 0.75 for reward in rewards(folder)], abs=1e-5)
    together = [found["score"] for found in score(texts, batch_size=3)]
    assert together == pytest.approx(plain, abs=1e-5)


def test_plain_transformers_reload_it_in_another_process(folder, exported):
    """Without Plaudit in it, and with nothing missing or left over."""
    script = """
import sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, info = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
ids = AutoTokenizer.from_pretrained(sys.argv[1])("q: why a: so</s>", return_tensors="pt").input_ids
print(float(model.eval()(ids).logits))
assert "plaudit" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, str(exported)], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(rewards(folder)[0] + 0.75, abs=1e-5)


def test_plaudit_reads_its_export_as_the_same_reward(folder, exported):
    assert rewards(exported) == pytest.approx(rewards(folder), abs=1e-5)


def test_the_readme_says_how(exported):
    readme = (exported / "README.md").read_text()
    assert "Reward = score + (-0.75)" in readme
    assert '`"q: why? a: "`' in readme
    assert "must be `</s>`" in readme
    if exported.parent.name.startswith("vllm"):
        assert f"vLLM {VLLM}" in readme
        assert """--runner pooling --dtype float32 --pooler-config '{"logit_mean": 0.75}'""" in readme
    else:
        assert 'pipeline("text-classification"' in readme


def test_what_is_there_is_kept(folder, tmp_path):
    with pytest.raises(RunError, match="is there already"):
        export_reward(folder, tmp_path, "vllm", TEXT)


def test_the_original_is_not_changed(folder, exported):
    del exported
    assert json.loads((folder / "config.json").read_text())["reward_gain"] == 2.5
    weight = AutoModelForSequenceClassification.from_pretrained(folder).score.weight
    assert torch.equal(weight, tiny_model(reward=True).score.weight)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "</s>"


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_an_encoders_head_takes_gain_and_bias(tmp_path, kind):
    """Wherever the family keeps it; by what the README says, too."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    sizes |= {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48} if kind == "distilbert" else {}
    model = tiny_model(kind, reward=True, max_position_embeddings=64, seq_classif_dropout=0.0, **sizes)
    save_model(model, tmp_path / "rm", tiny_tokenizer(), reward_gain=2.0, reward_bias=-0.75)
    assert export_reward(tmp_path / "rm", tmp_path / "out", "transformers", TEXT) == 0.0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["reward_gain"], config["reward_bias"], config["problem_type"]) == (1.0, 0.0, "regression")
    assert rewards(tmp_path / "out") == pytest.approx(rewards(tmp_path / "rm"), abs=1e-5)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "Reward = score. The gain, 2.0, and the bias, -0.75, are in the head." in readme
    assert "as its two segments" in readme
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    printed = run_code(code.replace("path/to/this/folder", str(tmp_path / "out")))
    whole = load_scorer(tmp_path / "rm", CPU, TEXT).score_texts([(Prompt(text="why?"), [("so", True)])])
    assert printed == pytest.approx(whole[0], abs=1e-5)


def run_code(code):
    """What a snippet prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_an_encoder_is_not_written_for_vllm(tmp_path):
    save_model(tiny_model("bert", reward=True, max_position_embeddings=64), tmp_path / "rm", tiny_tokenizer())
    with pytest.raises(ModelError, match="BertForSequenceClassification is an encoder, and what is written for vLLM"):
        export_reward(tmp_path / "rm", tmp_path / "out", "vllm", TEXT)
    assert not (tmp_path / "out").exists()


def test_qualities_become_one_row(tmp_path):
    model = tiny_model(reward=True, num_labels=2)
    model.config.id2label = {0: "helpful", 1: "harmless"}
    model.config.reward_weights = [1.0, 0.5]
    save_model(model, tmp_path / "rm", tiny_tokenizer(), reward_gain=2.0, reward_bias=0.25)
    assert export_reward(tmp_path / "rm", tmp_path / "out", "transformers", TEXT) == 0.25
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0"}
    assert "reward_weights" not in config
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").score.weight.shape == (1, 32)
    assert rewards(tmp_path / "out") == pytest.approx(rewards(tmp_path / "rm"), abs=1e-5)
    assert "weighted sum of those of helpful (1), harmless (0.5)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("weight", [0.25, -1.0])
def test_the_weight_of_a_lone_quality_is_in_the_head_once(tmp_path, weight):
    model = tiny_model(reward=True)
    model.config.id2label, model.config.reward_weights = {0: "harmful"}, [weight]
    save_model(model, tmp_path / "rm", tiny_tokenizer(), reward_gain=2.0, reward_bias=0.25)
    export_reward(tmp_path / "rm", tmp_path / "out", "transformers", TEXT)
    assert "reward_weights" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert rewards(tmp_path / "out") == pytest.approx(rewards(tmp_path / "rm"), abs=1e-5)


def test_a_head_that_is_elsewhere_is_refused(tmp_path):
    model = tiny_model("xlnet", reward=True, d_model=32, n_layer=1, n_head=4, d_inner=48)
    save_model(model, tmp_path / "rm", tiny_tokenizer(), reward_gain=2.0)
    with pytest.raises(ModelError, match=r"keeps its head in none of score, classifier, classifier\.out_proj"):
        export_reward(tmp_path / "rm", tmp_path / "out", "transformers", TEXT)
    assert not (tmp_path / "out").exists()


CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (Text(), ['`why?` is written as `"why?"`.', '`why?` is written as `"[user]why?[assistant]"`, special tokens']),
        (Text(system="be short"), ['`why?` is written as `"[system]be short[user]why?[assistant]"`, special tokens']),
        (
            Text(template="q: {prompt} a: ", system="be short", examples=(("who", "me"),)),
            [r'`why?` is written as `"be short\n\nq: who a: me\n\nq: why? a: "`.'],
        ),
    ],
)
def test_the_readme_writes_prompts_as_they_were_read(tmp_path, text, says):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    save_model(tiny_model(reward=True), tmp_path / "rm", tokenizer)
    export_reward(tmp_path / "rm", tmp_path / "out", "transformers", text)
    readme = (tmp_path / "out" / "README.md").read_text()
    for line in says:
        assert line in readme
    assert readme.count("is written as") == len(says)
    words = Words(load_tokenizer(str(tmp_path / "rm")), text)
    context = words.prompt_ids(Prompt(text="why?"))
    assert f"is `{[*context, *words.answer_ids('so', context_ids=context)]}`" in readme


def test_a_language_model_is_refused(tmp_path):
    save_model(tiny_model(), tmp_path / "lm", tiny_tokenizer())
    with pytest.raises(ModelError, match=r"is a language model \(LlamaForCausalLM\), which scores nothing"):
        export_reward(tmp_path / "lm", tmp_path / "out", "vllm", TEXT)
    assert not (tmp_path / "out").exists()
