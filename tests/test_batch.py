"""Packed rows: every index against a row that is laid out by hand, and against the texts themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, Support, TokenTree, alike, pack, select, split
from plaudit.errors import ShapeError

quick = settings(deadline=None, max_examples=60, derandomize=True)

# prompt 0: 10 11 12, answers (20 21), (), (30 31 32); prompt 1: 13, answer (40)
TREE = pack([((10, 11, 12), [(20, 21), (), (30, 31, 32)]), ((13,), [(40,)])], names=["first", "second"])

TOKENS = st.lists(st.integers(0, 9), max_size=5)  # 0 among them: masks must not come from token values
TEXTS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.lists(TOKENS, min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One tensor of each suffix, each entry naming its own place."""

    tree: TokenTree
    x_BT: Tensor
    y_B: Tensor
    z_P: Tensor


def example(texts):
    tree = pack(texts)
    mask_BT = tree.mask_BT
    own_BT = torch.arange(tree.answers)[:, None] * 100 + torch.arange(mask_BT.shape[1])
    return Example(
        tree=tree, x_BT=own_BT.masked_fill(~mask_BT, -1), y_B=torch.arange(tree.answers), z_P=torch.arange(tree.prompts)
    )


def texts_of(tree):
    """The texts back from the row, by lengths alone."""
    row, texts = tree.token_N.tolist(), []
    for prompt, answers in zip(tree.prompt_lengths, tree.answer_lengths, strict=True):
        given, row = row[:prompt], row[prompt:]
        found = []
        for length in answers:
            found.append(row[:length])
            row = row[length:]
        texts.append((given, found))
    assert row == []
    return texts


def test_a_row_by_hand():
    assert TREE.token_N.tolist() == [10, 11, 12, 20, 21, 30, 31, 32, 13, 40]
    assert (TREE.prompts, TREE.answers, TREE.tokens) == (2, 4, 6)
    assert TREE.prompt_of_answers() == [0, 0, 0, 1]
    assert TREE.prompt_starts() == [0, 8]
    assert TREE.answer_starts() == [3, 5, 5, 9]
    assert TREE.position_N().tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 0, 1]
    assert TREE.token_BT.tolist() == [[20, 21, 0], [0, 0, 0], [30, 31, 32], [40, 0, 0]]
    assert TREE.mask_BT.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]
    # the first token is predicted by the prompt's last (place 2, place 8), the others by the one before
    assert TREE.source_BT().tolist() == [[2, 3, 0], [0, 0, 0], [2, 5, 6], [8, 0, 0]]
    assert TREE.last_B().tolist() == [4, 2, 7, 9]  # the empty answer's score is read at its prompt's end


def test_the_mask_is_about_lengths_not_about_tokens():
    pad = pack([((0, 0), [(0, 0, 0), (0,)])])
    assert pad.mask_BT.tolist() == [[True, True, True], [True, False, False]]
    assert pad.source_BT().tolist() == [[1, 2, 3], [1, 0, 0]]


@given(TEXTS)
@quick
def test_every_index_finds_its_token(texts):
    tree = pack(texts)
    row = tree.token_N.tolist()
    assert [(list(p), [list(a) for a in answers]) for p, answers in texts] == texts_of(tree)
    answers = [(prompt, answer) for prompt, given in texts for answer in given]
    mask_BT, token_BT, source_BT, last_B = tree.mask_BT, tree.token_BT, tree.source_BT(), tree.last_B()
    position_N = tree.position_N().tolist()
    assert token_BT.shape == mask_BT.shape == source_BT.shape == (len(answers), max(len(a) for _, a in answers))
    for b, (prompt, answer) in enumerate(answers):
        here_T = mask_BT[b]
        assert here_T.tolist() == [t < len(answer) for t in range(mask_BT.shape[1])]
        assert token_BT[b][here_T].tolist() == answer
        assert not token_BT[b][~here_T].any()
        text = [*prompt, *answer]
        sources = source_BT[b][here_T].tolist()
        assert [row[place] for place in sources] == text[len(prompt) - 1 : -1]
        assert [position_N[place] for place in sources] == list(range(len(prompt) - 1, len(text) - 1))
        assert position_N[int(last_B[b])] == len(text) - 1
        assert row[int(last_B[b])] == text[-1]


