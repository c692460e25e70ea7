"""What a reward model can start from besides a decoder: an encoder of any family, an LSTM."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, processors
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from plaudit.batch import Needs, pack
from plaudit.errors import ModelError
from plaudit.models.load import Machine, adapted, context_of, load_reward, load_tokenizer, new_lstm_reward, new_reward
from plaudit.models.network import RewardNetwork, head_of, reads_both_ways
from plaudit.models.save import save_model
from plaudit.recipe import Adapter, Text
from plaudit.records import Prompt
from plaudit.scorers import load_scorer
from plaudit.testing.tiny import LETTERS, tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
ANSWERS = [("a fine answer", True), ("no", True), ("", True), ("cut sho", False), ("a fine answer!", True)]
SIZES: dict[str, Any] = {
    "vocab_size": 5 + len(LETTERS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": {**SIZES, "type_vocab_size": 1, "bos_token_id": 1, "eos_token_id": 2},
    "electra": {**SIZES, "embedding_size": 32},
    "distilbert": {**SIZES, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "seq_classif_dropout": 0.0},
}


def encoder_tokenizer():
    """One token for a letter; `[CLS] text [SEP]`, and `[CLS] first [SEP] second [SEP]` with two segments."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *LETTERS])}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def encoder_folder(folder, kind="bert", masked=True):
    """A masked language model, whose folder has no pooler; or the bare encoder, which may have one."""
    model = tiny_model(kind, reward=True, **ENCODERS[kind]).base_model
    if masked:
        model = AutoModelForMaskedLM.from_config(model.config)
    model.save_pretrained(folder)
    encoder_tokenizer().save_pretrained(folder)
    return folder


def scorer_of(folder, **kwargs):
    return load_scorer(folder, CPU, Text(), **kwargs)


