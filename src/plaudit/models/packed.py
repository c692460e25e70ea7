"""One forward pass over a packed row: every prompt once, every answer once, no padding in any matrix product.

Transformers lets a user register an attention function and pass it keyword arguments through the model's own
forward. Ours receives a `plan` there, which says which tokens see which. Linear layers, norms and rotary
embeddings run on the packed row `[1, N]` untouched; only inside attention are queries and keys gathered into
padded blocks: prompts among themselves, and each answer against its prompt and itself.

A model whose attention cannot be replaced (recurrent ones, those with soft-capping or sinks inside attention) takes
the road of rows: each answer with a copy of its prompt, padded. `choose_road` compares the two once, on a small tree,
when a model is loaded.

Shape letters:  N tokens of the row   H heads   E size of a head   B answers   P prompts   T tokens   D hidden size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

_ROADS: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()
"""The attention that a model that runs packed had before; None for one that does not run packed."""


class TreePlan:
    """Prompts see themselves; each answer sees its prompt and itself; all of it causal."""

    def __init__(self, tree: TokenTree) -> None:
        device = tree.token_N.device
        texts = list(zip(tree.prompt_lengths, tree.answer_lengths, strict=True))
        self.longest = max(prompt + max(answers, default=0) for prompt, answers in texts)
        self.whole = all(len(answers) == 1 for answers in tree.answer_lengths)
        """One answer each: a text is one causal block, and there are no others."""
        sizes = [prompt + answers[0] if self.whole else prompt for prompt, answers in texts]
        causal_PT, place_N = _blocks(tree.prompt_starts(), sizes)
        if not self.whole:
            query_BT, answer_place_N = _blocks(tree.answer_starts(), tree.lengths)
            head_BT = self._heads(tree)
            own_TT = torch.ones(query_BT.shape[1], query_BT.shape[1], dtype=torch.bool).tril()
            sees_BTT = torch.cat(
                [
                    (head_BT >= 0)[:, None, :].expand(-1, len(own_TT), -1),
                    own_TT[None].expand(len(query_BT), -1, -1),
                ],
                dim=2,
            )
            bias_BTT = torch.zeros(sees_BTT.shape).masked_fill(~sees_BTT, float("-inf"))
            self.bias = bias_BTT[:, None].to(device)
            self.key_BT = torch.cat([head_BT.clamp(min=0), query_BT], dim=1).to(device)
            self.query_BT = query_BT.to(device)
            place_N = torch.cat([place_N, answer_place_N + causal_PT.numel()])[self._row_order(tree)]
        self.causal_PT = causal_PT.to(device)
        self.place_N = place_N.to(device)
        """Where in the flattened blocks each token of the row is."""

    @staticmethod
    def _heads(tree: TokenTree) -> Tensor:
        """[B, T] each answer's prompt, pushed to the right; -1 in front."""
        starts, prompt_of = tree.prompt_starts(), tree.prompt_of_answers()
        return _ending_blocks([starts[p] for p in prompt_of], [tree.prompt_lengths[p] for p in prompt_of])

    @staticmethod
    def _row_order(tree: TokenTree) -> Tensor:
        """[N] for each token of the row its number when all prompts stand before all answers."""
        prompts, answers = 0, sum(tree.prompt_lengths)
        index: list[Tensor] = []
        for prompt, lengths in zip(tree.prompt_lengths, tree.answer_lengths, strict=True):
            size = sum(lengths)
            index += [torch.arange(prompts, prompts + prompt), torch.arange(answers, answers + size)]
            prompts, answers = prompts + prompt, answers + size
        return torch.cat(index)

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


