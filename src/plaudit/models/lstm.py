"""LSTM language models and reward models, as Transformers models: made from nothing, saved and loaded like any other.

Importing this module makes `AutoModelForCausalLM` and `AutoModelForSequenceClassification` know the kind
`plaudit-lstm`; a folder of one loads wherever plaudit is installed and imported.

    model = LstmForCausalLM(LstmConfig(vocab_size=2048, hidden_size=256))

A state depends on what came before it alone, so texts padded on the right need no mask. Hochreiter and Schmidhuber
1997, https://doi.org/10.1162/neco.1997.9.8.1735.

Shape letters:  B texts   T tokens   D hidden size   V vocabulary
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutputWithPast,
    SequenceClassifierOutput,
)

__all__ = ["LstmConfig", "LstmForCausalLM", "LstmForSequenceClassification", "LstmModel"]


class LstmConfig(PreTrainedConfig):
    """The shape of an LSTM.

    Args:
        vocab_size: V.
        hidden_size: D, also the size of the embeddings.
        num_hidden_layers: layers above one another.
        initializer_range: standard deviation of the embeddings at the start.
        tie_word_embeddings: read and write tokens with one matrix.
    """

    model_type = "plaudit-lstm"

    def __init__(
        self,
        vocab_size: int = 2048,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        initializer_range: float = 0.05,
        tie_word_embeddings: bool = True,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.initializer_range = initializer_range
        super().__init__(tie_word_embeddings=tie_word_embeddings, **others)


class _Lstm(PreTrainedModel):
    config_class = LstmConfig
    base_model_prefix = "model"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.LSTM):
            module.reset_parameters()


class LstmModel(_Lstm):
    """Embeddings and the recurrent layers; gives the state after every token."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.lstm = nn.LSTM(config.hidden_size, config.hidden_size, config.num_hidden_layers, batch_first=True)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **others: Any,
    ) -> BaseModelOutput:
        """[B, T] tokens to [B, T, D] states.

        Padding stands on the right, where it comes too late to matter, or on the left, where the mask takes it out.
        """
        del others
        embedded_BTD = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None or bool(attention_mask[:, 0].all()):
            state_BTD, _ = self.lstm(embedded_BTD)
            return BaseModelOutput(last_hidden_state=state_BTD)
        # padded on the left: turn each row so that its text begins at 0, and back
        pad_B = (attention_mask.cumsum(1) == 0).sum(1)
        place_BT = torch.arange(embedded_BTD.shape[1], device=pad_B.device) + pad_B[:, None]
        turned_BTD = embedded_BTD.gather(1, _spread(place_BT % embedded_BTD.shape[1], embedded_BTD))
        state_BTD, _ = self.lstm(turned_BTD)
        back_BT = (place_BT - 2 * pad_B[:, None]) % embedded_BTD.shape[1]
        return BaseModelOutput(last_hidden_state=state_BTD.gather(1, _spread(back_BT, state_BTD)))


def _spread(place_BT: Tensor, like_BTD: Tensor) -> Tensor:
    return place_BT[:, :, None].expand_as(like_BTD)


class LstmForCausalLM(_Lstm, GenerationMixin):
    """An LSTM with a language-model head."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.model = LstmModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self, input_ids: Tensor | None = None, labels: Tensor | None = None, **others: Any
    ) -> CausalLMOutputWithPast:
        """[B, T] tokens to [B, T, V] logits of the token after each; with labels also the mean loss."""
        logits_BTV = self.lm_head(self.model(input_ids=input_ids, **others).last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits_BTV)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> dict[str, Any]:
        """The whole text at every step: this model keeps no memory between calls."""
        del others
        return {"input_ids": input_ids, "attention_mask": attention_mask}


class LstmForSequenceClassification(_Lstm):
    """An LSTM with a linear layer that reads the state after the last token that is not padding."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LstmModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> SequenceClassifierOutput:
        """[B, T] tokens to [B, labels] scores."""
        state_BTD = self.model(input_ids=input_ids, attention_mask=attention_mask, **others).last_hidden_state
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        last_B = (torch.arange(mask_BT.shape[1], device=mask_BT.device) * mask_BT).argmax(1)
        return SequenceClassifierOutput(logits=self.score(state_BTD[torch.arange(len(last_B)), last_B]))


AutoConfig.register(LstmConfig.model_type, LstmConfig, exist_ok=True)
AutoModel.register(LstmConfig, LstmModel, exist_ok=True)
AutoModelForCausalLM.register(LstmConfig, LstmForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(LstmConfig, LstmForSequenceClassification, exist_ok=True)
