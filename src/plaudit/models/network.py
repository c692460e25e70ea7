"""What a learner trains: a language model (with or without a critic) or a reward model, over packed batches.

Shape letters:  B answers   T tokens   N tokens of the packed row   M answer tokens without padding   D hidden size
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING

from plaudit.batch import Needs, Outputs, TokenTree
from plaudit.errors import ModelError
from plaudit.losses.pointwise import cuts_of
from plaudit.models.logprobs import logits_of, token_logps
from plaudit.models.packed import bare, body_of, choose_road, end_states, hidden_states

__all__ = [
    "Critic",
    "LanguageNetwork",
    "Network",
    "RewardNetwork",
    "Scales",
    "TwinQ",
    "head_of",
    "is_encoder",
    "new_head",
    "reads_both_ways",
]


def new_head(size: int, *, bias: bool, seed: int, outputs: int = 1) -> nn.Linear:
    """A linear layer D -> outputs, weights drawn from N(0, 1 / (D + 1)), bias 0.

    Stiennon et al. 2020, https://arxiv.org/abs/2009.01325 (their code; the text omits the square root).
    """
    head = nn.Linear(size, outputs, bias=bias)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(outputs, size, generator=generator) / math.sqrt(size + 1))
        if bias:
            head.bias.zero_()
    return head


class Network(nn.Module):
    """Base of the two networks: what is trained, in named groups, and what it says about a tree."""

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """Run the model on a packed batch and give what a loss needs."""
        raise NotImplementedError

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by name of their group; the gradient's norm is cut in each apart."""
        raise NotImplementedError

    def embeddings(self) -> nn.Parameter:
        """The matrix that gives every token its first state, for adversarial training."""
        raise NotImplementedError

    def trained(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: every trainable tensor, by its full name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


class Critic(nn.Module):
    """A value for every prefix: a head on the policy's own trunk, or on a trunk of its own.

    Args:
        head: D -> 1 with bias.
        model: a Transformers model whose trunk is the critic's own; None shares the policy's.
    """

    def __init__(self, head: nn.Linear, model: Any = None) -> None:
        super().__init__()
        self.head = head
        self.model = model
        if model is not None:
            choose_road(model)

    def value_BT(self, tree: TokenTree, hidden_ND: Tensor | None) -> Tensor:
        """[B, T] values before each answer token; 0 after the answer's end."""
        if self.model is not None:
            hidden_ND = hidden_states(self.model, tree)
        assert hidden_ND is not None, "a critic without a trunk needs the policy's hidden states"
        mask_BT = tree.mask_BT
        value_M = _read(self.head, hidden_ND[tree.source_BT()[mask_BT]]).squeeze(-1)
        return _spread(value_M, mask_BT)


class TwinQ(nn.Module):
    """Two values of every next token, on one trunk, and slow copies that follow: what soft actor-critic learns from.

    Args:
        heads: D -> 2 V, the twins side by side.
        model: a Transformers model whose trunk is theirs.
    """

    def __init__(self, heads: nn.Linear, model: Any) -> None:
        super().__init__()
        self.heads = heads
        self.model = model
        self.slow_heads = copy.deepcopy(heads).requires_grad_(False)
        self.slow_model = copy.deepcopy(model).requires_grad_(False)
        for trunk in (self.model, self.slow_model):
            choose_road(trunk)

    def q_BTVQ(self, tree: TokenTree, *, slow: bool = False) -> Tensor:
        """[B, T, V, 2] values before each answer token."""
        model, heads = (self.slow_model, self.slow_heads) if slow else (self.model, self.heads)
        twins: Tensor = _read(heads, hidden_states(model, tree)[tree.source_BT()]).unflatten(-1, (-1, 2))
        return twins

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Let the slow copies come nearer, by this share of the way."""
        for slow, fast in ((self.slow_heads, self.heads), (self.slow_model, self.model)):
            for mine, theirs in zip(slow.parameters(), fast.parameters(), strict=True):
                mine.lerp_(theirs, rate)


class LanguageNetwork(Network):
    """A Transformers causal language model, with or without a critic.

    Args:
        model: the language model, maybe under an adapter.
        critic: gives `Outputs.value_BT`.
        auxiliary: gives `Outputs.auxiliary_BT`, from the policy's own trunk, whose training it is a means of.
        twins: give `Outputs.q_BTVQ` and `Outputs.slow_q_BTVQ`.
        temperature: logits are divided by it wherever log-probabilities are taken, as in sampling, but for needs that
            are `untempered`.
    """

    def __init__(
        self,
        model: Any,
        critic: Critic | None = None,
        *,
        auxiliary: Critic | None = None,
        twins: TwinQ | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.critic = critic
        self.auxiliary = auxiliary
        self.twins = twins
        self.temperature = temperature
        self.packed = choose_road(model)
        self._logits = logits_of(model)

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """Log-probabilities, entropies and values at the answers' tokens."""
        hidden_ND = None
        logp_BT = entropy_BT = value_BT = distribution_BTV = None
        shares_trunk = self.critic is not None and self.critic.model is None
        if needs.logp or needs.entropy or needs.distribution or needs.auxiliary or (needs.value and shares_trunk):
            hidden_ND = hidden_states(self.model, tree)
        if needs.logp or needs.entropy:
            assert hidden_ND is not None
            mask_BT = tree.mask_BT
            logp_M, entropy_M = token_logps(
                self._logits,
                hidden_ND[tree.source_BT()[mask_BT]],
                tree.token_BT[mask_BT],
                temperature=1.0 if needs.untempered else self.temperature,
                vocabulary=self.model.config.get_text_config().vocab_size,
                entropy=needs.entropy,
                support=tree.support,
            )
            logp_BT = _spread(logp_M, mask_BT)
            entropy_BT = None if entropy_M is None else _spread(entropy_M, mask_BT)
        if needs.distribution:
            assert hidden_ND is not None
            source_BT = tree.source_BT()  # after an answer's end, that of the row's first token: nobody reads it
            distribution_BTV = tree.logps_BTV(self._logits(hidden_ND[source_BT]).float() / self.temperature)
        if needs.value:
            assert self.critic is not None, "values were asked of a network without a critic"
            value_BT = self.critic.value_BT(tree, hidden_ND)
        auxiliary_BT = None
        if needs.auxiliary:
            assert self.auxiliary is not None, "an auxiliary value was asked of a network without such a head"
            auxiliary_BT = self.auxiliary.value_BT(tree, hidden_ND)
        assert self.twins is not None or not (needs.q or needs.slow_q), "twins were asked of a network without them"
        return Outputs(
            logp=logp_BT,
            entropy=entropy_BT,
            distribution=distribution_BTV,
            value=value_BT,
            auxiliary=auxiliary_BT,
            q=self.twins.q_BTVQ(tree) if self.twins is not None and needs.q else None,
            slow_q=self.twins.q_BTVQ(tree, slow=True) if self.twins is not None and needs.slow_q else None,
        )

    def follow(self, rate: float) -> None:
        """Let the twins' slow copies come nearer."""
        assert self.twins is not None, "a network without twins has nothing slow"
        self.twins.follow(rate)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """`policy`, and `critic` where there is one."""
        groups = {"policy": [p for p in self.model.parameters() if p.requires_grad]}
        if self.auxiliary is not None:
            groups["policy"] += list(self.auxiliary.parameters())
        if self.critic is not None:
            groups["critic"] = [p for p in self.critic.parameters() if p.requires_grad]
        if self.twins is not None:
            groups["twins"] = [p for p in self.twins.parameters() if p.requires_grad]
        return groups

    def trained(self) -> dict[str, Tensor]:
        """Every trainable tensor, and the twins' slow copies, which only follow."""
        slow = {name: p for name, p in self.named_parameters() if name.startswith("twins.slow_")}
        return super().trained() | slow


class Scales(nn.Module):
    """What is learned from judgements beside the scores: how frequent ties are, and where grades begin.

    Each starts where it would be if all answers were worth the same. The optimiser's step is made larger for them,
    because there are few and they are numbers of order 1, unlike the trunk's weights.

    Args:
        tie_share: of the pairs, how many are tied.
        grade_counts: how many answers have each grade, the worst first; nothing where there are no grades.
    """

    STEP = 30.0

    def __init__(self, tie_share: float, grade_counts: Sequence[int] = ()) -> None:
        super().__init__()
        self.ties = tie_share > 0
        share = min(max(tie_share, 1e-3), 1 - 1e-3)
        total = sum(grade_counts) + len(grade_counts)
        above = [sum(n + 1 for n in grade_counts[c:]) / total for c in range(1, len(grade_counts))]
        cuts = [math.log((1 - p) / p) for p in above]  # P(grade > c) = sigmoid(-cut_c) at score 0
        free = [*cuts[:1], *(math.log(math.expm1(here - below)) for below, here in itertools.pairwise(cuts))]
        self.register_buffer("tie_start", torch.tensor(math.log(2 * share / (1 - share))), persistent=False)
        self.register_buffer("free_start_C", torch.tensor(free), persistent=False)
        self.tie_moved = nn.Parameter(torch.zeros(()))
        self.free_moved_C = nn.Parameter(torch.zeros(len(free)))

    def tie(self) -> Tensor:
        """Scalar: ties between equal answers are e^tie times as frequent as wins of one of them."""
        return cast(Tensor, self.tie_start) + self.STEP * self.tie_moved

    def cut_C(self) -> Tensor:
        """[C] the scores between grades, rising; none where there are no grades."""
        return cuts_of(cast(Tensor, self.free_start_C) + self.STEP * self.free_moved_C)

    def values(self) -> dict[str, float | list[float]]:
        """`tie` where there are ties, `cuts` where there are grades, in the units of the raw score."""
        tie: dict[str, float | list[float]] = {"tie": float(self.tie().detach())} if self.ties else {}
        return tie | ({"cuts": self.cut_C().tolist()} if len(self.free_moved_C) else {})


def reads_both_ways(model: Any) -> bool:
    """Whether the model is an encoder, whose every token sees all others, and not a decoder."""
    return is_encoder(bare(model).config)


def is_encoder(config: Any) -> bool:
    """Whether a model of this config is an encoder."""
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def head_of(model: Any) -> nn.Linear:
    """The linear layer that gives a sequence classifier's score.

    Raises:
        ModelError: it is not where such models keep it.
    """
    inner = bare(model)
    for name in ("score", "classifier"):
        top: Any = getattr(inner, name, None)
        if hasattr(top, "modules_to_save"):  # an adapter trains a copy of it
            top = top.modules_to_save[top.active_adapters[0]]
        for head in (top, getattr(top, "out_proj", None)):
            if isinstance(head, nn.Linear):
                return head
    raise ModelError(f"{type(inner).__name__} keeps its head in none of score, classifier, classifier.out_proj")


class RewardNetwork(Network):
    """A Transformers sequence classifier, one label for each quality that is judged; most have one.

    Over a decoder: its trunk and a linear head without bias, the score read at the answer's last token. Over an
    encoder: the classifier as it is, on prompt and answer as its two segments. The reward is `gain * score + bias`.

    Args:
        model: the classifier, maybe under an adapter.
        dropout: share of the head's input that is zeroed in training mode.
        adapter: the adapter that this one is, where several share the model.
    """

    def __init__(self, model: Any, *, dropout: float = 0.0, adapter: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.dropout = nn.Dropout(dropout)
        self.encoder = reads_both_ways(model)
        self.packed = not self.encoder and choose_road(model)
        if self.encoder:
            head_of(model).register_forward_pre_hook(lambda head, given: (self.dropout(given[0]), *given[1:]))
        self.scales: Scales | None = None
        """Learned beside the scores while the model is trained; set by the stage, by what was judged."""
        self.language_head: nn.Module | None = None
        """Writes the next token from the trunk's states, where the trunk goes on learning to (`add_language_head`)."""

    @property
    def head(self) -> nn.Linear:
        """D -> labels."""
        return head_of(self.model)

    def add_language_head(self, language: Any) -> None:
        """Let the trunk go on as a language model too: the head is that of a language model of the same shape.

        Raises:
            ModelError: the model is an encoder, which writes nothing.
        """
        if self.encoder:
            raise ModelError("reward.language is for decoders: an encoder writes nothing")
        head = language.get_output_embeddings()
        if language.config.get_text_config().tie_word_embeddings:
            head.weight = body_of(self.model).get_input_embeddings().weight
        elif not body_of(self.model).get_input_embeddings().weight.requires_grad:  # under an adapter
            head.requires_grad_(False)
        self._logits = logits_of(language)
        self.language_head = head

    def embeddings(self) -> nn.Parameter:
        """The matrix that gives every token its first state."""
        weight: nn.Parameter = body_of(self.model).get_input_embeddings().weight
        return weight

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """The raw score of each answer (gain 1, bias 0): [B], or [B, labels] where there are several."""
        logp_BT = None
        if self.adapter is not None:
            self.model.set_adapter(self.adapter)
        if self.encoder:
            score = self._read_whole(tree)
        elif needs.logp:
            hidden_ND = hidden_states(self.model, tree)
            score = _read(self.head, self.dropout(hidden_ND[tree.last_B()]))
            logp_BT = self._logps(hidden_ND, tree)
        else:
            score = _read(self.head, self.dropout(end_states(self.model, tree)))
        score = score.squeeze(-1) if score.shape[-1] == 1 else score
        if self.scales is None or not needs.scales:
            return Outputs(score=score, logp=logp_BT)
        return Outputs(score=score, logp=logp_BT, tie=self.scales.tie(), cut=self.scales.cut_C())

    def _logps(self, hidden_ND: Tensor, tree: TokenTree) -> Tensor:
        assert self.language_head is not None, "log-probabilities were asked of a network without a language head"
        mask_BT = tree.mask_BT
        logp_M, _ = token_logps(
            self._logits,
            hidden_ND[tree.source_BT()[mask_BT]],
            tree.token_BT[mask_BT],
            temperature=1.0,
            vocabulary=bare(self.model).config.get_text_config().vocab_size,
            entropy=False,
        )
        return _spread(logp_M, mask_BT)

    def _read_whole(self, tree: TokenTree) -> Tensor:
        """[B, labels] scores of an encoder, which reads every answer with its prompt anew."""
        place_BT, answer_BT = tree.rows()
        inputs = {"input_ids": tree.token_N[place_BT.clamp(min=0)], "attention_mask": (place_BT >= 0).long()}
        if getattr(bare(self.model).config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = answer_BT.long()
        read: list[Tensor] = []
        watch = self.head.register_forward_pre_hook(lambda head, given: read.append(given[0]))
        try:
            self.model(**inputs)
        finally:
            watch.remove()
        return _read(self.head, read[0])

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """`reward`, and `scales` where something is learned beside it."""
        groups = {"reward": [p for p in self.model.parameters() if p.requires_grad]}
        if self.language_head is not None:
            mine = {id(p) for p in groups["reward"]}
            groups["reward"] += [p for p in self.language_head.parameters() if p.requires_grad and id(p) not in mine]
        if self.scales is not None:
            groups["scales"] = list(self.scales.parameters())
        return groups


def _read(head: Any, hidden: Tensor) -> Tensor:
    """[..., labels] in the head's precision, under autocast too: 16 bits would put rewards on a coarse grid."""
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.to(head.weight.dtype), head.weight, head.bias)


def _spread(value_M: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T] with the values where the mask is set, in its order, and 0 elsewhere."""
    return value_M.new_zeros(mask_BT.shape).masked_scatter(mask_BT, value_M)