def test_without_answers_indices_are_still_integers():
    tree = pack([((1, 2), [])])
    assert tree.answers == tree.tokens == 0
    assert tree.token_N[tree.last_B()].tolist() == []
    assert tree.token_N[tree.source_BT()].tolist() == []


def test_a_tree_moves_as_a_whole():
    moved = TREE.to(torch.device("meta"))
    assert moved.token_N.device.type == "meta"
    assert moved.prompt_lengths == TREE.prompt_lengths


@pytest.mark.parametrize(
    ("texts", "names", "message"),
    [([], None, "at least one prompt, found none"), ([((), [(1,)])], ["p7"], "prompt p7 has no token")],
)
def test_what_cannot_be_packed(texts, names, message):
    with pytest.raises(ShapeError, match=message):
        pack(texts, names=names)


@given(TEXTS, st.data())
@quick
def test_select_keeps_the_law_of_suffixes(texts, data):
    batch = example(texts)
    rows = data.draw(st.lists(st.integers(0, batch.tree.answers - 1), min_size=1, unique=True))
    small = select(batch, rows)
    kept = sorted(rows)
    prompts = sorted({batch.tree.prompt_of_answers()[row] for row in kept})
    assert small.y_B.tolist() == kept
    assert small.z_P.tolist() == prompts
    assert small.tree.names == tuple(batch.tree.names[p] for p in prompts)
    mask_BT = small.tree.mask_BT
    assert small.x_BT.shape == mask_BT.shape
    assert torch.equal(small.x_BT[mask_BT], batch.x_BT[kept][batch.tree.mask_BT[kept]])
    assert (small.x_BT[~mask_BT] == -1).all()
    whole, alone = batch.tree.token_BT, small.tree.token_BT
    assert torch.equal(alone, whole[kept][:, : alone.shape[1]])
    answers = iter(kept)
    owners = batch.tree.prompt_of_answers()
    flat = [answer for _, given in texts for answer in given]
    for p, (prompt, found) in zip(prompts, texts_of(small.tree), strict=True):
        assert prompt == list(texts[p][0])
        for answer in found:
            row = next(answers)
            assert owners[row] == p
            assert answer == list(flat[row])


def test_select_by_hand():
    batch = example([((10, 11, 12), [(20, 21), (), (30, 31, 32)]), ((13,), [(40,)])])
    small = select(batch, [3, 0])
    assert small.tree.token_N.tolist() == [10, 11, 12, 20, 21, 13, 40]
    assert small.x_BT.tolist() == [[0, 1], [300, -1]]
    assert small.y_B.tolist() == [0, 3]
    assert select(batch, [3]).z_P.tolist() == [1]


@given(TEXTS, st.integers(1, 40))
@quick
def test_split_joins_again_and_cuts_no_group(texts, limit):
    batch = example(texts)
    pieces = list(split(batch, limit))
    assert [text for piece in pieces for text in texts_of(piece.tree)] == texts_of(batch.tree)
    assert torch.cat([piece.y_B for piece in pieces]).tolist() == batch.y_B.tolist()
    assert torch.cat([piece.z_P for piece in pieces]).tolist() == batch.z_P.tolist()
    sizes = [len(piece.tree.token_N) for piece in pieces]
    for piece, size in zip(pieces, sizes, strict=True):
        assert size <= limit or piece.tree.prompts == 1
    for i in range(len(pieces) - 1):  # as full as the limit allows
        following = pieces[i + 1].tree
        assert sizes[i] + following.prompt_lengths[0] + sum(following.answer_lengths[0]) > limit


def test_a_batch_that_fits_is_not_copied():
    batch = example([((1,), [(2,)]), ((3,), [(4,)])])
    assert next(split(batch, 4)) is batch
    assert len(list(split(batch, 3))) == 2


# --- what could have come -------------------------------------------------------------------------------------------


def supports_of(tree):
    """The tokens that could have come, back from the tree, one row for each answer token."""
    sizes = tree.support.count_M.tolist()
    return [own.tolist() for own in tree.support.token_K.split(sizes)]


