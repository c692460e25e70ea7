"""One forward pass over a packed row: every prompt once, every answer once, no padding in any matrix product.

Transformers lets a user register an attention function and pass it keyword arguments through the model's own
forward. Ours receives a `plan` there, which says which tokens see which. Linear layers, norms and rotary
embeddings run on the packed row `[1, N]` untouched; only inside attention are queries and keys gathered into
padded blocks: prompts among themselves, and each answer against its prompt and itself.

A model whose attention cannot be replaced (one with soft-capping or sinks inside it, a state-space model) takes the
road of rows: each answer with a copy of its prompt, padded. `choose_road` compares the two once, on a small tree, when
a model is loaded. An LSTM of ours has no attention: it reads the row by itself, each prompt once.

Shape letters:  N tokens of the row   H heads   E size of a head   B answers   P prompts   T tokens   D hidden size
                R tokens of the row that somebody reads
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from plaudit.batch import TokenTree, alike, pack
from plaudit.errors import ModelError
from plaudit.models.lstm import LstmModel

__all__ = [
    "ATTENTION",
    "Plan",
    "TreePlan",
    "attend",
    "bare",
    "body_of",
    "choose_road",
    "end_states",
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
_LAST_PARTS: WeakKeyDictionary[nn.Module, nn.Module | None] = WeakKeyDictionary()
"""The feed-forward part of the last layer, where it can be left out for tokens that nobody reads."""


class _Block(NamedTuple):
    """Texts of about one length, padded to the longest of them."""

    query_BT: Tensor
    """Where in the row each query stands; behind a text's end its last token is repeated."""
    real_BT: Tensor
    """True where a query is no repetition."""
    key_BT: Tensor
    """Where in the row each key stands."""
    bias: Tensor | None
    """[B, 1, T, keys] 0 where a query sees a key, -inf elsewhere; None if each sees itself and what is before it."""

    def to(self, device: torch.device) -> _Block:
        bias = None if self.bias is None else self.bias.to(device)
        return _Block(self.query_BT.to(device), self.real_BT.to(device), self.key_BT.to(device), bias)


class TreePlan:
    """Prompts see themselves; each answer sees its prompt and itself; all of it causal.

    Attention pads, so a text is attended to beside others of about its length: a long answer among short ones costs
    its own length, not everybody's.
    """

    def __init__(self, tree: TokenTree) -> None:
        texts = list(zip(tree.prompt_lengths, tree.answer_lengths, strict=True))
        self.longest = max(prompt + max(answers, default=0) for prompt, answers in texts)
        starts = tree.prompt_starts()
        if all(len(answers) == 1 for answers in tree.answer_lengths):  # a text is one causal block, there is no other
            blocks = [*_causal(starts, [prompt + answers[0] for prompt, answers in texts])]
        else:
            heads = [(starts[p], tree.prompt_lengths[p]) for p in tree.prompt_of_answers()]
            blocks = [*_causal(starts, tree.prompt_lengths), *_after_heads(tree.answer_starts(), tree.lengths, heads)]
        row_S = torch.cat([block.query_BT.flatten() for block in blocks])
        real_S = torch.cat([block.real_BT.flatten() for block in blocks])
        place_N = torch.empty(len(tree.token_N), dtype=torch.int64)
        place_N[row_S[real_S]] = real_S.nonzero().squeeze(1)
        device = tree.token_N.device
        self._blocks = [block.to(device) for block in blocks]
        self._place_N = place_N.to(device)
        """Where in the flattened blocks each token of the row is."""

    def attend(self, layer: int, query_NHE: Tensor, key_NHE: Tensor, value_NHE: Tensor, scale: float | None) -> Tensor:
        """[N, H, E] mixed values."""
        del layer
        mixed = []
        for query_BT, _, key_BT, bias in self._blocks:
            mask = None if bias is None else bias.to(query_NHE.dtype)
            block = attend(query_NHE[query_BT], key_NHE[key_BT], value_NHE[key_BT], scale, mask, causal=bias is None)
            mixed.append(block.flatten(0, 1))
        return torch.cat(mixed)[self._place_N]


def _causal(starts: Sequence[int], sizes: Sequence[int]) -> Iterator[_Block]:
    """Texts that see themselves."""
    for rows in alike(sizes):
        query_BT, real_BT = _places([starts[b] for b in rows], [sizes[b] for b in rows])
        yield _Block(query_BT, real_BT, query_BT, None)


def _after_heads(starts: Sequence[int], sizes: Sequence[int], heads: Sequence[tuple[int, int]]) -> Iterator[_Block]:
    """Answers that see their prompts, each given by start and length, and themselves."""
    for rows in alike(sizes):
        query_BT, real_BT = _places([starts[b] for b in rows], [sizes[b] for b in rows])
        start_B1, size_B1 = _column([heads[b][0] for b in rows]), _column([heads[b][1] for b in rows])
        longest = int(size_B1.max())
        head_BT = torch.arange(longest)[None, :] - (longest - size_B1)  # pushed to the right; negative in front
        own_TT = torch.ones(query_BT.shape[1], query_BT.shape[1], dtype=torch.bool).tril()
        sees_BTT = torch.cat(
            [(head_BT >= 0)[:, None, :].expand(-1, len(own_TT), -1), own_TT[None].expand(len(rows), -1, -1)], dim=2
        )
        bias = torch.zeros(sees_BTT.shape).masked_fill(~sees_BTT, float("-inf"))
        yield _Block(query_BT, real_BT, torch.cat([start_B1 + head_BT.clamp(min=0), query_BT], dim=1), bias[:, None])


