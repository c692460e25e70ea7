"""LSTM language models and reward models, as Transformers models: made from nothing, saved and loaded like any other.

Importing this module makes `AutoModelForCausalLM` and `AutoModelForSequenceClassification` know the kind
`plaudit-lstm`; a folder of one loads wherever plaudit is installed and imported.

    model = LstmForCausalLM(LstmConfig(vocab_size=2048, hidden_size=256))

A state depends on what came before it alone, so texts padded on the right need no mask, and answers to one prompt go on
from the state at its end. Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735.

Shape letters:  B texts   T tokens   D hidden size   V vocabulary   N tokens of a packed row   L layers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence, unpack_sequence
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

from plaudit.batch import TokenTree, alike

__all__ = ["LstmConfig", "LstmForCausalLM", "LstmForSequenceClassification", "LstmModel", "State"]

State = tuple[Tensor, Tensor]
"""[L, B, D] output and [L, B, D] cell of each layer after the last token that was read."""


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
            state_BTD, _ = self.run(embedded_BTD)
            return BaseModelOutput(last_hidden_state=state_BTD)
        # padded on the left: turn each row so that its text begins at 0, and back
        pad_B = (attention_mask.cumsum(1) == 0).sum(1)
        place_BT = torch.arange(embedded_BTD.shape[1], device=pad_B.device) + pad_B[:, None]
        turned_BTD = embedded_BTD.gather(1, _spread(place_BT % embedded_BTD.shape[1], embedded_BTD))
        state_BTD, _ = self.run(turned_BTD)
        back_BT = (place_BT - 2 * pad_B[:, None]) % embedded_BTD.shape[1]
        return BaseModelOutput(last_hidden_state=state_BTD.gather(1, _spread(back_BT, state_BTD)))

    def run(self, given: Any, start: State | None = None) -> tuple[Any, State]:
        """The recurrent layers on [B, T, D] or on a `PackedSequence`, from a state or from zeros.

        In fp32 under autocast too: what is rounded at every step adds up, and few processors have the 16-bit kernel.
        """
        begin = None if start is None else (start[0].contiguous(), start[1].contiguous())
        with torch.autocast(self.embed_tokens.weight.device.type, enabled=False):
            found: tuple[Any, State] = self.lstm(given, begin)
        return found

    def read(self, texts: Sequence[Sequence[int]]) -> State:
        """The state after each of these texts, none of them empty; its last output is what a head reads."""
        token_N = torch.tensor([token for text in texts for token in text], device=self.embed_tokens.weight.device)
        embedded_ND = self.embed_tokens(token_N)
        return self._read_to_the_end(embedded_ND.split([len(text) for text in texts]))[1]

    def read_on(self, token_B: Tensor, start: State) -> State:
        """The state after one more token of each text."""
        end: State = self.run(self.embed_tokens(token_B)[:, None], start)[1]
        return end

    def read_tree(self, tree: TokenTree) -> Tensor:
        """[N, D] the output at every token of a packed row: each prompt read once, each answer from where it ended."""
        embedded_ND = self.embed_tokens(tree.token_N)
        texts = list(zip(tree.prompt_lengths, tree.answer_lengths, strict=True))
        if all(len(answers) == 1 for _, answers in texts):  # a text is read in one go
            return torch.cat(self._read_alike(embedded_ND.split([prompt + answers[0] for prompt, answers in texts])))
        pieces = embedded_ND.split([size for prompt, answers in texts for size in (prompt, *answers)])
        begins = [first for _, answers in texts for first in (True, *(False for _ in answers))]
        prompts = [piece for piece, first in zip(pieces, begins, strict=True) if first]
        answers = [piece for piece, first in zip(pieces, begins, strict=True) if not first]
        output, (out_LPD, cell_LPD) = self._read_to_the_end(prompts)
        of_B = tree.prompt_of_answers()
        states = iter(unpack_sequence(output)), iter(self._read_alike(answers, (out_LPD[:, of_B], cell_LPD[:, of_B])))
        return torch.cat([next(states[0] if first else states[1]) for first in begins])

    def _read_to_the_end(self, texts: Sequence[Tensor]) -> tuple[PackedSequence, State]:
        """Embedded texts, packed: the padded kernel, which trains faster on a CPU, would read on behind their ends."""
        return self.run(pack_sequence(list(texts), enforce_sorted=False))

    def _read_alike(self, texts: Sequence[Tensor], start: State | None = None) -> list[Tensor]:
        """[T, D] outputs of each embedded text, padded beside others of about its length; an empty one stays empty."""
        found = list(texts)
        for rows in alike([len(text) for text in texts]):
            begin = None if start is None else (start[0][:, rows], start[1][:, rows])
            output_BTD, _ = self.run(pad_sequence([texts[b] for b in rows], batch_first=True), begin)
            for b, output_TD in zip(rows, output_BTD, strict=True):
                found[b] = output_TD[: len(texts[b])]
        return found


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