def test_a_support_by_hand():
    support = Support.of([(0, 2), (1,), (0, 1, 2)])
    logits_MV = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    e = torch.tensor([1.0, 2.0, 3.0]).exp()
    expected_MV = torch.stack(
        [torch.stack([e[0], 0 * e[1], e[2]]) / (e[0] + e[2]), torch.tensor([0.0, 1.0, 0.0]), e / e.sum()]
    )
    torch.testing.assert_close(support.limit(logits_MV).softmax(-1), expected_MV)
    assert support.limit(logits_MV).softmax(-1)[0, 1] == 0  # exactly
    assert support.select(torch.tensor([False, True, True])).token_K.tolist() == [1, 0, 1, 2]
    assert [piece.token_K.tolist() for piece in support.split(2)] == [[0, 2, 1], [0, 1, 2]]


def test_log_probabilities_of_a_tree_are_on_its_support():
    # answers (20 21) and (): three answer tokens in all, the last one of prompt 1
    tree = pack([((1,), [(0, 1), ()]), ((2,), [(2,)])], support=Support.of([(0, 1), (1, 2), (2,)]))
    logp_BTV = tree.logps_BTV(torch.zeros(3, 2, 3))
    half, none, third = 0.5, 0.0, 1 / 3  # where there is no token, nobody looks
    expected = [[[half, half, none], [none, half, half]], [[third] * 3] * 2, [[none, none, 1.0], [third] * 3]]
    torch.testing.assert_close(logp_BTV.exp(), torch.tensor(expected))
    assert torch.isfinite(logp_BTV).all()
    whole = pack([((1,), [(0, 1), ()]), ((2,), [(2,)])])
    torch.testing.assert_close(whole.logps_BTV(torch.zeros(3, 2, 3)).exp(), torch.full((3, 2, 3), third))


@given(TEXTS, st.integers(1, 40), st.data())
@quick
def test_select_and_split_keep_what_could_have_come(texts, limit, data):
    flat = [answer for _, answers in texts for answer in answers]
    supports = [[(token, 10 + place) for place, token in enumerate(answer)] for answer in flat]
    tree = pack(texts, support=Support.of([own for answer in supports for own in answer]))
    batch = Example(tree=tree, x_BT=tree.token_BT, y_B=torch.arange(tree.answers), z_P=torch.arange(tree.prompts))
    rows = data.draw(st.lists(st.integers(0, tree.answers - 1), min_size=1, unique=True))
    assert supports_of(select(batch, rows).tree) == [list(own) for row in sorted(rows) for own in supports[row]]
    joined = [own for piece in split(batch, limit) for own in supports_of(piece.tree)]
    assert joined == [list(own) for answer in supports for own in answer]


def test_what_cannot_be_selected():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Odd:
        tree: TokenTree
        table_BV: Tensor

    batch = example([((1,), [(2,)])])
    with pytest.raises(ShapeError, match=r"no answer is selected"):
        select(batch, [])
    with pytest.raises(ShapeError, match=r"table_BV: no rule to select along 'BV'"):
        select(Odd(tree=batch.tree, table_BV=torch.zeros(1, 2)), [0])


def test_texts_of_about_one_length_by_hand():
    # 0.7 x 100 = 70 lets 71 in and 69 not; 0.7 x 69 = 48.3, so 12, counted as 16, is too short
    assert list(alike([71, 12, 0, 100, 69])) == [[3, 0], [4], [1]]
    assert list(alike([16, 1, 0, 9])) == [[0, 3, 1]]
    assert list(alike([0, 0])) == []


@quick
@given(st.lists(st.integers(0, 200)))
def test_every_text_that_is_not_empty_is_in_one_group(sizes):
    groups = list(alike(sizes))
    assert sorted(i for group in groups for i in group) == [i for i, size in enumerate(sizes) if size]
    for group in groups:
        longest, shortest = max(sizes[i] for i in group), min(sizes[i] for i in group)
        assert max(shortest, 16) >= 0.7 * longest


def test_what_was_not_asked_for_is_an_error():
    outputs = Outputs(logp=torch.zeros(1, 2))
    assert outputs.logp_BT.shape == (1, 2)
    for name in ("entropy_BT", "value_BT", "score_B"):
        with pytest.raises(ShapeError, match=f"the loss reads {name.partition('_')[0]} but does not list it"):
            getattr(outputs, name)
    assert Needs() == Needs(logp=False, entropy=False, value=False, score=False)
    assert LossSum(torch.zeros(()), 1.0).metrics == {}
