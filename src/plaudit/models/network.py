"""What a learner trains: a language model (with or without a critic) or a reward model, over packed batches.

Shape letters:  B answers   T tokens   N tokens of the packed row   M answer tokens without padding   D hidden size
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from plaudit.batch import Needs, Outputs, TokenTree
from plaudit.models.logprobs import logits_of, token_logps
from plaudit.models.packed import bare, choose_road, end_states, hidden_states

__all__ = ["Critic", "LanguageNetwork", "Network", "RewardNetwork", "new_head"]


def new_head(size: int, *, bias: bool, seed: int) -> nn.Linear:
    """A linear layer D -> 1, weights drawn from N(0, 1 / (D + 1)), bias 0.

    Stiennon et al. 2020, https://arxiv.org/abs/2009.01325 (their code; the text omits the square root).
    """
    head = nn.Linear(size, 1, bias=bias)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(1, size, generator=generator) / math.sqrt(size + 1))
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
        mask_BT = tree.mask_BT()
        value_M = self.head(hidden_ND[tree.source_BT()[mask_BT]]).squeeze(-1).float()
        return _spread(value_M, mask_BT)


class LanguageNetwork(Network):
    """A Transformers causal language model, with or without a critic.

    Args:
        model: the language model, maybe under an adapter.
        critic: gives `Outputs.value_BT`.
        temperature: logits are divided by it wherever log-probabilities are taken, as in sampling.
    """

    def __init__(self, model: Any, critic: Critic | None = None, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.critic = critic
        self.temperature = temperature
        self.packed = choose_road(model)
        self._logits = logits_of(model)

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """Log-probabilities, entropies and values at the answers' tokens."""
        hidden_ND = None
        logp_BT = entropy_BT = value_BT = None
        shares_trunk = self.critic is not None and self.critic.model is None
        if needs.logp or needs.entropy or (needs.value and shares_trunk):
            hidden_ND = hidden_states(self.model, tree)
        if needs.logp or needs.entropy:
            assert hidden_ND is not None
            mask_BT = tree.mask_BT()
            logp_M, entropy_M = token_logps(
                self._logits,
                hidden_ND[tree.source_BT()[mask_BT]],
                tree.token_BT()[mask_BT],
                temperature=self.temperature,
                vocabulary=self.model.config.get_text_config().vocab_size,
                entropy=needs.entropy,
            )
            logp_BT = _spread(logp_M, mask_BT)
            entropy_BT = None if entropy_M is None else _spread(entropy_M, mask_BT)
        if needs.value:
            assert self.critic is not None, "values were asked of a network without a critic"
            value_BT = self.critic.value_BT(tree, hidden_ND)
        return Outputs(logp=logp_BT, entropy=entropy_BT, value=value_BT)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """`policy`, and `critic` where there is one."""
        groups = {"policy": [p for p in self.model.parameters() if p.requires_grad]}
        if self.critic is not None:
            groups["critic"] = [p for p in self.critic.parameters() if p.requires_grad]
        return groups


class RewardNetwork(Network):
    """A Transformers sequence classifier with one label: trunk + linear head without bias.

    The reward of an answer is `gain * score + bias`, the score read at its last token.

    Args:
        model: the classifier, maybe under an adapter.
        dropout: share of the trunk's output that is zeroed before the head, in training mode.
    """

    def __init__(self, model: Any, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.dropout = nn.Dropout(dropout)
        self.packed = choose_road(model)

    @property
    def head(self) -> nn.Linear:
        """D -> 1."""
        head: nn.Linear = bare(self.model).score
        return head

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """The raw score of each answer (gain 1, bias 0)."""
        del needs
        hidden_BD = end_states(self.model, tree)
        return Outputs(score=self.model_head(self.dropout(hidden_BD)).squeeze(-1).float())

    def model_head(self, hidden_BD: Tensor) -> Tensor:
        """[B, 1] raw scores of the hidden states at the answers' ends."""
        score: Tensor = self.head(hidden_BD)
        return score

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One group, `reward`."""
        return {"reward": [p for p in self.model.parameters() if p.requires_grad]}


def _spread(value_M: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T] with the values where the mask is set, in its order, and 0 elsewhere."""
    return value_M.new_zeros(mask_BT.shape).masked_scatter(mask_BT, value_M)
