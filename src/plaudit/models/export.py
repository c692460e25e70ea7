"""Reward models for other software: Transformers' own classes and pipeline, and vLLM's pooling server.

A Plaudit reward is `gain * score + bias`, with gain and bias in `config.json`, which nobody else reads. An export
folds the gain into the head's weights. The heads of these classes have no bias, so the bias stays outside: `README.md`
in the folder gives it as the number to add. Where answers to one prompt are compared, it does not matter.

`problem_type` becomes `regression`, for both Transformers' pipeline and vLLM put a lone label through a sigmoid else.
For vLLM 0.33.0, read in its sources: an architecture that ends in `ForSequenceClassification` is run with the pooling
runner and the linear layer `score` on the last token (`config/model.py`, `models/adapters.py: as_seq_cls_model`);
`num_labels` is the length of `id2label`; `regression` means no activation (`layers/pooler/activations.py`); and
`logit_mean` of the pooler's config is subtracted from the score, so minus the bias goes there. vLLM loads fp32 pooling
models in fp16 unless told otherwise. None of this was run: there is no vLLM where Plaudit is tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from plaudit.errors import ModelError, RunError
from plaudit.models.load import choose_machine, load_reward, load_tokenizer
from plaudit.models.save import save_model
from plaudit.recipe import Text

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
        ModelError: the model is none of Transformers' own, or its head is not a linear layer `score` with one output.
        RunError: there is something at `out`, or the disk is full.
    """
    if out.exists():
        raise RunError(f"{out} is there already: name a new folder")
    model, gain, bias = load_reward(str(folder), choose_machine("cpu", "fp32"))
    name = type(model).__name__
    if not type(model).__module__.startswith("transformers."):
        raise ModelError(f"{folder}: {name} is not one of Transformers' own models, so nothing else can load it")
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1 or len(list(head.parameters())) > 1:
        raise ModelError(
            f"{folder}: {name} keeps its head elsewhere than in a linear layer `score` with one output and no bias, "
            f"into which the gain {gain:g} could be folded"
        )
    with torch.no_grad():
        head.weight.mul_(gain)
    model.config.problem_type = "regression"
    tokenizer = load_tokenizer(str(folder))
    save_model(model, out, tokenizer, reward_gain=1.0, reward_bias=bias)
    readme = _readme(name, gain, bias, to, tokenizer, text)
    (out / "README.md").write_text(readme, encoding="utf-8")
    return bias


def _readme(name: str, gain: float, bias: float, to: Target, tokenizer: Any, text: Text) -> str:
    end = tokenizer.eos_token
    template = text.template or ("the tokenizer's chat template" if tokenizer.chat_template else "{prompt}")
    return f"""# A reward model

{name} with one label, from Plaudit. The score is read at the last token, which must be `{end}`.

* Reward = score + ({bias!r}). The gain, {gain!r}, is in the weights of `score`; the head has no bias of its own, so
  this number has to be added. It does not matter where answers to one prompt are compared.
* A text is the prompt as `{json.dumps(template, ensure_ascii=False)}`, then the answer, then `{end}`.
  In training, prompt and answer were tokenised apart and joined: where a tokenizer merges across the border, pass
  token ids.
* `problem_type` is `regression`, so that no sigmoid is put on the score.

{_WITH[to].format(end=end, mean=-bias, version=VLLM)}"""


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