def _blocks(starts: Sequence[int], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Index [blocks, longest] of each block's tokens, and where in it (flattened) the real ones stand, in order.

    Behind a block's end its last token is repeated: right of a causal block nobody looks there. An empty block, which
    may begin behind the end of the row, repeats the row's first token.
    """
    size, start = _column(sizes), _column(starts)
    step = torch.arange(max(sizes, default=0))[None, :]
    index = torch.where(size > 0, start + torch.minimum(step, size - 1), 0)
    return index, (step < size).flatten().nonzero().squeeze(1)


def _ending_blocks(starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Index [blocks, longest] of each block's tokens pushed to the right; -1 in front."""
    size, start = _column(sizes), _column(starts)
    longest = max(sizes, default=0)
    step = torch.arange(longest)[None, :] - (longest - size)
    return torch.where(step >= 0, start + step, -1)


def _column(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)[:, None]


def body_of(model: Any) -> Any:
    """The model under its head, whose output is the last hidden state; under an adapter too."""
    return bare(model).base_model


def bare(model: Any) -> Any:
    """The Transformers model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden_states(model: Any, tree: TokenTree) -> Tensor:
    """[N, D] last hidden state of every token of the row, by the road that `choose_road` chose for the model."""
    return _rows(model, tree) if _ROADS[body_of(model)] is None else _packed(model, tree)


def _packed(model: Any, tree: TokenTree) -> Tensor:
    return run_packed(model, tree.token_N, tree.position_N(), TreePlan(tree))


def run_packed(model: Any, token_N: Tensor, position_N: Tensor, plan: Plan) -> Tensor:
    """[N, D] last hidden state of a packed row, attended to by a plan."""
    out = body_of(model)(input_ids=token_N[None], position_ids=position_N[None], use_cache=False, plan=plan)
    hidden_ND: Tensor = out.last_hidden_state[0]
    return hidden_ND


def _rows(model: Any, tree: TokenTree) -> Tensor:
    """Each answer behind a copy of its prompt, padded on the right."""
    device = tree.token_N.device
    starts, answer_starts, prompt_of = tree.prompt_starts(), tree.answer_starts(), tree.prompt_of_answers()
    places, kept = [], []
    for b, p in enumerate(prompt_of):
        prompt = torch.arange(starts[p], starts[p] + tree.prompt_lengths[p])
        places.append(torch.cat([prompt, torch.arange(answer_starts[b], answer_starts[b] + tree.lengths[b])]))
        # a prompt's states are those of its first copy, or its gradient would count once for each answer
        first = b == 0 or prompt_of[b - 1] != p
        kept.append(torch.arange(len(places[-1])) >= (0 if first else len(prompt)))
    place_BT = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1).to(device)
    kept_BT = nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=False).to(device)
    out = body_of(model)(
        input_ids=tree.token_N[place_BT.clamp(min=0)], attention_mask=(place_BT >= 0).long(), use_cache=False
    )
    hidden_BTD = out.last_hidden_state
    hidden_ND: Tensor = hidden_BTD.new_zeros(len(tree.token_N), hidden_BTD.shape[-1])
    return hidden_ND.index_put((place_BT[kept_BT],), hidden_BTD[kept_BT])


def choose_road(model: Any) -> bool:
    """Give the model packed attention if that changes nothing, tried on a small tree; True if it did.

    The answer is kept on the model in memory, never in its saved folder. A model that cannot pack stays as it was.
    """
    body = body_of(model)
    if body not in _ROADS:
        _ROADS[body] = _try_packing(bare(model))
    return _ROADS[body] is not None


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Inside, the model runs with the attention that it came with, as `model.generate` needs it."""
    own = _ROADS.get(body_of(model))
    if own is None:  # it does not run packed, or nobody has asked it yet
        yield
        return
    bare(model).set_attn_implementation(own)
    try:
        yield
    finally:
        bare(model).set_attn_implementation(ATTENTION)


@torch.no_grad()
def _try_packing(model: Any) -> str | None:
    """Switch to packed attention; the name of the attention that was there, or None where it is there again."""
    config = model.config.get_text_config()
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return None
    tokens = [(7 * i + 3) % int(config.vocab_size) for i in range(12)]
    tree = pack([(tokens[:3], [tokens[3:5], tokens[5:9]]), (tokens[1:5], [tokens[2:3], tokens[9:12]])])
    tree = tree.to(next(model.parameters()).device)
    training = model.training
    model.eval()
    own = None
    try:
        _switch_back(model)
        expected_ND = _rows(model, tree)
        own = _switch(model)
        if own is not None and _close(_packed(model, tree), expected_ND):
            return own
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        if own is None:
            raise ModelError(f"{type(model).__name__} cannot read a padded batch: {error}") from error
    finally:
        model.train(training)
    if own is not None:
        model.set_attn_implementation(own)
    return None


def _switch_back(model: Any) -> None:
    """A copy of a model that runs packed comes with packed attention; give it what Transformers would."""
    if ATTENTION in vars(model.config).values():
        try:
            model.set_attn_implementation("sdpa")
        except ValueError:
            model.set_attn_implementation("eager")


def _switch(model: Any) -> str | None:
    """Switch to packed attention; the name of the attention that was there, or None if the model does not switch."""
    before = dict(vars(model.config))
    try:
        model.set_attn_implementation(ATTENTION)
    except ValueError:
        return None
    return next((str(before[name]) for name, value in vars(model.config).items() if value == ATTENTION), None)


def _close(packed_ND: Tensor, expected_ND: Tensor) -> bool:
    scale = expected_ND.float().abs().mean()
    return bool((packed_ND - expected_ND).float().abs().max() <= 1e-3 * scale + 1e-5)
