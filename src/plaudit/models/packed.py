"""One forward pass over a packed row: every prompt once, every answer once, no padding in any matrix product.

Transformers lets a user register an attention function and pass it keyword arguments through the model's own
forward. Ours receives a `plan` there, which says which tokens see which. Linear layers, norms and rotary
embeddings run on the packed row `[1, N]` untouched; only inside attention are queries and keys gathered into
padded blocks: prompts among themselves, and each answer against its prompt and itself.

A model whose attention cannot be replaced (recurrent ones, some with soft-capping) takes the road of rows: each
answer with a copy of its prompt, padded. `choose_road` compares the two once, on a small tree, when a model is loaded.

Shape letters:  N tokens of the row   H heads   E size of a head   B answers   P prompts   T tokens   D hidden size
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from plaudit.batch import TokenTree, pack
from plaudit.errors import ModelError

__all__ = [
    "ATTENTION",
    "Plan",
    "TreePlan",
    "attend",
    "bare",
    "body_of",
    "choose_road",
    "hidden_states",
    "own_attention",
    "run_packed",
]

ATTENTION = "plaudit_packed"


class Plan(Protocol):
    """Which tokens of a packed row see which."""

    @property
    def longest(self) -> int:
        """Tokens of the longest text, prompt and answer together."""
        ...

    def attend(self, layer: int, query_NHE: Tensor, key_NHE: Tensor, value_NHE: Tensor, scale: float | None) -> Tensor:
        """[N, H, E] mixed values, one row for each query."""
        ...


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention over blocks `[blocks, tokens, heads, E]`; fewer key heads than query heads are shared."""
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return mixed.transpose(1, 2)


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    plan: Plan | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    if plan is None:
        raise TypeError("packed attention was called without a plan: the model does not hand keyword arguments on")
    strange = sorted(name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None)
    if strange:
        raise TypeError(f"packed attention does not know {', '.join(strange)}")
    window = others.get("sliding_window")
    if window is not None and plan.longest > window:
        raise ModelError(f"a text of {plan.longest} tokens is longer than this model's attention window of {window}")
    query_NHE, key_NHE, value_NHE = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return plan.attend(int(module.layer_idx), query_NHE, key_NHE, value_NHE, scaling)[None], None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)

_ROADS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Which models run packed."""


class TreePlan:
    """Prompts see themselves; each answer sees its prompt and itself; all of it causal."""

    def __init__(self, tree: TokenTree) -> None:
        device = tree.token_N.device
        self.longest = max(
            prompt + max(answers, default=0)
            for prompt, answers in zip(tree.prompt_lengths, tree.answer_lengths, strict=True)
        )
        starts, answer_starts = tree.prompt_starts(), tree.answer_starts()
        prompt_of, lengths = tree.prompt_of_answers(), tree.lengths
        self.whole = all(len(answers) == 1 for answers in tree.answer_lengths)
        if self.whole:  # one answer each: a text is one causal block
            sizes = [
                prompt + answers[0] for prompt, answers in zip(tree.prompt_lengths, tree.answer_lengths, strict=True)
            ]
            self.causal_PT, packed = _blocks(starts, sizes)
            order = packed
        else:
            self.causal_PT, order = _blocks(starts, tree.prompt_lengths)
            self.query_BT, answer_order = _blocks(answer_starts, lengths)
            head_BT = _ending_blocks([starts[p] for p in prompt_of], [tree.prompt_lengths[p] for p in prompt_of])
            self.key_BT = torch.cat([head_BT.clamp(min=0), self.query_BT], dim=1).to(device)
            places = self.query_BT.shape[1]
            own_TT = torch.ones(places, places, dtype=torch.bool).tril()
            sees = torch.cat(
                [
                    (head_BT >= 0)[:, None, :].expand(-1, places, -1),
                    own_TT[None].expand(len(lengths), -1, -1),
                ],
                dim=2,
            )
            self.bias = torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))[:, None].to(device)
            order = torch.cat([order, answer_order + self.causal_PT.numel()])
            self.query_BT = self.query_BT.to(device)
        self.causal_PT = self.causal_PT.to(device)
        # where in [blocks flattened] each token of the row is
        self.place_N = order.to(device) if self.whole else self._places(tree, order).to(device)

    @staticmethod
    def _places(tree: TokenTree, order: Tensor) -> Tensor:
        """Reorder "prompts first, then answers" into the order of the row."""
        prompts, answers, here = 0, sum(tree.prompt_lengths), 0
        index: list[Tensor] = []
        for prompt, lengths in zip(tree.prompt_lengths, tree.answer_lengths, strict=True):
            size = sum(lengths)
            index.append(torch.arange(prompts, prompts + prompt))
            index.append(torch.arange(answers, answers + size))
            prompts, answers, here = prompts + prompt, answers + size, here + prompt + size
        return order[torch.cat(index)]

    def attend(self, layer: int, query_NHE: Tensor, key_NHE: Tensor, value_NHE: Tensor, scale: float | None) -> Tensor:
        """[N, H, E] mixed values."""
        del layer
        blocks = [
            attend(
                query_NHE[self.causal_PT], key_NHE[self.causal_PT], value_NHE[self.causal_PT], scale, None, causal=True
            )
        ]
        if not self.whole:
            bias = self.bias.to(query_NHE.dtype)
            blocks.append(
                attend(
                    query_NHE[self.query_BT], key_NHE[self.key_BT], value_NHE[self.key_BT], scale, bias, causal=False
                )
            )
        flat = torch.cat([block.flatten(0, 1) for block in blocks])
        return flat[self.place_N]


def _blocks(starts: list[int] | tuple[int, ...], sizes: list[int] | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Index [blocks, longest] of each block's tokens, and where in it (flattened) the real ones stand, in order.

    Behind a block's end its last token is repeated: right of a causal block nobody looks there.
    """
    size, start = torch.tensor(sizes)[:, None], torch.tensor(starts)[:, None]
    longest = int(size.max()) if len(sizes) else 0
    step = torch.arange(longest)[None, :]
    index = start + torch.minimum(step, (size - 1).clamp(min=0))
    real = (step < size).flatten().nonzero().squeeze(1)
    return index.clamp(min=0), real