def _places(starts: Sequence[int], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """[texts, longest] where each text's tokens stand, its last one repeated behind its end, and which are its own.

    Right of a causal text nobody looks at the repetitions.
    """
    size_B1 = _column(sizes)
    step_1T = torch.arange(max(sizes))[None, :]
    return _column(starts) + torch.minimum(step_1T, size_B1 - 1), step_1T < size_B1


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
    body = body_of(model)
    if isinstance(body, LstmModel):
        return body.read_tree(tree)
    return _rows(model, tree) if _ROADS[body] is None else _packed(model, tree)


def end_states(model: Any, tree: TokenTree) -> Tensor:
    """[B, D] last hidden state of each answer's last token; of its prompt's last where the answer is empty.

    The last layer's feed-forward part works on these tokens alone: a twelfth of a training step where there are six.
    """
    last_B, part = tree.last_B(), _LAST_PARTS.get(body_of(model))
    if part is None or any(getattr(module, "gradient_checkpointing", False) for module in bare(model).modules()):
        return hidden_states(model, tree)[last_B]  # a layer that is computed again must find what it found at first
    with _only_at(part, last_B.unique(), len(tree.token_N)):
        return _packed(model, tree)[last_B]


@contextmanager
def _only_at(part: nn.Module, place_R: Tensor, tokens: int) -> Iterator[None]:
    """Inside, a part that looks at each token by itself works on these, and says 0 of the others, in this thread."""
    owner = threading.get_ident()

    def narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        del module
        if threading.get_ident() != owner:
            return None
        (hidden_1ND,) = args
        return (hidden_1ND[:, place_R],)

    def widen(module: nn.Module, args: tuple[Any, ...], out_1RD: Tensor) -> Tensor | None:
        del module, args
        if threading.get_ident() != owner:
            return None
        return out_1RD.new_zeros(1, tokens, out_1RD.shape[-1]).index_copy(1, place_R, out_1RD)

    hooks = [part.register_forward_pre_hook(narrow), part.register_forward_hook(widen)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _packed(model: Any, tree: TokenTree) -> Tensor:
    return run_packed(model, tree.token_N, tree.position_N(), TreePlan(tree))


def run_packed(model: Any, token_N: Tensor, position_N: Tensor, plan: Plan) -> Tensor:
    """[N, D] last hidden state of a packed row, attended to by a plan."""
    out = body_of(model)(input_ids=token_N[None], position_ids=position_N[None], use_cache=False, plan=plan)
    hidden_ND: Tensor = out.last_hidden_state[0]
    return hidden_ND


def _rows(model: Any, tree: TokenTree) -> Tensor:
    """Each answer behind a copy of its prompt, padded on the right."""
    place_BT, answer_BT = tree.rows()
    prompt_of = tree.prompt_of_answers()
    first_B = [b == 0 or prompt_of[b - 1] != p for b, p in enumerate(prompt_of)]
    # a prompt's states are those of its first copy, or its gradient would count once for each answer
    kept_BT = (place_BT >= 0) & (answer_BT | torch.tensor(first_B, device=place_BT.device)[:, None])
    out = body_of(model)(
        input_ids=tree.token_N[place_BT.clamp(min=0)], attention_mask=(place_BT >= 0).long(), use_cache=False
    )
    hidden_BTD = out.last_hidden_state
    hidden_ND: Tensor = hidden_BTD.new_zeros(len(tree.token_N), hidden_BTD.shape[-1])
    return hidden_ND.index_put((place_BT[kept_BT],), hidden_BTD[kept_BT])


def choose_road(model: Any) -> bool:
    """Give the model packed attention if that changes nothing, tried on a small tree; True if it reads the row.

    The answer is kept on the model in memory, never in its saved folder. A model that cannot pack stays as it was, and
    so does an LSTM, which reads the row without attention.
    """
    body = body_of(model)
    if isinstance(body, LstmModel):
        return True
    if body not in _ROADS:
        _ROADS[body] = _try_packing(bare(model))
        if _ROADS[body] is not None:
            _LAST_PARTS[body] = _try_last_part(bare(model))
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
    tree = _small_tree(model)
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


@torch.no_grad()
def _try_last_part(model: Any) -> nn.Module | None:
    """The last layer's feed-forward part, if leaving it out for what nobody reads changes nothing that is read."""
    depth = model.config.get_text_config().num_hidden_layers
    layers = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    part = getattr(layers[0][-1], "mlp", None) if len(layers) == 1 else None
    if not isinstance(part, nn.Module):
        return None
    tree = _small_tree(model)
    last_B = tree.last_B()
    training = model.training
    model.eval()
    try:
        expected_BD = _packed(model, tree)[last_B]
        with _only_at(part, last_B.unique(), len(tree.token_N)):
            got_BD = _packed(model, tree)[last_B]
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError):
        return None
    finally:
        model.train(training)
    return part if _close(got_BD, expected_BD) else None


def _small_tree(model: Any) -> TokenTree:
    """Two prompts with two answers each."""
    tokens = [(7 * i + 3) % int(model.config.get_text_config().vocab_size) for i in range(12)]
    tree = pack([(tokens[:3], [tokens[3:5], tokens[5:9]]), (tokens[1:5], [tokens[2:3], tokens[9:12]])])
    return tree.to(next(model.parameters()).device)


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