def moved(model):
    """As after some training: no weight is where it began."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def saved(model, tokenizer, folder):
    save_model(model, folder, tokenizer, reward_gain=1.7, reward_bias=-0.3)
    return folder


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_scores_prompt_and_answer_as_its_two_segments(tmp_path, kind):
    """As Transformers' own classifier does with the tokenizer's own pairs, padded as it likes."""
    folder = str(encoder_folder(tmp_path / "trunk", kind))
    model = moved(new_reward(folder, CPU, seed=0))
    assert reads_both_ways(model)
    out = saved(model, load_tokenizer(folder), tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(out)
    plain = AutoModelForSequenceClassification.from_pretrained(out).eval()
    ended = [text for text, done in ANSWERS if done]
    typed = kind in ("bert", "electra")  # their own tokenizers say so by themselves
    given = tokenizer(["why?"] * len(ended), ended, padding=True, return_tensors="pt", return_token_type_ids=typed)
    with torch.no_grad():
        expected = (1.7 * plain(**given).logits.squeeze(-1) - 0.3).tolist()
    prompt = Prompt(text="why?")
    scores = scorer_of(out).score_texts([(prompt, [(text, True) for text in ended])])
    assert scores == pytest.approx(expected, abs=1e-5)
    alone = [scorer_of(out, micro_tokens=1).score_texts([(prompt, [(text, True)])])[0] for text in ended]
    assert alone == pytest.approx(scores, abs=1e-5)
    cut = scorer_of(out).score_texts([(prompt, [("cut sho", False), ("cut sho", True)])])
    assert abs(cut[0] - cut[1]) > 1e-4


def test_a_reward_model_takes_what_an_encoder_has_and_draws_the_rest(tmp_path):
    pooled, masked = encoder_folder(tmp_path / "pooled", masked=False), encoder_folder(tmp_path / "masked")
    one, two, three = (new_reward(str(folder), CPU, seed=0) for folder in (pooled, pooled, masked))
    assert torch.equal(one.bert.pooler.dense.weight, two.bert.pooler.dense.weight)
    assert torch.equal(one.bert.pooler.dense.weight, AutoModel.from_pretrained(pooled).pooler.dense.weight)
    assert torch.equal(
        three.bert.embeddings.word_embeddings.weight,
        AutoModelForMaskedLM.from_pretrained(masked).bert.embeddings.word_embeddings.weight,
    )
    head = head_of(one)
    assert float(head.bias.detach()) == 0.0
    assert float(head.weight.detach().std()) == pytest.approx(33**-0.5, rel=0.4)  # std 1 / sqrt(d + 1), 32 of them
    assert torch.equal(head.weight, head_of(two).weight)
    small = head_of(new_reward(str(pooled), CPU, seed=0, head_scale=0.1))
    assert torch.allclose(small.weight, 0.1 * head.weight)
    tokenizer = load_tokenizer(str(pooled))
    drawn = [head_of(new_lstm_reward(tokenizer, CPU, seed=0, head_scale=scale)).weight for scale in (1.0, 0.1)]
    assert torch.allclose(drawn[1], 0.1 * drawn[0])


def test_an_encoders_context_is_its_own(tmp_path):
    assert context_of(tiny_model("roberta", reward=True, **ENCODERS["roberta"]).config) == 62
    assert context_of(tiny_model("bert", reward=True, **ENCODERS["bert"]).config) == 64
    words = Words(load_tokenizer(str(encoder_folder(tmp_path))), Text(), context=64)
    prompt = Prompt(text="ab")
    assert words.prompt_ids(prompt) == (1, 5, 6, 2)
    assert words.answer_ids("c", context_ids=(1, 5, 6, 2)) == (7, 2)


FRESH = """
import sys
import torch
from plaudit.models.load import Machine
from plaudit.recipe import Text
from plaudit.records import Prompt
from plaudit.scorers import load_scorer
torch.set_num_threads(1)
scorer = load_scorer(sys.argv[1], Machine(device=torch.device("cpu"), bf16=False), Text())
print(scorer.score_texts([(Prompt(text="why?"), [("a fine answer", True), ("no", True)])]))
"""


@pytest.mark.parametrize("start", ["encoder", "lstm", "decoder"])
def test_under_lora_the_head_is_saved_and_a_new_process_scores_the_same_bits(tmp_path, start):
    torch.set_num_threads(1)
    if start == "encoder":
        folder = str(encoder_folder(tmp_path / "trunk"))
        model, tokenizer = new_reward(folder, CPU, seed=0), load_tokenizer(folder)
    elif start == "lstm":
        tokenizer = tiny_tokenizer()
        model = new_lstm_reward(tokenizer, CPU, seed=0, hidden=16)
    else:
        tiny_model().save_pretrained(tmp_path / "trunk")
        model, tokenizer = new_reward(str(tmp_path / "trunk"), CPU, seed=0), tiny_tokenizer()
    if start != "lstm":  # whose layers no adapter knows
        model = adapted(model, Adapter(rank=2), seed=1, task="SEQ_CLS")
    before = head_of(model).weight.detach().clone()
    network = RewardNetwork(model)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    assert not torch.equal(head_of(model).weight, before)  # the head is among what is trained
    out = saved(model, tokenizer, tmp_path / "reward")
    here = scorer_of(out).score_texts([(Prompt(text="why?"), [("a fine answer", True), ("no", True)])])
    found = subprocess.run([sys.executable, "-W", "error", "-c", FRESH, str(out)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == here
    merged, _, _ = load_reward(str(out), CPU)
    assert torch.allclose(head_of(merged).weight, head_of(model).weight, atol=1e-6)


def test_dropout_before_an_encoders_head_acts_in_training_only(tmp_path):
    network = RewardNetwork(new_reward(str(encoder_folder(tmp_path)), CPU, seed=0), dropout=0.5)
    tree = pack([((1, 5, 2), [(6, 2), (7, 8, 2)])])
    torch.manual_seed(0)
    quiet = [network.eval().outputs(tree, Needs(score=True)).score_B for _ in range(2)]
    noisy = [network.train().outputs(tree, Needs(score=True)).score_B for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)


def test_what_lacks_a_trained_head_is_refused(tmp_path):
    folder = encoder_folder(tmp_path / "trunk")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_labels": 1}))
    with pytest.raises(ModelError, match="has no trained score head"):
        load_reward(str(folder), CPU)


def test_an_lstm_reward_model_reads_the_last_token(tmp_path):
    model = moved(new_lstm_reward(tiny_tokenizer(), CPU, seed=0, hidden=16))
    out = saved(model, tiny_tokenizer(), tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = [text for text, done in ANSWERS if done]
    scores = scorer_of(out).score_texts([(Prompt(text="why?"), [(text, True) for text in texts])])
    for side in ("left", "right"):
        tokenizer.padding_side = side
        ids = [[*tokenizer.encode("why?"), *tokenizer.encode(t, add_special_tokens=False), 2] for t in texts]
        with torch.no_grad():
            logits = plain(**tokenizer.pad({"input_ids": ids}, return_tensors="pt")).logits
        assert (1.7 * logits.squeeze(-1) - 0.3).tolist() == pytest.approx(scores, abs=1e-5)