def _ending_blocks(starts: list[int], sizes: list[int]) -> Tensor:
    """Index [blocks, longest] of each block's tokens pushed to the right; -1 in front."""
    size, start = torch.tensor(sizes)[:, None], torch.tensor(starts)[:, None]
    longest = int(size.max()) if sizes else 0
    step = torch.arange(longest)[None, :] - (longest - size)
    return torch.where(step >= 0, start + step, -1)


def body_of(model: Any) -> Any:
    """The model under its head, whose output is the last hidden state; under an adapter too."""
    return bare(model).base_model


def bare(model: Any) -> Any:
    """The Transformers model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden_states(model: Any, tree: TokenTree) -> Tensor:
    """[N, D] last hidden state of every token of the row, by the road that `choose_road` chose for the model."""
    return _packed(model, tree) if _ROADS[body_of(model)] else _rows(model, tree)


def _packed(model: Any, tree: TokenTree) -> Tensor:
    hidden: Tensor = run_packed(model, tree.token_N, tree.position_N(), TreePlan(tree))
    return hidden


def run_packed(model: Any, token_N: Tensor, position_N: Tensor, plan: Plan) -> Tensor:
    """[N, D] last hidden state of a packed row, attended to by a plan."""
    out = body_of(model)(input_ids=token_N[None], position_ids=position_N[None], use_cache=False, plan=plan)
    hidden_ND: Tensor = out.last_hidden_state[0]
    return hidden_ND


def _rows(model: Any, tree: TokenTree) -> Tensor:
    """Each answer behind a copy of its prompt, padded on the right."""
    device = tree.token_N.device
    starts, answer_starts = tree.prompt_starts(), tree.answer_starts()
    places = []
    for b, p in enumerate(tree.prompt_of_answers()):
        prompt = torch.arange(starts[p], starts[p] + tree.prompt_lengths[p])
        places.append(torch.cat([prompt, torch.arange(answer_starts[b], answer_starts[b] + tree.lengths[b])]))
    place_BT = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1).to(device)
    real_BT = place_BT >= 0
    out = body_of(model)(input_ids=tree.token_N[place_BT.clamp(min=0)], attention_mask=real_BT.long(), use_cache=False)
    hidden_BTD = out.last_hidden_state
    hidden_ND = hidden_BTD.new_zeros(len(tree.token_N), hidden_BTD.shape[-1])
    return hidden_ND.index_put((place_BT[real_BT],), hidden_BTD[real_BT])


def choose_road(model: Any) -> bool:
    """Give the model packed attention if that changes nothing, tried on a small tree; True if it did.

    The answer is kept on the model in memory, never in its saved folder.
    """
    body = body_of(model)
    if body not in _ROADS:
        _ROADS[body] = _try_packing(bare(model))
    return _ROADS[body]


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Inside, the model runs with its own attention, as `model.generate` needs it."""
    if not _ROADS[body_of(model)]:
        yield
        return
    bare(model).set_attn_implementation("sdpa")
    try:
        yield
    finally:
        bare(model).set_attn_implementation(ATTENTION)


@torch.no_grad()
def _try_packing(model: Any) -> bool:
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = [(7 * i + 3) % vocabulary for i in range(12)]
    tree = pack([(tokens[:3], [tokens[3:5], tokens[5:9]]), (tokens[1:5], [tokens[2:3], tokens[9:12]])])
    tree = tree.to(next(model.parameters()).device)
    training = model.training
    model.eval()
    reference = _rows(model, tree)
    changed = False
    try:
        model.set_attn_implementation(ATTENTION)
        changed = True
        packed = _packed(model, tree)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        same = False
    else:
        known = reference.abs().sum(-1) > 0
        scale = reference[known].float().abs().mean()
        same = bool((packed - reference)[known].float().abs().max() <= 1e-3 * scale + 1e-5)
    finally:
        model.train(training)
    if changed and not same:
        model.set_attn_implementation("sdpa")
    return same
