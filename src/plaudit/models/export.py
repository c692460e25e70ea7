"""Reward models for other software: Transformers' own classes and pipeline, and vLLM's pooling server.

A Plaudit reward is `gain * score + bias`, with gain and bias in `config.json`, which nobody else reads. An export
folds the gain into the head's weights, and several qualities into one row, their weighted sum. An encoder's head has a
bias, which takes in the reward's. A decoder's has none, so the bias stays outside: `README.md` in the folder gives it
as the number to add. Where answers to one prompt are compared, it does not matter.

`problem_type` becomes `regression`, for both Transformers' pipeline and vLLM put a lone label through a sigmoid else.
For vLLM 0.33.0, read in its sources: an architecture that ends in `ForSequenceClassification` is run with the pooling
runner and the linear layer `score` on the last token (`config/model.py`, `models/adapters.py: as_seq_cls_model`);
`num_labels` is the length of `id2label`; `regression` means no activation (`layers/pooler/activations.py`); and
`logit_mean` of the pooler's config is subtracted from the score, so minus the bias goes there. vLLM loads fp32 pooling
models in fp16 unless told otherwise. None of this was run: there is no vLLM where Plaudit is tested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from plaudit.errors import ModelError, RunError
from plaudit.models.load import choose_machine, context_of, load_reward, load_tokenizer, quality_weights
from plaudit.models.network import head_of, reads_both_ways
from plaudit.models.save import save_model
from plaudit.recipe import Text
from plaudit.records import Message, Prompt
from plaudit.text import Words

__all__ = ["VLLM", "Target", "export_reward"]

Target = Literal["transformers", "vllm"]

VLLM: Final = "0.33.0"
"""The version whose sources say what is written for vLLM."""


def export_reward(folder: Path, out: Path, to: Target, text: Text) -> float:
    """Write a reward model as a folder that loads without Plaudit, with `README.md` on how to use it.

    Args:
        folder: a Plaudit reward model's.
        out: the folder to write; it must not be there.
        to: who shall read it.
        text: the templates that the model was trained with, for the README.

    Returns:
        The number to add to an exported score to get the reward.

    Raises:
        ModelError: the model is none of Transformers' own, its head is no linear layer that we know, or an encoder is
            asked for vLLM.
        RunError: there is something at `out`, or the disk is full.
    """
    if out.exists():
        raise RunError(f"{out} is there already: name a new folder")
    model, gain, bias = load_reward(str(folder), choose_machine("cpu", "fp32"))
    name = type(model).__name__
    if not type(model).__module__.startswith("transformers."):
        raise ModelError(f"{folder}: {name} is not one of Transformers' own models, so nothing else can load it")
    encoder = reads_both_ways(model)
    if encoder and to == "vllm":
        raise ModelError(
            f"{folder}: {name} is an encoder, and what is written for vLLM holds for decoders: export it for "
            "transformers"
        )
    head, weights = head_of(model), quality_weights(model.config)
    scale = _scale(head, gain, bias, dict(zip(model.config.id2label.values(), weights, strict=True)))
    added = _fold(head, weights, gain, bias)
    if hasattr(model.config, "reward_weights"):
        model.num_labels = model.config.num_labels = 1
        del model.config.reward_weights
    model.config.problem_type = "regression"
    tokenizer = load_tokenizer(str(folder))
    save_model(model, out, tokenizer, reward_gain=1.0, reward_bias=added)
    words = Words(tokenizer, text, context=context_of(model.config))
    readme = _for_encoder(name, scale, words, model.config) if encoder else _for_decoder(name, scale, added, words, to)
    (out / "README.md").write_text(readme, encoding="utf-8")
    return added


@torch.no_grad()
def _fold(head: nn.Linear, weights: Sequence[float], gain: float, bias: float) -> float:
    """Let a head give the reward in its one row, but for what is returned: the bias, where the head has none."""
    row = gain * torch.tensor([weights])
    head.weight = nn.Parameter(row @ head.weight)
    head.out_features = 1
    if not _has_bias(head):
        return bias
    head.bias = nn.Parameter(row @ head.bias + bias)
    return 0.0


def _has_bias(head: nn.Linear) -> bool:
    return "bias" in dict(head.named_parameters())


def _scale(head: nn.Linear, gain: float, bias: float, weights: Mapping[str, float]) -> str:
    """What becomes of gain, bias and qualities."""
    summed = ", ".join(f"{name} ({weight:g})" for name, weight in weights.items())
    rows = f"\n  Its one row is the weighted sum of those of {summed}." if len(weights) > 1 else ""
    if _has_bias(head):
        return f"* Reward = score. The gain, {gain!r}, and the bias, {bias!r}, are in the head.{rows}"
    return (
        f"* Reward = score + ({bias!r}). The gain, {gain!r}, is in the weights of the head, which has no bias of its\n"
        f"  own, so this number has to be added. It does not matter where answers to one prompt are compared.{rows}"
    )


def _for_decoder(name: str, scale: str, added: float, words: Words, to: Target) -> str:
    end = words.tokenizer.eos_token
    return f"""# A reward model

{name} with one label, from Plaudit. The score is read at the last token, which must be `{end}`.

{scale}
{_prompts(words)}
  Behind it come the answer and `{end}`.
  In training, prompt and answer were tokenised apart and joined: where a tokenizer merges across the border, pass
  token ids. The answer `so` to the first of these prompts is `{_sample_ids(words)}`.
* `problem_type` is `regression`, so that no sigmoid is put on the score.

{_WITH[to].format(end=end, mean=-added, version=VLLM)}"""


def _prompts(words: Words) -> str:
    """How prompts are written, by two of them."""
    text, chat = words.prompt_text(_WHY)
    lines = [f"* The prompt `why?` is written as `{_quoted(text)}`{_NO_MORE if chat else ''}."]
    if not chat and words.text.template is None and words.tokenizer.chat_template:
        text, _ = words.prompt_text(Prompt(messages=(Message(role="user", content="why?"),)))
        lines.append(f"  A chat in which a user says `why?` is written as `{_quoted(text)}`{_NO_MORE}.")
    return "\n".join(lines)


_WHY: Final = Prompt(text="why?")
_NO_MORE: Final = ", special tokens\n  and all: have none added, by `add_special_tokens=False`"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _sample_ids(words: Words) -> list[int]:
    context = words.prompt_ids(_WHY)
    return [*context, *words.answer_ids("so", context_ids=context)]


def _for_encoder(name: str, scale: str, words: Words, config: Any) -> str:
    context = words.prompt_ids(_WHY)
    ids = _sample_ids(words)
    typed = getattr(config, "type_vocab_size", 0) > 1
    types = [int(place >= len(context)) for place in range(len(ids))]
    text, _ = words.prompt_text(_WHY)
    pair = words.tokenizer(text, "so")
    alike = pair["input_ids"] == ids and pair.get("token_type_ids") == (types if typed else None)
    given = f"input_ids=torch.tensor([{ids}])" + (f", token_type_ids=torch.tensor([{types}])" if typed else "")
    return f"""# A reward model

{name} with one label, from Plaudit. It reads prompt and answer together, as its two segments.

{scale}
{_prompts(words)}
  With the answer `so` that is `{ids}`.
* `problem_type` is `regression`, so that no sigmoid is put on the score.

{(_PAIR if alike else _IDS).format(prompt=_quoted(text), given=given)}"""


_PAIR: Final = """## With Transformers

```python
from transformers import pipeline

score = pipeline("text-classification", model="path/to/this/folder")
print(score({{"text": {prompt}, "text_pair": "so"}})["score"])
```
"""
_IDS: Final = """## With Transformers

The tokenizer joins a pair of texts otherwise than in training: pass token ids.

```python
import torch
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder").eval()
print(model({given}).logits.item())
```
"""
_WITH: Final[dict[Target, str]] = {
    "transformers": """## With Transformers

```python
from transformers import pipeline

score = pipeline("text-classification", model="path/to/this/folder")
print(score("prompt and answer{end}")[0]["score"])
```
""",
    "vllm": """## With vLLM

Written for vLLM {version}, from its sources; not run with it.

```sh
vllm serve path/to/this/folder --runner pooling --dtype float32 --pooler-config '{{"logit_mean": {mean!r}}}'
curl http://127.0.0.1:8000/classify -H 'Content-Type: application/json' \\
  -d '{{"model": "path/to/this/folder", "input": ["prompt and answer{end}"]}}'
```

The reward is the one number of `probs`, with nothing to add: `logit_mean` is subtracted from the score, so it is minus
the number above. Without `--dtype float32`, vLLM computes in half precision.
""",
}
